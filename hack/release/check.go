package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"helm.sh/helm/v4/pkg/registry"
)

// compare returns an error for each file and artifact that differs from those of another build.
func (b *built) compare(other *built) error {
	var differences []error
	if !slices.Equal(b.artifacts, other.artifacts) {
		differences = append(differences, fmt.Errorf("artifacts differ:\n  %v\n  %v", b.artifacts, other.artifacts))
	}
	files, err := os.ReadDir(b.files)
	if err != nil {
		return err
	}
	for _, file := range files {
		one, err := os.ReadFile(filepath.Join(b.files, file.Name()))
		two, err2 := os.ReadFile(filepath.Join(other.files, file.Name()))
		if err := errors.Join(err, err2); err != nil {
			differences = append(differences, err)
		} else if !bytes.Equal(one, two) {
			differences = append(differences, fmt.Errorf("%s differs", file.Name()))
		}
	}
	if len(differences) > 0 {
		return fmt.Errorf("two builds of the same commit are not the same: %w", errors.Join(differences...))
	}
	fmt.Printf("Built twice: %d artifacts and %d files are the same\n", len(b.artifacts), len(files))
	return nil
}

// check pulls back what was pushed, and looks at it as a user would.
func (b *built) check(ctx context.Context) error {
	image := b.find("image")
	index, err := remote.Index(b.local(image), remote.WithContext(ctx))
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	if digest != image.digest {
		return fmt.Errorf("the registry has %s as the image, not %s", digest, image.digest)
	}
	if err := validate.Index(index); err != nil {
		return err
	}
	if err := b.checkPlatforms(ctx, index); err != nil {
		return err
	}
	return errors.Join(b.checkManifests(), b.checkChart(), b.runImage(ctx, index))
}

func (b *built) checkPlatforms(ctx context.Context, index v1.ImageIndex) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != len(platforms) {
		return fmt.Errorf("the image has %d platforms, not %d", len(manifest.Manifests), len(platforms))
	}
	for i, descriptor := range manifest.Manifests {
		if !descriptor.Platform.Equals(platforms[i]) {
			return fmt.Errorf("platform %d is %s, not %s", i, descriptor.Platform, platforms[i])
		}
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			return err
		}
		if err := b.checkConfig(image, platforms[i]); err != nil {
			return fmt.Errorf("%s: %w", platforms[i], err)
		}
		if err := b.checkBOM(ctx, descriptor, platforms[i]); err != nil {
			return fmt.Errorf("SBOM of %s: %w", platforms[i], err)
		}
	}
	return nil
}

// checkConfig compares with the words of the Dockerfile, and not with what was read from it.
func (b *built) checkConfig(image v1.Image, platform v1.Platform) error {
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	dockerfile, err := os.ReadFile(filepath.Join(b.source, "Dockerfile"))
	if err != nil {
		return err
	}
	says := fmt.Sprintf("USER %s\nENTRYPOINT [%q]\n", config.Config.User, strings.Join(config.Config.Entrypoint, `", "`))
	switch {
	case config.OS != platform.OS || config.Architecture != platform.Architecture:
		return fmt.Errorf("its configuration says %s/%s", config.OS, config.Architecture)
	case !strings.HasSuffix(string(dockerfile), says):
		return fmt.Errorf("the Dockerfile does not end in %q", says)
	case config.Config.Labels["org.opencontainers.image.revision"] != b.revision:
		return errors.New("no label with the revision")
	}
	return nil
}

// checkBOM finds the SBOM by the image that it refers to.
func (b *built) checkBOM(ctx context.Context, image v1.Descriptor, platform v1.Platform) error {
	at := artifact{path: b.repository.RepositoryStr(), digest: image.Digest}
	referrers, err := remote.Referrers(b.local(at).(name.Digest), remote.WithContext(ctx))
	if err != nil {
		return err
	}
	manifest, err := referrers.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].ArtifactType != string(bomType) {
		return fmt.Errorf("want one referrer of type %s, found %v", bomType, manifest.Manifests)
	}
	found, err := remote.Image(b.local(artifact{path: at.path, digest: manifest.Manifests[0].Digest}), remote.WithContext(ctx))
	if err != nil {
		return err
	}
	layers, err := found.Layers()
	if err != nil {
		return err
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	pulled, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(filepath.Join(b.files, fmt.Sprintf("sbom-%s-%s.cdx.json", platform.OS, platform.Architecture)))
	if err == nil && !bytes.Equal(file, pulled) {
		err = errors.New("what the registry has is not the file")
	}
	return err
}

var imageField = regexp.MustCompile(`(?m)^\s*(?:- )?image: (.*)$`)

// checkManifests finds the image in install.yaml, pinned, and no other.
func (b *built) checkManifests() error {
	text, err := os.ReadFile(filepath.Join(b.files, "install.yaml"))
	if err != nil {
		return err
	}
	images := imageField.FindAllSubmatch(text, -1)
	if len(images) != 1 || string(images[0][1]) != b.pinned() {
		return fmt.Errorf("install.yaml has the images %q, not %s alone", images, b.pinned())
	}
	return nil
}

// checkChart pulls the chart as Helm does.
func (b *built) checkChart() error {
	client, err := registry.NewClient(registry.ClientOptPlainHTTP())
	if err != nil {
		return err
	}
	at := b.find("chart")
	pulled, err := client.Pull(b.local(at).Name())
	if err != nil {
		return fmt.Errorf("pull the chart: %w", err)
	}
	file, err := os.ReadFile(filepath.Join(b.files, chartName+"-"+at.tag+".tgz"))
	switch {
	case err != nil:
		return err
	case pulled.Manifest.Digest != at.digest.String():
		return fmt.Errorf("the registry has %s as the chart, not %s", pulled.Manifest.Digest, at.digest)
	case !bytes.Equal(pulled.Chart.Data, file):
		return errors.New("the chart in the registry is not the file")
	case pulled.Chart.Meta.AppVersion != b.version:
		return fmt.Errorf("the chart is for version %s", pulled.Chart.Meta.AppVersion)
	}
	return nil
}
