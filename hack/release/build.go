package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// built is a release: files in a directory, and artifacts in a registry.
type built struct {
	*release
	source, files string
	registry      *httptest.Server
	artifacts     []artifact
}

// artifact is a manifest in the registry.
type artifact struct {
	name   string
	path   string // of the repository, without the registry
	tag    string
	digest v1.Hash
}

// build makes a release in a directory. Variables in env are for the compiler.
func (r *release) build(ctx context.Context, dir string, env ...string) (*built, error) {
	b := &built{release: r, source: filepath.Join(dir, "source"), files: filepath.Join(dir, "files")}
	for _, made := range []string{b.source, b.files} {
		if err := os.MkdirAll(made, 0o750); err != nil {
			return nil, err
		}
	}
	b.registry = httptest.NewServer(registry.New(
		registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	for _, step := range []func() error{
		func() error { return r.checkout(ctx, b.source) },
		func() error { return b.addImage(ctx, dir, env) },
		b.addChart,
		func() error { return b.addManifests(ctx) },
		b.addDigests,
		b.addChecksums,
	} {
		if err := step(); err != nil {
			b.registry.Close()
			return nil, err
		}
	}
	return b, nil
}

// addImage compiles, and pushes the index of all platforms and the SBOM of each.
func (b *built) addImage(ctx context.Context, dir string, env []string) error {
	images := make([]v1.Image, len(platforms))
	boms := make([][]byte, len(platforms))
	for i, platform := range platforms {
		binary := binaryName(dir, platform)
		err := b.compile(ctx, b.source, binary, platform, env...)
		if err != nil {
			return fmt.Errorf("compile for %s: %w", platform, err)
		}
		if images[i], err = b.image(ctx, binary, platform); err != nil {
			return err
		}
		if boms[i], err = b.bom(binary); err != nil {
			return fmt.Errorf("SBOM of %s: %w", platform, err)
		}
	}
	index := b.index(images)
	at := artifact{name: "image", path: b.repository.RepositoryStr(), tag: b.version}
	if err := remote.WriteIndex(b.local(at), index, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push the image: %w", err)
	}
	if err := b.add(at, index); err != nil {
		return err
	}
	for i, platform := range platforms {
		if err := b.addBOM(ctx, platform, images[i], boms[i]); err != nil {
			return fmt.Errorf("SBOM of %s: %w", platform, err)
		}
	}
	return nil
}

// bomType is both the type of the SBOM and that of the artifact which refers to the image.
const bomType = types.MediaType("application/vnd.cyclonedx+json")

// addBOM writes an SBOM to a file, and pushes it as an artifact that refers to the image.
func (b *built) addBOM(ctx context.Context, platform v1.Platform, image v1.Image, bom []byte) error {
	file := fmt.Sprintf("sbom-%s-%s.cdx.json", platform.OS, platform.Architecture)
	if err := b.write(file, bom); err != nil {
		return err
	}
	subject, err := partial.Descriptor(image)
	if err != nil {
		return err
	}
	referrer, err := mutate.AppendLayers(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), bomType), static.NewLayer(bom, bomType))
	if err != nil {
		return err
	}
	referrer = mutate.Subject(mutate.Annotations(referrer, b.labels()).(v1.Image), *subject).(v1.Image)
	at := artifact{name: "sbom-" + platform.Architecture, path: b.repository.RepositoryStr()}
	if at.digest, err = referrer.Digest(); err != nil {
		return err
	}
	if err := remote.Write(b.local(at), referrer, remote.WithContext(ctx)); err != nil {
		return err
	}
	if err := b.add(artifact{name: platform.String(), path: at.path}, image); err != nil {
		return err
	}
	return b.add(at, referrer)
}

// addManifests writes install.yaml by the make target that users have too.
func (b *built) addManifests(ctx context.Context) error {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "MAKEFLAGS=") })
	_, err := output(ctx, b.source, env, "make", "--no-print-directory", "build-installer", "IMG="+b.pinned(),
		"OVERLAY=config/default")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(b.source, "dist", "install.yaml"))
	if err != nil {
		return err
	}
	return b.write("install.yaml", text)
}

// addDigests writes what was pushed, by the names under which it is published.
func (b *built) addDigests() error {
	var text bytes.Buffer
	for _, a := range b.artifacts {
		fmt.Fprintf(&text, "%s %s/%s@%s\n", a.name, b.repository.RegistryStr(), a.path, a.digest)
	}
	return b.write("digests.txt", text.Bytes())
}

// addChecksums writes what sha256sum --check reads.
func (b *built) addChecksums() error {
	files, err := os.ReadDir(b.files)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(b.files, file.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(content), file.Name())
	}
	return b.write("checksums.txt", text.Bytes())
}

func (b *built) write(file string, content []byte) error {
	return os.WriteFile(filepath.Join(b.files, file), content, 0o644) // #nosec G306: to be published
}

// add remembers an artifact by the digest that it has here; check reads what the registry says.
func (b *built) add(a artifact, of interface{ Digest() (v1.Hash, error) }) (err error) {
	a.digest, err = of.Digest()
	b.artifacts = append(b.artifacts, a)
	return err
}

func (b *built) find(name string) artifact {
	return b.artifacts[slices.IndexFunc(b.artifacts, func(a artifact) bool { return a.name == name })]
}

// pinned is the image as manifests name it.
func (b *built) pinned() string {
	return b.repository.Digest(b.find("image").digest.String()).Name()
}

// local is an artifact's name in the registry of this build.
func (b *built) local(a artifact) name.Reference {
	host, _ := name.NewRegistry(strings.TrimPrefix(b.registry.URL, "http://"))
	return reference(host, a)
}

func reference(host name.Registry, a artifact) name.Reference {
	repository := host.Repo(a.path)
	if a.tag == "" {
		return repository.Digest(a.digest.String())
	}
	return repository.Tag(a.tag)
}

// charts is where charts are published: beside the image.
func (b *built) charts() string {
	return path.Join(path.Dir(b.repository.RepositoryStr()), "charts")
}
