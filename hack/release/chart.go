package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/registry"
)

const chartName = "ecs-image-gc"

// addChart packages the chart with the version of the release, and pushes it as Helm does.
func (b *built) addChart() error {
	c, err := loader.LoadDir(filepath.Join(b.source, "charts", chartName))
	if err != nil {
		return fmt.Errorf("load the chart: %w", err)
	}
	c.Metadata.Version, c.Metadata.AppVersion = b.chartVersion(), b.version
	if err := b.pin(c); err != nil {
		return err
	}
	c.StampModTimes(b.date)
	packed, err := chartutil.Save(c, b.files)
	if err != nil {
		return fmt.Errorf("package the chart: %w", err)
	}
	data, err := os.ReadFile(packed) // #nosec G304: what Save wrote
	if err != nil {
		return err
	}
	client, err := registry.NewClient(registry.ClientOptPlainHTTP())
	if err != nil {
		return err
	}
	at := artifact{name: "chart", path: b.charts() + "/" + chartName, tag: b.chartVersion()}
	pushed, err := client.Push(data, b.local(at).Name(), registry.PushOptCreationTime(b.date.Format(time.RFC3339)))
	if err != nil {
		return fmt.Errorf("push the chart: %w", err)
	}
	if at.digest, err = v1.NewHash(pushed.Manifest.Digest); err != nil {
		return err
	}
	b.artifacts = append(b.artifacts, at)
	return nil
}

// chartVersion is the version in the form that Helm requires. A commit without a tag is 0.0.0-gCOMMIT.
func (r *release) chartVersion() string {
	version := strings.TrimPrefix(r.version, "v")
	if _, err := semver.StrictNewVersion(version); err != nil {
		return "0.0.0-g" + version
	}
	return version
}

// pin makes the published image, by its digest, the default of the chart.
func (b *built) pin(c *chart.Chart) error {
	repository, digest, _ := strings.Cut(b.pinned(), "@")
	for _, f := range c.Raw {
		if f.Name != chartutil.ValuesfileName {
			continue
		}
		for from, to := range map[string]string{
			"\n  repository: imagegc/ecs-image-gc\n": "\n  repository: " + repository + "\n",
			"\n  digest: \"\"\n":                     "\n  digest: " + digest + "\n",
			" No image is published yet: build your own with `make docker-build`.\n": "\n",
		} {
			if bytes.Count(f.Data, []byte(from)) != 1 {
				return fmt.Errorf("want %q once in %s of the chart", from, f.Name)
			}
			f.Data = bytes.Replace(f.Data, []byte(from), []byte(to), 1)
		}
	}
	return nil
}
