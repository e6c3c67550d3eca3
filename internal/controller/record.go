package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// conclude makes an outcome known, and returns when the next attempt is due.
func (r *CustomImageReconciler) conclude(
	ctx context.Context, image *v1alpha1.CustomImage, o outcome,
) (ctrl.Result, error) {
	if o.release {
		err := r.release(ctx, image, o)
		if err == nil {
			return ctrl.Result{}, nil
		}
		about := o.about
		if o, err = r.failed(image, err); err != nil {
			return ctrl.Result{}, err
		}
		o.about = about
	}
	switch {
	case o.meaning.Class == ecs.Throttled:
		return r.concludeThrottled(ctx, image, o)
	case o.meaning.Class == ecs.Transient:
		return ctrl.Result{}, r.concludeTransient(ctx, image, o)
	case o.reason != "":
		if err := r.record(ctx, image, o); err != nil {
			return ctrl.Result{}, err
		}
		next := r.nextAttempt(image)
		r.attempts.set(image, due{next: next})
		// 0 would mean never, and time passes between two looks at the clock.
		return ctrl.Result{RequeueAfter: max(next.Sub(r.Clock.Now()), time.Millisecond)}, nil
	}
	return ctrl.Result{RequeueAfter: o.wait}, nil
}

// concludeThrottled says nothing as long as the quota keeps an object waiting for less than a minute.
func (r *CustomImageReconciler) concludeThrottled(
	ctx context.Context, image *v1alpha1.CustomImage, o outcome,
) (ctrl.Result, error) {
	now, since := r.Clock.Now(), r.attempts.get(image).throttledSince
	wait := max(o.err.Wait+time.Duration(fraction(image.UID)*float64(o.err.Wait)/4), time.Millisecond)
	if since.IsZero() {
		since = now
	}
	if now.Add(wait).Sub(since) >= time.Minute {
		if err := r.record(ctx, image, o); err != nil {
			return ctrl.Result{}, err
		}
	}
	r.attempts.set(image, due{next: now.Add(wait), throttledSince: since})
	return ctrl.Result{RequeueAfter: wait}, nil
}

// concludeTransient returns the error, which has the work queue space the attempts. One hiccup is not worth a
// word, the second is.
func (r *CustomImageReconciler) concludeTransient(
	ctx context.Context, image *v1alpha1.CustomImage, o outcome,
) error {
	if r.failures.NumRequeues(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(image)}) > 0 {
		if err := r.record(ctx, image, o); err != nil {
			return err
		}
	}
	r.attempts.set(image, due{next: r.Clock.Now()})
	return fmt.Errorf("image %s in %s: %w", image.Spec.ImageID, image.Spec.RegionID, o.err)
}

// record writes an outcome to the status, and announces it, if it says anything new.
func (r *CustomImageReconciler) record(ctx context.Context, image *v1alpha1.CustomImage, o outcome) error {
	if o.keep && readyReason(image) == o.reason {
		return nil
	}
	before := image.DeepCopy()
	o.message += o.pointer()
	o.apply(image, metav1.NewTime(r.Clock.Now()))
	if saysTheSame(before.Status, image.Status) {
		image.Status = before.Status // what is not written must not count for the schedule either
		return nil
	}
	if err := r.Client.Status().Patch(ctx, image, locked(before)); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	// An object that turns from Reconciling to Stalled for the same reason needs somebody from now on.
	turned := o.kind != "" && meta.FindStatusCondition(before.Status.Conditions, o.kind) == nil
	if (turned || o.reason != readyReason(before)) && o.reason != v1alpha1.ReasonPending {
		r.announce(image, o)
	}
	return nil
}

// release takes the finalizer off, and says how the object went.
func (r *CustomImageReconciler) release(ctx context.Context, image *v1alpha1.CustomImage, o outcome) error {
	before := image.DeepCopy()
	controllerutil.RemoveFinalizer(image, v1alpha1.Finalizer)
	if err := r.Client.Patch(ctx, image, locked(before)); err != nil {
		return fmt.Errorf("take the finalizer off: %w", err)
	}
	r.attempts.forget(client.ObjectKeyFromObject(image))
	countRelease(o.reason)
	r.announce(image, o)
	log.FromContext(ctx).Info("Released the object", "reason", o.reason, "message", o.message,
		"imageID", image.Spec.ImageID, "regionID", image.Spec.RegionID)
	return nil
}

// locked makes a patch that fails if somebody changed the object meanwhile. A merge patch replaces whole lists,
// finalizers and conditions among them, and what was judged must be what is changed.
func locked(before *v1alpha1.CustomImage) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}

// saysTheSame reports whether two statuses differ in times alone.
func saysTheSame(a, b v1alpha1.CustomImageStatus) bool {
	a.LastSyncTime, b.LastSyncTime = nil, nil
	return equality.Semantic.DeepEqual(a, b)
}
