package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

var platforms = []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}

// compile runs the Dockerfile's own command. Its environment has nothing that would make another binary of the same
// source; there is no repository where docker build compiles, hence -buildvcs=false.
func (r *release) compile(ctx context.Context, source, binary string, platform v1.Platform, env ...string) error {
	command := strings.Replace(r.recipe.compile, " -o "+r.recipe.binary+" ", ` -o "$BINARY" `, 1)
	if command == r.recipe.compile {
		return fmt.Errorf("the Dockerfile's %q does not write %s", command, r.recipe.binary)
	}
	env = append(append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0",
		"TARGETOS="+platform.OS, "TARGETARCH="+platform.Architecture, "VERSION="+r.version, "BINARY="+binary), env...)
	_, err := output(ctx, source, env, "sh", "-c", command)
	return err
}

// image puts the binary on top of the base, as the Dockerfile does.
func (r *release) image(ctx context.Context, binary string, platform v1.Platform) (v1.Image, error) {
	on, err := r.base.image(ctx, platform, r.date)
	if err != nil {
		return nil, fmt.Errorf("base of %s: %w", platform, err)
	}
	data, err := os.ReadFile(binary) // #nosec G304: what this program compiled
	if err != nil {
		return nil, err
	}
	layer, err := layerOf([]file{{path: strings.TrimPrefix(r.recipe.binary, "/"), data: data, mode: 0o755}}, r.date)
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(
		mutate.ConfigMediaType(mutate.MediaType(on, types.OCIManifestSchema1), types.OCIConfigJSON),
		mutate.Addendum{Layer: layer, History: v1.History{
			Created: v1.Time{Time: r.date}, CreatedBy: "COPY --from=build " + r.recipe.binary + " " + r.recipe.binary,
		}})
	if err != nil {
		return nil, err
	}
	return r.configure(image)
}

func (r *release) configure(image v1.Image) (v1.Image, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: r.date}
	config.Config.User, config.Config.Entrypoint, config.Config.Cmd = r.recipe.user, r.recipe.entrypoint, nil
	config.Config.Labels = r.labels()
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(image, r.labels()).(v1.Image), nil
}

// index is the image for all platforms.
func (r *release) index(images []v1.Image) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for i, image := range images {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &platforms[i]},
		})
	}
	return mutate.Annotations(index, r.labels()).(v1.ImageIndex)
}

// labels are those of https://github.com/opencontainers/image-spec/blob/main/annotations.md.
func (r *release) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	labels := map[string]string{
		prefix + "title":       "ecs-image-gc",
		prefix + "description": "Kubernetes operator that garbage-collects custom images of Alibaba Cloud ECS",
		prefix + "version":     r.version,
		prefix + "revision":    r.revision,
		prefix + "created":     r.date.Format(time.RFC3339),
		prefix + "source":      "https://github.com/imagegc/ecs-image-gc",
		prefix + "licenses":    "Apache-2.0",
	}
	if r.base.name != localBase {
		labels[prefix+"base.name"] = r.base.name
		labels[prefix+"base.digest"] = r.base.digest.DigestStr()
	}
	return labels
}

// file is one entry of a layer; a path that ends in a slash is a directory.
type file struct {
	path  string
	data  []byte
	mode  int64 // default: 0644
	owner int
}

func layerOf(files []file, date time.Time) (v1.Layer, error) {
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	for _, f := range files {
		header := &tar.Header{
			Name: f.path, Size: int64(len(f.data)), Mode: f.mode, Uid: f.owner, Gid: f.owner, ModTime: date,
			Typeflag: tar.TypeReg, Format: tar.FormatPAX,
		}
		if strings.HasSuffix(f.path, "/") {
			header.Typeflag = tar.TypeDir
		}
		if header.Mode == 0 {
			header.Mode = 0o644
		}
		if err := out.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if _, err := out.Write(f.data); err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestCompression))
}

func binaryName(dir string, platform v1.Platform) string {
	return filepath.Join(dir, "manager-"+platform.OS+"-"+platform.Architecture)
}
