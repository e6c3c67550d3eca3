package controller

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// maxNote is how many bytes of a note the API server accepts.
const maxNote = 1024

// announce tells of an outcome in an event. The image goes along as the related object: without it, events that
// differ in their note alone would be merged.
func (r *CustomImageReconciler) announce(image *v1alpha1.CustomImage, o outcome) {
	related := &corev1.ObjectReference{Kind: "Image", Name: image.Spec.ImageID}
	note := clip("Image "+image.Spec.ImageID+": "+o.message, maxNote)
	r.Events.Eventf(image, related, o.eventType(), o.reason, "Reconcile", "%s", note)
}

// moreThanStatusChanged keeps back the events that follow from our own status writes, and from changes that mean
// nothing here. A change of the spec and a deletion raise the generation; annotations and finalizers do not. Another
// uid is an object that was deleted and created anew unseen.
func moreThanStatusChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.GetAnnotations(), e.ObjectNew.GetAnnotations()
		return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
			e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
			before[v1alpha1.AnnotationRetryAt] != after[v1alpha1.AnnotationRetryAt] ||
			before[v1alpha1.AnnotationRelease] != after[v1alpha1.AnnotationRelease] ||
			!slices.Equal(e.ObjectOld.GetFinalizers(), e.ObjectNew.GetFinalizers())
	}}
}
