package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	_ "embed" // for cluster.json
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// runImage runs the entry point out of the layers of the image for this machine.
func (b *built) runImage(ctx context.Context, index v1.ImageIndex) error {
	i := slices.IndexFunc(platforms, func(p v1.Platform) bool { return p.OS == runtime.GOOS && p.Architecture == runtime.GOARCH })
	if i < 0 {
		fmt.Printf("No image for %s/%s, so none is run\n", runtime.GOOS, runtime.GOARCH)
		return nil
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	image, err := index.Image(manifest.Manifests[i].Digest)
	if err != nil {
		return err
	}
	binary, err := os.OpenFile(filepath.Join(filepath.Dir(b.files), "entrypoint"), os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	if err := extract(image, b.recipe.entrypoint[0], binary); err != nil {
		return err
	}
	if err := binary.Close(); err != nil {
		return err
	}
	return b.run(ctx, binary.Name())
}

// run starts the operator beside a cluster that has nothing but its API, and reads its version in its log.
func (b *built) run(ctx context.Context, binary string) error {
	server, err := serveCluster()
	if err != nil {
		return err
	}
	defer server.Close()
	config := filepath.Join(filepath.Dir(b.files), "kubeconfig")
	if err := os.WriteFile(config, fmt.Appendf(nil, kubeconfig, server.URL), 0o600); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, binary, "--kubeconfig="+config, "--credentials=none", // #nosec G204: what was built
		"--metrics-bind-address=0", "--health-probe-bind-address=0")
	cmd.Env = []string{}
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		stop()
		_ = cmd.Wait() // it ends because it is killed
	}()
	var said bytes.Buffer
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if strings.Contains(lines.Text(), "Starting") && strings.Contains(lines.Text(), fmt.Sprintf("%q", b.version)) {
			fmt.Println("Pulled and run:", lines.Text())
			return nil
		}
	}
	return fmt.Errorf("the image does not start as version %s: %s", b.version, said.String())
}

const kubeconfig = `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u"}],
	"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
	"clusters": [{"name": "c", "cluster": {"server": %q}}]}`

// cluster has the answers of an API server that the operator requires before it starts its controllers, by path.
//
//go:embed cluster.json
var cluster []byte

func serveCluster() (*httptest.Server, error) {
	var answers map[string]json.RawMessage
	if err := json.Unmarshal(cluster, &answers); err != nil {
		return nil, err
	}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(answer)
	})), nil
}

// extract copies a file out of an image.
func extract(image v1.Image, path string, to io.Writer) error {
	files := mutate.Extract(image)
	defer files.Close()
	archive := tar.NewReader(files)
	for {
		header, err := archive.Next()
		if err != nil {
			return fmt.Errorf("find %s: %w", path, err)
		}
		if "/"+header.Name == path {
			_, err := io.Copy(to, archive) // #nosec G110: what this program packed
			return err
		}
	}
}
