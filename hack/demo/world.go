package main

import (
	"slices"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// What the checks look at: the objects and events that the API server has, the images and calls that the cloud has.

func (d *demo) key(s *scene) client.ObjectKey {
	return client.ObjectKey{Namespace: namespace, Name: s.name}
}

func (d *demo) object(s *scene) *v1alpha1.CustomImage {
	object := &v1alpha1.CustomImage{}
	if d.err == nil {
		d.err = d.client.Get(d.ctx, d.key(s), object)
	}
	return object
}

// events counts by reason how often something was told of the scene's object, or, with nil, of any.
func (d *demo) events(s *scene) map[string]int {
	list, counts := &eventsv1.EventList{}, map[string]int{}
	if d.err == nil {
		d.err = d.client.List(d.ctx, list, client.InNamespace(namespace))
	}
	for _, event := range list.Items {
		if s != nil && event.Regarding.Name != s.name {
			continue
		}
		counts[event.Reason]++
		if event.Series != nil {
			counts[event.Reason] += int(event.Series.Count) - 1
		}
	}
	return counts
}

func (d *demo) putImage(image ecssim.Image) {
	if d.err == nil {
		d.err = d.cloud.PutImage(image)
	}
}

func (d *demo) exists(imageID string) bool {
	_, found := d.cloud.Image(imageID)
	return found
}

func (d *demo) imageIDs() []string {
	var ids []string
	for _, image := range d.cloud.Images() {
		ids = append(ids, image.ImageID)
	}
	return ids
}

// deletions are the calls of DeleteImage for the scene's image.
func (d *demo) deletions(s *scene) []ecssim.Call {
	var calls []ecssim.Call
	for _, call := range d.cloud.Calls() {
		if call.Action == "DeleteImage" && call.ImageID == s.image.ImageID {
			calls = append(calls, call)
		}
	}
	return calls
}

// readiness is status and reason of Ready.
func readiness(object *v1alpha1.CustomImage) string {
	ready := ready(object)
	return string(ready.Status) + " " + ready.Reason
}

func ready(object *v1alpha1.CustomImage) metav1.Condition {
	if c := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// inForce lists the types of the conditions that are True, in the order of the alphabet.
func inForce(object *v1alpha1.CustomImage) []string {
	var types []string
	for _, condition := range object.Status.Conditions {
		if condition.Status == metav1.ConditionTrue {
			types = append(types, condition.Type)
		}
	}
	slices.Sort(types)
	return types
}

// reasonOf is how a condition's reason spells an ECS code.
func reasonOf(code string) string { return strings.ReplaceAll(code, ".", "") }
