package customimage

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

// SetupWithManager adds the reconciler to a manager, whose cache must have the options of CacheByObject.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.CustomImage{}, imageIDField, imagesOf)
	if err != nil {
		return fmt.Errorf("index the objects by their images: %w", err)
	}
	if len(r.config.Namespaces) == 0 {
		informer, err := mgr.GetCache().GetInformer(context.Background(), &v1alpha1.CustomImage{}, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch the objects: %w", err)
		}
		if shared, ok := informer.(toolscache.SharedIndexInformer); ok {
			r.proofs.revision = shared.GetStore().LastStoreSyncResourceVersion
		}
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.CustomImage{}, builder.WithPredicates(r.needsAttempt())).
		Watches(&v1alpha1.CustomImage{}, handler.EnqueueRequestsFromMapFunc(r.others), builder.WithPredicates(ownershipChanges())).
		WatchesMetadata(namespaceNamed(""), handler.EnqueueRequestsFromMapFunc(r.deletedIn), builder.WithPredicates(r.ends())).
		WatchesMetadata(definition(), handler.EnqueueRequestsFromMapFunc(r.deletedIn), builder.WithPredicates(r.ends())).
		WatchesRawSource(source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
			r.cloud.shares.started, r.cloud.shares.wake = r.config.Clock.Now(), queue.Add
			return nil
		})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers(r.config.MaxConcurrentReconciles),
			RateLimiter:             r.failures,
		}).
		Complete(r)
}

// decisive are the annotations of an object that make a difference.
var decisive = []string{v1alpha1.AnnotationRetryAt, v1alpha1.AnnotationRelease, v1alpha1.AnnotationProtected}

// needsAttempt drops the events that follow from our own status writes, from changes that mean nothing here, and from
// the end of an object. A change of the spec and a deletion raise the generation; annotations and finalizers do not. Another uid is an
// object that was deleted and created again unseen.
func (r *Reconciler) needsAttempt() predicate.Predicate {
	ended := func(e event.DeleteEvent) bool {
		r.schedule.forget(client.ObjectKeyFromObject(e.Object))
		r.proofs.showsEnd(e.Object.GetUID(), !e.DeleteStateUnknown)
		return false
	}
	return predicate.Funcs{DeleteFunc: ended, UpdateFunc: func(e event.UpdateEvent) bool { return isChanged(e.ObjectOld, e.ObjectNew) }}
}

// isChanged reports whether more is different than the status and what means nothing here.
func isChanged(before, after client.Object) bool {
	was, is := before.GetAnnotations(), after.GetAnnotations()
	return before.GetUID() != after.GetUID() || before.GetGeneration() != after.GetGeneration() ||
		slices.ContainsFunc(decisive, func(name string) bool { return was[name] != is[name] }) ||
		!slices.Equal(before.GetFinalizers(), after.GetFinalizers())
}

// ends passes the deletion of a watched namespace or of the CRD, and every change of it after that.
func (r *Reconciler) ends() predicate.Predicate {
	watched := append([]string{decision.CRDName}, r.config.Namespaces...)
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		if len(r.config.Namespaces) > 0 && !slices.Contains(watched, object.GetName()) {
			return false
		}
		return !object.GetDeletionTimestamp().IsZero()
	})
}

// deletedIn lists the deleted objects of a namespace, or all of them for the CRD: those that wait for something else
// would not learn of its deletion.
func (r *Reconciler) deletedIn(ctx context.Context, of client.Object) []reconcile.Request {
	namespace := of.GetName()
	if namespace == decision.CRDName { // no namespace can have this name
		namespace = metav1.NamespaceAll
	}
	isDeleted := func(image *v1alpha1.CustomImage) bool { return !image.DeletionTimestamp.IsZero() }
	return r.requests(ctx, of, isDeleted, client.InNamespace(namespace))
}

// ownershipChanges passes what can change who owns or keeps an image: another object has seen it, keeps it or not, or
// is gone.
func ownershipChanges() predicate.Predicate {
	no := func(event.CreateEvent) bool { return false } // it has seen nothing, or all objects are looked at anyway
	return predicate.Funcs{CreateFunc: no, UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.CustomImage), e.ObjectNew.(*v1alpha1.CustomImage)
		return (before.Status.Image == nil) != (after.Status.Image == nil) ||
			decision.Retains(before) != decision.Retains(after) || decision.IsProtected(before) != decision.IsProtected(after)
	}}
}

// others lists the other objects for the same image.
func (r *Reconciler) others(ctx context.Context, of client.Object) []reconcile.Request {
	same := client.MatchingFields{imageIDField: of.(*v1alpha1.CustomImage).Spec.ImageID}
	return r.requests(ctx, of, func(image *v1alpha1.CustomImage) bool { return image.UID != of.GetUID() }, same)
}

// requests lists what the cache has of the objects that are affected by a change of another one.
func (r *Reconciler) requests(
	ctx context.Context, of client.Object, affected func(*v1alpha1.CustomImage) bool, options ...client.ListOption,
) (requests []reconcile.Request) {
	images := &v1alpha1.CustomImageList{}
	if err := r.config.Client.List(ctx, images, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Could not list the affected objects", "changed", client.ObjectKeyFromObject(of))
	}
	for i := range images.Items {
		if image := &images.Items[i]; affected(image) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(image)})
		}
	}
	return requests
}
