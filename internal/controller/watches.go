package controller

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

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
	isDeleted := func(image *v1alpha1.CustomImage) bool { return !image.DeletionTimestamp.IsZero() }
	return r.requests(ctx, of, isDeleted, client.InNamespace(namespace))
}

// requests lists what the cache has of the objects that are affected by a change of another one.
func (r *CustomImageReconciler) requests(
	ctx context.Context, of client.Object, affected func(*v1alpha1.CustomImage) bool, options ...client.ListOption,
) (requests []reconcile.Request) {
	images := &v1alpha1.CustomImageList{}
	if err := r.Client.List(ctx, images, options...); err != nil {
		log.FromContext(ctx).Error(err, "Could not list the objects that are affected", "by", client.ObjectKeyFromObject(of))
	}
	for i := range images.Items {
		if image := &images.Items[i]; affected(image) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(image)})
		}
	}
	return requests
}

// ownershipChanges lets through that an object has seen its image, or is gone.
func ownershipChanges() predicate.Predicate {
	no := func(event.CreateEvent) bool { return false } // it has seen nothing, or all objects are looked at anyway
	return predicate.Funcs{CreateFunc: no, UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.CustomImage), e.ObjectNew.(*v1alpha1.CustomImage)
		return (before.Status.Image == nil) != (after.Status.Image == nil)
	}}
}

// others lists the other objects for the same image.
func (r *CustomImageReconciler) others(ctx context.Context, of client.Object) []reconcile.Request {
	same := client.MatchingFields{imageIDField: of.(*v1alpha1.CustomImage).Spec.ImageID}
	return r.requests(ctx, of, func(image *v1alpha1.CustomImage) bool { return image.UID != of.GetUID() }, same)
}
