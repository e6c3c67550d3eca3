package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// outcome is what an attempt came to, if the object stays.
type outcome struct {
	kind      string     // ConditionReconciling or ConditionStalled; "" if the object is Ready
	obstacle  string     // the obstacle's condition that is True; "" if ECS reports none
	unknown   bool       // ECS did not say: obstacles stay as they were
	reason    string     // of Ready, of kind and of obstacle
	message   string     // likewise
	found     *ecs.Image // the image, if ECS showed it
	lastError *ecs.Error // the error behind it, if there is one
}

// reportFailure has the table decide what an error means, and says so in the status.
func (r *CustomImageReconciler) reportFailure(ctx context.Context, image *v1alpha1.CustomImage, err error) (ctrl.Result, error) {
	var failure *ecs.Error
	if !errors.As(err, &failure) {
		return ctrl.Result{}, err
	}
	meaning := ecs.Lookup(failure.Code)
	result := outcome{
		kind:      v1alpha1.ConditionStalled,
		obstacle:  meaning.Condition,
		reason:    reasonOf(failure.Code),
		message:   fmt.Sprintf("%s: %s %s", failure.Code, failure.Message, meaning.Advice),
		lastError: failure,
	}
	switch meaning.Class {
	case ecs.Throttled:
		return r.reportThrottled(ctx, image, result)
	case ecs.Transient:
		return r.reportTransient(ctx, image, result)
	case ecs.Waiting:
		result.kind = v1alpha1.ConditionReconciling
	}
	return r.report(ctx, image, result)
}

// reportThrottled says nothing as long as the quota keeps an object waiting for less than a minute.
func (r *CustomImageReconciler) reportThrottled(ctx context.Context, image *v1alpha1.CustomImage, result outcome) (ctrl.Result, error) {
	now, wait := r.Clock.Now(), result.lastError.Wait
	wait += time.Duration(fraction(image.UID) * float64(wait) / 4)
	since := r.attempts.get(image).throttledSince
	if since.IsZero() {
		since = now
	}
	if now.Add(wait).Sub(since) >= time.Minute {
		result.kind, result.reason, result.unknown = v1alpha1.ConditionReconciling, v1alpha1.ReasonThrottled, true
		if _, err := r.report(ctx, image, result); err != nil {
			return ctrl.Result{}, err
		}
	}
	r.attempts.set(image, attempt{next: now.Add(wait), throttledSince: since})
	return ctrl.Result{RequeueAfter: wait}, nil
}

// reportTransient returns the error, which has the work queue space the attempts; one hiccup is not worth a
// word, the second is.
func (r *CustomImageReconciler) reportTransient(ctx context.Context, image *v1alpha1.CustomImage, result outcome) (ctrl.Result, error) {
	if r.failures.NumRequeues(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(image)}) > 0 {
		result.kind, result.reason, result.unknown = v1alpha1.ConditionReconciling, v1alpha1.ReasonRetrying, true
		if _, err := r.report(ctx, image, result); err != nil {
			return ctrl.Result{}, err
		}
	}
	r.attempts.set(image, attempt{next: r.Clock.Now()})
	return ctrl.Result{}, fmt.Errorf("image %s in %s: %w", image.Spec.ImageID, image.Spec.RegionID, result.lastError)
}

// report writes an outcome to the status, if that says anything new, and returns when the object is due next.
func (r *CustomImageReconciler) report(ctx context.Context, image *v1alpha1.CustomImage, result outcome) (ctrl.Result, error) {
	before := image.DeepCopy()
	now := metav1.NewTime(r.Clock.Now())
	result.apply(image, now)
	if !saysTheSame(before.Status, image.Status) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		if err := r.Client.Status().Patch(ctx, image, patch); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
		if result.reason != readyReason(before) && result.reason != v1alpha1.ReasonPending {
			r.eventf(image, result.eventType(), result.reason, "%s", result.message)
		}
	}
	backoff, start := r.schedule(image)
	next := backoff.next(start, now.Time, image.UID)
	r.attempts.set(image, attempt{next: next})
	return ctrl.Result{RequeueAfter: next.Sub(now.Time)}, nil
}

// apply changes the status to what the outcome says.
func (o outcome) apply(image *v1alpha1.CustomImage, now metav1.Time) {
	status := &image.Status
	set := func(kind string, value metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{Type: kind, Status: value, Reason: reason,
			Message: message, ObservedGeneration: image.Generation, LastTransitionTime: now})
	}
	ready := metav1.ConditionFalse
	if o.kind == "" {
		ready = metav1.ConditionTrue
	}
	set(v1alpha1.ConditionReady, ready, o.reason, o.message)
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		// Its transition time tells how long this reason has been in force, so another reason starts anew.
		if c := meta.FindStatusCondition(status.Conditions, kind); c != nil && (kind != o.kind || c.Reason != o.reason) {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
		if kind == o.kind {
			set(kind, metav1.ConditionTrue, o.reason, o.message)
		}
	}
	for _, obstacle := range v1alpha1.Obstacles {
		switch {
		case o.unknown:
		case obstacle == o.obstacle:
			set(obstacle, metav1.ConditionTrue, o.reason, o.message)
		case meta.IsStatusConditionTrue(status.Conditions, obstacle):
			set(obstacle, metav1.ConditionFalse, v1alpha1.ReasonCleared, "ECS reports this no longer.")
		}
	}
	status.ObservedGeneration = ptr.To(image.Generation)
	status.LastHandledRetryAt = retryAt(image)
	status.LastError = o.newLastError(status.LastError, now)
	if o.found != nil {
		status.Image = imageStatus(o.found)
		status.LastSyncTime = &now
	}
}

// eventType is Normal if nobody has to do or know anything.
func (o outcome) eventType() string {
	if o.kind == v1alpha1.ConditionStalled || o.unknown {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// newLastError keeps the error that is there if it is the same one: only the time and the request ID differ.
func (o outcome) newLastError(old *v1alpha1.LastError, now metav1.Time) *v1alpha1.LastError {
	if o.lastError == nil && o.unknown {
		return old
	}
	if o.lastError == nil {
		return nil
	}
	code, message := clip(o.lastError.Code, 256), clip(o.lastError.Message, 1024)
	if old != nil && old.Code == code && old.Message == message {
		return old
	}
	return &v1alpha1.LastError{Code: code, Message: message, RequestID: clip(o.lastError.RequestID, 128), Time: &now}
}

// saysTheSame reports whether two statuses differ in times alone.
func saysTheSame(a, b v1alpha1.CustomImageStatus) bool {
	a.LastSyncTime, b.LastSyncTime = nil, nil
	return equality.Semantic.DeepEqual(a, b)
}

func readyReason(image *v1alpha1.CustomImage) string {
	if ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// reasonOf makes a condition's reason from an ECS code: the code without whatever a reason may not hold.
func reasonOf(code string) string {
	return clip(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, code), 256)
}

// clip cuts a text to so many bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
