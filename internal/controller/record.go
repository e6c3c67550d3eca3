package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// conclude makes an outcome known, and returns when the next attempt is due.
func (a *attempt) conclude(ctx context.Context, o outcome) (ctrl.Result, error) {
	if o.release {
		err := a.release(ctx, o)
		if err == nil {
			return ctrl.Result{}, nil
		}
		if o, err = a.failed(err); err != nil {
			return ctrl.Result{}, err
		}
	}
	switch {
	case o.meaning.Class == ecs.Throttled:
		return a.concludeThrottled(ctx, o)
	case o.meaning.Class == ecs.Transient:
		return ctrl.Result{}, a.concludeTransient(ctx, o)
	case o.reason != "":
		if err := a.record(ctx, o); err != nil {
			return ctrl.Result{}, err
		}
		next := a.nextAttempt(a.image)
		a.attempts.set(a.image, due{next: next})
		// 0 would mean never, and time passes between two looks at the clock.
		return ctrl.Result{RequeueAfter: max(next.Sub(a.Clock.Now()), time.Millisecond)}, nil
	}
	return ctrl.Result{RequeueAfter: o.wait}, nil
}

// concludeThrottled says nothing as long as the quota keeps an object waiting for less than a minute.
func (a *attempt) concludeThrottled(ctx context.Context, o outcome) (ctrl.Result, error) {
	now, since := a.Clock.Now(), a.attempts.get(a.image).throttledSince
	wait := max(o.err.Wait+time.Duration(fraction(a.image.UID)*float64(o.err.Wait)/4), time.Millisecond)
	if since.IsZero() {
		since = now
	}
	if now.Add(wait).Sub(since) >= time.Minute {
		if err := a.record(ctx, o); err != nil {
			return ctrl.Result{}, err
		}
	}
	a.attempts.set(a.image, due{next: now.Add(wait), throttledSince: since})
	return ctrl.Result{RequeueAfter: wait}, nil
}

// concludeTransient returns the error, which has the work queue space the attempts. One hiccup is not worth a
// word, the second is.
func (a *attempt) concludeTransient(ctx context.Context, o outcome) error {
	if a.failures.NumRequeues(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(a.image)}) > 0 {
		if err := a.record(ctx, o); err != nil {
			return err
		}
	}
	a.attempts.set(a.image, due{next: a.Clock.Now()})
	return fmt.Errorf("image %s in %s: %w", a.image.Spec.ImageID, a.image.Spec.RegionID, o.err)
}

// record writes an outcome to the status, and announces it, if it says anything new.
func (a *attempt) record(ctx context.Context, o outcome) error {
	if o.keep && readyReason(a.image) == o.reason {
		return nil
	}
	before := a.image.DeepCopy()
	o.message += o.pointer()
	o.apply(a.image, metav1.NewTime(a.Clock.Now()))
	if saysTheSame(before.Status, a.image.Status) {
		a.image.Status = before.Status // what is not written must not count for the schedule either
		return nil
	}
	if err := a.Client.Status().Patch(ctx, a.image, locked(before)); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	// An object that turns from Reconciling to Stalled for the same reason needs somebody from now on.
	turned := o.kind != "" && meta.FindStatusCondition(before.Status.Conditions, o.kind) == nil
	if (turned || o.reason != readyReason(before)) && o.reason != v1alpha1.ReasonPending {
		a.announce(o)
	}
	return nil
}

// release takes the finalizer off, and says how the object went.
func (a *attempt) release(ctx context.Context, o outcome) error {
	before := a.image.DeepCopy()
	controllerutil.RemoveFinalizer(a.image, v1alpha1.Finalizer)
	if err := a.Client.Patch(ctx, a.image, locked(before)); err != nil {
		return fmt.Errorf("take the finalizer off: %w", err)
	}
	a.attempts.forget(client.ObjectKeyFromObject(a.image))
	countRelease(o.reason)
	a.announce(o)
	log.FromContext(ctx).Info("Released the object", "reason", o.reason, "message", o.message,
		"imageID", a.image.Spec.ImageID, "regionID", a.image.Spec.RegionID)
	return nil
}

// maxNote is how many bytes of a note the API server accepts.
const maxNote = 1024

// announce tells of an outcome in an event. The image goes along as the related object: without it, events that
// differ in their note alone would be merged. In a namespace that is being deleted no event is accepted that is not
// about the namespace itself.
func (a *attempt) announce(o outcome) {
	imageID := a.image.Spec.ImageID
	var regarding, related runtime.Object = a.image, &corev1.ObjectReference{Kind: "Image", Name: imageID}
	if a.ending.namespace != nil {
		regarding, related = a.ending.namespace, a.image
	}
	note := clip("Image "+imageID+": "+o.message, maxNote)
	a.Events.Eventf(regarding, related, o.eventType(), o.reason, "Reconcile", "%s", note)
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
