// Package controller holds the reconcilers, with a file for each flow. It knows the objects, their finalizer,
// conditions and events, and when to ask ECS; what an ECS error means is in package ecs.
package controller

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// CustomImageReconciler observes the images of live CustomImages, and deletes those of deleted ones. It alone
// calls DeleteImage.
type CustomImageReconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// Live reads straight from the API server.
	Live client.Reader
	// ECS is asked with the keys that Credentials finds.
	ECS         *ecs.Client
	Credentials *credentials.Source
	// Operator is who the operator is to the cluster, as kubectl's flag: --serviceaccount=NAMESPACE:NAME.
	Operator string
	Events   events.EventRecorder
	Clock    clock.PassiveClock

	// Waiting and Blocked say how often ECS is asked again about an obstacle that ends by itself, and about one
	// that somebody has to clear.
	Waiting, Blocked Backoff
	// Resync is how often ECS is asked about a live image.
	Resync time.Duration
	// MaxConcurrentReconciles bounds how many objects are worked on at once, and so the concurrent ECS calls.
	MaxConcurrentReconciles int

	failures workqueue.TypedRateLimiter[reconcile.Request]
	attempts attempts
}

// +kubebuilder:rbac:groups=ecs.imagegc.io,resources=customimages,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=ecs.imagegc.io,resources=customimages/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,resourceNames=customimages.ecs.imagegc.io,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// SetupWithManager adds the reconciler to a manager, whose cache has to have the options of CacheByObject.
func (r *CustomImageReconciler) SetupWithManager(mgr ctrl.Manager) error {
	r.failures = newFailureLimiter()
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.CustomImage{}, imageIDField,
		func(object client.Object) []string { return []string{object.(*v1alpha1.CustomImage).Spec.ImageID} })
	if err != nil {
		return fmt.Errorf("index the objects by their images: %w", err)
	}
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.CustomImage{}, builder.WithPredicates(moreThanStatusChanged())).
		Watches(&v1alpha1.CustomImage{}, handler.EnqueueRequestsFromMapFunc(r.others), builder.WithPredicates(ownershipChanges())).
		WatchesMetadata(namespaceMetadata(), handler.EnqueueRequestsFromMapFunc(r.deletedIn), builder.WithPredicates(ends())).
		WatchesMetadata(crdMetadata(), handler.EnqueueRequestsFromMapFunc(r.deletedIn), builder.WithPredicates(ends())).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.MaxConcurrentReconciles,
			RateLimiter:             r.failures,
		}).
		Complete(r)
}

// Reconcile makes at most one attempt for one object.
func (r *CustomImageReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	image := &v1alpha1.CustomImage{}
	if err := r.Client.Get(ctx, request.NamespacedName, image); err != nil {
		r.attempts.forget(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	a := &attempt{CustomImageReconciler: r, image: image}
	steps := a.observation()
	if !image.DeletionTimestamp.IsZero() {
		steps = a.deletion()
	}
	var result ctrl.Result
	outcome, err := a.take(ctx, steps)
	if err == nil {
		// What became known is recorded also when the manager stops.
		result, err = a.conclude(context.WithoutCancel(ctx), outcome)
	}
	if apierrors.IsConflict(err) {
		// Somebody changed the object meanwhile. It is judged anew once the cache has that change.
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	return result, client.IgnoreNotFound(err)
}

// attempt is one attempt for one object: what its steps hand on to each other.
type attempt struct {
	*CustomImageReconciler
	image *v1alpha1.CustomImage
	// cloud is ECS, asked with one access key for all of the attempt: the account that is checked is the account
	// that is called.
	cloud cloud
	// ending is what else is being deleted; it is looked for only if the object is.
	ending ending
}

// step returns an outcome if it ends the attempt, and neither outcome nor error if it lets it go on.
type step func(context.Context) (*outcome, error)

// take takes the steps, of which the last has to come to an end.
func (a *attempt) take(ctx context.Context, steps []step) (outcome, error) {
	for _, step := range steps {
		end, err := step(ctx)
		if err != nil {
			o, err := a.failed(err)
			return a.ending.explain(o), err
		}
		if end != nil {
			return a.ending.explain(*end), nil
		}
	}
	return outcome{}, nil
}
