// Command release makes a release of the operator from the working tree, without Docker: the image for every platform, an
// SBOM for each, the Helm chart, and install.yaml with the image pinned by digest.
//
// It builds twice, each time from a clean copy of the tree into a registry of its own on the loopback interface, and
// fails if any file or digest differs. Then it pulls everything back, checks it, and writes the files to bin/release.
// With --push it also copies what it checked to --repository.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/google/go-containerregistry/pkg/logs"
)

// settings are what a release depends on besides the commit.
type settings struct {
	root, version, repository, base string
	push, cached                    bool
}

func main() {
	s := settings{}
	flag.StringVar(&s.root, "root", "../..", "The project's root.")
	flag.StringVar(&s.version, "version", "", "The version, such as v0.1.0.")
	flag.StringVar(&s.repository, "repository", "ghcr.io/imagegc/ecs-image-gc",
		"Where the image is published; the chart is published to charts/ beside it.")
	flag.StringVar(&s.base, "base", "", "The image to build on, or local for a small one that is made here. "+
		"Default: that of the Dockerfile with --push, else local.")
	flag.BoolVar(&s.cached, "cached", false, "Do not compile all packages again for the second build, which takes minutes.")
	flag.BoolVar(&s.push, "push", false, "Push to --repository, with the credentials of docker login.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	logs.Warn.SetOutput(os.Stderr)
	r, err := describe(ctx, s)
	if err != nil {
		return err
	}
	fmt.Printf("Release %s of commit %s, on %s\n", r.version, r.revision, r.base.name)
	tmp, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	first, err := r.build(ctx, filepath.Join(tmp, "first"))
	if err != nil {
		return err
	}
	defer first.registry.Close()
	var env []string
	if !s.cached { // every package is compiled again
		env = append(env, "GOCACHE="+filepath.Join(tmp, "cache"))
	}
	second, err := r.build(ctx, filepath.Join(tmp, "second"), env...)
	if err != nil {
		return fmt.Errorf("second build: %w", err)
	}
	defer second.registry.Close()
	if err := errors.Join(first.compare(second), first.check(ctx)); err != nil {
		return err
	}
	if s.push {
		if err := first.publish(ctx); err != nil {
			return err
		}
	}
	return first.keep(filepath.Join(s.root, "bin", "release"))
}
