package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
)

// publish copies every artifact, with the digest that was checked, from the registry of this build. The children of the
// image come with it.
func (b *built) publish(ctx context.Context) error {
	for _, a := range b.artifacts {
		from, to := b.local(a).Name(), reference(b.repository.Registry, a).Name()
		if err := crane.Copy(from, to, crane.WithContext(ctx), crane.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("push %s: %w", to, err)
		}
		fmt.Println("Pushed", to)
	}
	return nil
}

// keep puts the files of the release where the user finds them.
func (b *built) keep(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(b.files)); err != nil {
		return err
	}
	digests, err := os.ReadFile(filepath.Join(dir, "digests.txt"))
	fmt.Printf("%sFiles in bin/release\n", digests)
	return err
}
