package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// patience is how long anything may take that a scene waits for.
const patience = 30 * time.Second

func (s *stage) play(ctx context.Context, number int, c scene) error {
	fmt.Printf("\n%d. %s\n\n", number, c.title)
	for _, act := range []func(context.Context, scene) error{s.create, s.delete, s.meetObstacle, s.clear, s.watchItGo} {
		if err := act(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// create has an image in ECS, makes an object for it, and waits until that says how the image is.
func (s *stage) create(ctx context.Context, c scene) error {
	if c.image.ImageID != "" {
		c.image.RegionID = region
		if err := s.sim.PutImage(c.image); err != nil {
			return err
		}
	}
	if err := s.writeManifest(c.name, c.imageID(), c.spec); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "apply", "-f", c.name+".yaml"); err != nil {
		return err
	}
	reason := v1alpha1.ReasonAvailable
	if c.image.ImageID == "" {
		reason = c.reason
	}
	if err := s.waitForReason(ctx, c.name, reason); err != nil {
		return err
	}
	return s.check(claim{s.deletions(c) == 0, "no DeleteImage is called for a live object"})
}

func (s *stage) writeManifest(name, imageID, spec string) error {
	manifest := fmt.Sprintf("apiVersion: ecs.imagegc.io/v1alpha1\nkind: CustomImage\nmetadata:\n  name: %s\n"+
		"spec:\n  regionID: %s\n  imageID: %s\n%s", name, region, imageID, spec)
	return os.WriteFile(filepath.Join(s.dir, name+".yaml"), []byte(manifest), 0o600)
}

func (s *stage) delete(ctx context.Context, c scene) error {
	if err := s.show(ctx, c, c.image.ImageID == ""); err != nil {
		return err
	}
	return s.kubectl(ctx, "delete", "cimg", c.name, "--wait=false")
}

// meetObstacle waits until the object says what is in the way, and checks that image and object stay.
func (s *stage) meetObstacle(ctx context.Context, c scene) error {
	if c.obstacle == "" || c.image.ImageID == "" {
		return nil
	}
	if err := s.waitForReason(ctx, c.name, c.reason); err != nil {
		return err
	}
	if err := s.show(ctx, c, true); err != nil {
		return err
	}
	image, err := s.get(ctx, c.name)
	if err != nil {
		return err
	}
	return s.check(
		claim{meta.IsStatusConditionTrue(image.Status.Conditions, c.obstacle), "the condition " + c.obstacle + " is True"},
		claim{controllerutil.ContainsFinalizer(image, v1alpha1.Finalizer), "the finalizer keeps the object"},
		claim{s.exists(c), "the image is still in ECS"},
		claim{s.deletions(c) > 0, "ECS was asked to delete the image"},
	)
}

// show prints the object as `kubectl get` shows it, and what its message says.
func (s *stage) show(ctx context.Context, c scene, message bool) error {
	if err := s.kubectl(ctx, "get", "cimg", c.name); err != nil || !message {
		return err
	}
	return s.kubectl(ctx, "get", "cimg", c.name, "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].message}{"\n"}`)
}

// clear takes the obstacle away, or waits for ECS to do so.
func (s *stage) clear(ctx context.Context, c scene) error {
	if c.then != "" {
		fmt.Println("\n-- " + c.then + "\n")
	}
	switch {
	case c.inECS != nil:
		image := *c.inECS
		image.RegionID = region
		return s.sim.PutImage(image)
	case c.patch != "":
		return s.kubectl(ctx, "patch", "cimg", c.name, "--type=merge", "-p", c.patch)
	case c.annotate != "":
		return s.kubectl(ctx, "annotate", "cimg", c.name, c.annotate)
	}
	return nil
}

// watchItGo waits for the end of the object, and checks how it was announced and what became of the image.
func (s *stage) watchItGo(ctx context.Context, c scene) error {
	if err := s.kubectl(ctx, "wait", "--for=delete", "cimg/"+c.name, "--timeout="+patience.String()); err != nil {
		return err
	}
	if _, err := s.get(ctx, c.name); !apierrors.IsNotFound(err) {
		return fmt.Errorf("want the object gone, got %w", err)
	}
	if err := s.waitUntil(ctx, "the event "+c.end, func(ctx context.Context) (bool, error) {
		ends, err := s.ends(ctx, c.name)
		return len(ends) > 0, err
	}); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "get", "events", "--field-selector=involvedObject.name="+c.name+",reason="+c.end,
		"-o", "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message"); err != nil {
		return err
	}
	ends, err := s.ends(ctx, c.name)
	if err != nil {
		return err
	}
	called := s.deletions(c) > 0
	fate := "The image is gone from ECS."
	if c.stays {
		fate = "The image is still in ECS."
	} else if c.image.ImageID == "" {
		fate = "There is no such image in ECS, and there was none."
	}
	fmt.Println("\n-- " + fate)
	return s.check(
		claim{strings.Join(ends, ",") == c.end, "the end is announced once, as " + c.end},
		claim{s.exists(c) == c.stays, fate},
		claim{called == (c.end != v1alpha1.EventRetained), "DeleteImage is called, if the image is not retained"},
	)
}

// checkTheEnd looks back on all scenes.
func (s *stage) checkTheEnd() error {
	for _, call := range s.sim.Calls() {
		if !call.SignatureValid {
			return fmt.Errorf("a call of %s had no valid signature", call.Action)
		}
	}
	left := len(s.sim.Images())
	return s.check(claim{left == 2, fmt.Sprintf("two images are left in ECS, those that were to stay; there are %d", left)})
}

// claim is something that has to be so.
type claim struct {
	so   bool
	what string
}

// check counts what is as it should be, and returns an error for the first that is not.
func (s *stage) check(claims ...claim) error {
	for _, claim := range claims {
		if !claim.so {
			return fmt.Errorf("not so: %s; the end of the operator's log:\n%s", claim.what, s.logTail())
		}
		s.checks++
	}
	return nil
}

func (s *stage) waitForReason(ctx context.Context, name, want string) error {
	return s.waitUntil(ctx, fmt.Sprintf("%s to have the reason %s", name, want), func(ctx context.Context) (bool, error) {
		image, err := s.get(ctx, name)
		if err != nil {
			return false, err
		}
		ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == want, nil
	})
}

func (s *stage) waitUntil(ctx context.Context, what string, is wait.ConditionWithContextFunc) error {
	if err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, patience, true, is); err != nil {
		return fmt.Errorf("wait for %s: %w; the end of the operator's log:\n%s", what, err, s.logTail())
	}
	s.checks++
	return nil
}

func (s *stage) get(ctx context.Context, name string) (*v1alpha1.CustomImage, error) {
	image := &v1alpha1.CustomImage{}
	return image, s.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, image)
}

func (s *stage) exists(c scene) bool {
	_, ok := s.sim.Image(c.imageID())
	return ok
}

// deletions counts the calls of DeleteImage about the image of a scene.
func (s *stage) deletions(c scene) int {
	count := 0
	for _, call := range s.sim.Calls() {
		if call.Action == "DeleteImage" && call.ImageID == c.imageID() {
			count++
		}
	}
	return count
}

// ends lists the reasons of the events that say how an object went.
func (s *stage) ends(ctx context.Context, name string) ([]string, error) {
	var events eventsv1.EventList
	if err := s.admin.List(ctx, &events, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	var reasons []string
	for _, event := range events.Items {
		switch event.Reason {
		case v1alpha1.EventDeleted, v1alpha1.EventNotFound, v1alpha1.EventRetained, v1alpha1.EventReleased:
			if event.Regarding.Name == name {
				reasons = append(reasons, event.Reason)
			}
		}
	}
	return reasons, nil
}
