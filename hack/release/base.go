package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// localBase is the name of the base that needs no registry.
const localBase = "local"

// base is the image that ours is built on.
type base struct {
	name   string
	digest name.Digest
}

// findBase resolves the base to its digest, once for all builds.
func findBase(ctx context.Context, s settings, dockerfile string) (base, error) {
	b := base{name: s.base}
	if b.name == "" {
		b.name = localBase
		if s.push {
			b.name = dockerfile
		}
	}
	if b.name == localBase {
		if s.push {
			return b, fmt.Errorf("--base=%s is for rehearsals: what is published is built on %s", localBase, dockerfile)
		}
		return b, nil
	}
	ref, err := name.ParseReference(b.name)
	if err != nil {
		return b, fmt.Errorf("--base: %w", err)
	}
	found, err := remote.Head(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return b, fmt.Errorf("find the base %s: %w", ref, err)
	}
	b.digest = ref.Context().Digest(found.Digest.String())
	return b, nil
}

func (b base) image(ctx context.Context, platform v1.Platform, date time.Time) (v1.Image, error) {
	if b.name == localBase {
		return makeBase(ctx, platform, date)
	}
	return remote.Image(b.digest, remote.WithContext(ctx), remote.WithPlatform(platform),
		remote.WithAuthFromKeychain(authn.DefaultKeychain))
}

// makeBase returns an image with what gcr.io/distroless/static:nonroot has for a static binary: users, certificates and
// time zones. The certificates are those of a Go module, the time zones those of the Go distribution.
func makeBase(ctx context.Context, platform v1.Platform, date time.Time) (v1.Image, error) {
	zones, err := timeZones(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the time zones: %w", err)
	}
	files := append([]file{
		{path: "etc/passwd", data: []byte("root:x:0:0:root:/root:/sbin/nologin\n" +
			"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")},
		{path: "etc/group", data: []byte("root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n")},
		{path: "etc/nsswitch.conf", data: []byte("hosts: files dns\n")},
		{path: "etc/ssl/certs/ca-certificates.crt", data: certificates()},
		{path: "home/nonroot/", mode: 0o700, owner: 65532},
		{path: "tmp/", mode: 0o1777},
	}, zones...)
	layer, err := layerOf(files, date)
	if err != nil {
		return nil, err
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: platform.OS, Architecture: platform.Architecture, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
			},
			User: "65532", WorkingDir: "/home/nonroot",
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer: layer, History: v1.History{Created: v1.Time{Time: date}, CreatedBy: "hack/release, local base"},
	})
}

// certificates are those that Mozilla trusts without limits.
func certificates() []byte {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a buffer takes all
		}
	}
	return all.Bytes()
}

func timeZones(ctx context.Context) ([]file, error) {
	root, err := output(ctx, "", nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = archive.Close() }()
	var files []file
	for _, zone := range archive.File {
		if strings.HasSuffix(zone.Name, "/") {
			continue
		}
		content, err := zone.Open()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", zone.Name, err)
		}
		files = append(files, file{path: path.Join("usr/share/zoneinfo", zone.Name), data: data})
	}
	return files, nil
}
