package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

//go:embed sandbox.yaml
var scenarioOfSandbox []byte

//go:embed sandbox.txt
var guide string

// sandbox leaves everything to a person, until that is enough.
func (s *stage) sandbox() error {
	manifests := filepath.Join(s.dir, "manifests")
	if err := s.writeManifests(manifests); err != nil {
		return err
	}
	err := template.Must(template.New("guide").Parse(guide)).Execute(os.Stdout, map[string]string{
		"Kubeconfig": s.kubeconfig,
		"Assets":     s.assets,
		"Manifests":  manifests,
		"Simulator":  s.cloudURL,
		"KeyID":      keyID,
		"KeySecret":  keySecret,
		"Log":        s.operator.log,
		"Images":     describe(s.cloud.Images()),
	})
	if err != nil {
		return err
	}
	<-s.ctx.Done()
	if cause := context.Cause(s.ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	fmt.Println("\nStopping ...")
	return nil
}

// writeManifests writes one for each image, and one for an image that is not there.
func (s *stage) writeManifests(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	images := append(s.cloud.Images(), ecssim.Image{ImageID: "m-bp1typo", RegionID: region, Name: "typo"})
	for _, image := range images {
		spec := ""
		if image.Name == watched.name {
			spec = retain
		}
		file := filepath.Join(dir, image.Name+".yaml")
		if err := os.WriteFile(file, []byte(manifest(image, spec)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// describe lists images by name, with what a deletion will meet.
func describe(images []ecssim.Image) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	slices.SortFunc(images, func(a, b ecssim.Image) int { return strings.Compare(a.Name, b.Name) })
	for _, image := range images {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", image.Name, image.ImageID, obstacles(image))
	}
	_ = w.Flush() // to memory
	return text.String()
}

func obstacles(image ecssim.Image) string {
	var all []string
	if len(image.UsedBy) > 0 {
		all = append(all, "used by "+strings.Join(image.UsedBy, " and "))
	}
	if len(image.SharedWith) > 0 {
		all = append(all, "shared with account "+strings.Join(image.SharedWith, " and "))
	}
	if image.Public {
		all = append(all, "public")
	}
	for _, operation := range []struct {
		what string
		left ecssim.Duration
	}{
		{"copied", image.Copying}, {"imported", image.Importing},
		{"exported", image.Exporting}, {"created", image.Creating},
	} {
		switch {
		case operation.left == ecssim.Forever:
			all = append(all, "being "+operation.what+", for ever")
		case operation.left > 0:
			all = append(all, fmt.Sprintf("being %s, for %s", operation.what, time.Duration(operation.left)))
		}
	}
	if len(all) == 0 {
		return "nothing in the way"
	}
	return strings.Join(all, "; ")
}
