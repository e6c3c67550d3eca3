package controller

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// maxNote is how many bytes of a note the API server accepts.
const maxNote = 1024

// announce tells of an outcome in an event. The image goes along as the related object: without it, events that
// differ in their note alone would be merged.
func (r *CustomImageReconciler) announce(image *v1alpha1.CustomImage, o outcome) {
	var regarding, related runtime.Object = image, &corev1.ObjectReference{Kind: "Image", Name: image.Spec.ImageID}
	if o.about != nil {
		regarding, related = o.about, image
	}
	note := clip("Image "+image.Spec.ImageID+": "+o.message, maxNote)
	r.Events.Eventf(regarding, related, o.eventType(), o.reason, "Reconcile", "%s", note)
}

// heeded are the annotations of an object that make a difference.
var heeded = []string{v1alpha1.AnnotationRetryAt, v1alpha1.AnnotationRelease, v1alpha1.AnnotationProtected}

// moreThanStatusChanged keeps back the events that follow from our own status writes, and from changes that mean
// nothing here. A change of the spec and a deletion raise the generation; annotations and finalizers do not. Another
// uid is an object that was deleted and created anew unseen.
func moreThanStatusChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.GetAnnotations(), e.ObjectNew.GetAnnotations()
		return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
			e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
			slices.ContainsFunc(heeded, func(name string) bool { return before[name] != after[name] }) ||
			!slices.Equal(e.ObjectOld.GetFinalizers(), e.ObjectNew.GetFinalizers())
	}}
}

// ends lets through that a namespace or the CRD is being deleted, and every change of it after that.
func ends() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool { return !object.GetDeletionTimestamp().IsZero() })
}

// deletedIn lists the deleted objects of a namespace, or all of them for the CRD: those that wait for something else
// would not learn of its deletion.
func (r *CustomImageReconciler) deletedIn(ctx context.Context, of client.Object) []reconcile.Request {
	namespace := of.GetName()
	if namespace == crdName { // no namespace can be called that
		namespace = metav1.NamespaceAll
	}
	images := &v1alpha1.CustomImageList{}
	if err := r.Client.List(ctx, images, client.InNamespace(namespace)); err != nil {
		log.FromContext(ctx).Error(err, "Could not list the objects that go with it", "name", of.GetName())
		return nil
	}
	var requests []reconcile.Request
	for i := range images.Items {
		if !images.Items[i].DeletionTimestamp.IsZero() {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&images.Items[i])})
		}
	}
	return requests
}
