package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// outcome is what an attempt came to, as the status says it. An outcome without a reason says nothing.
type outcome struct {
	wait    time.Duration // of an outcome without a reason: how long until the next attempt; 0 if there is none
	kind    string        // ConditionReconciling or ConditionStalled; "" if the object is Ready
	unknown bool          // ECS did not say: obstacles and the error behind them stay as they were
	reason  string        // of Ready, of kind and of the obstacle
	message string        // likewise
	found   *ecs.Image    // the image, if ECS showed it
	ownedBy *string       // the other object that owns it, or ""; nil if that was not found out
	err     *ecs.Error    // the error behind it, if there is one
	meaning ecs.Meaning   // of err: its class, and the obstacle that is True then
	keep    bool          // nothing new is known: what the status says for the same reason stays as it is
	release bool          // the object may go: reason and message are those of the event that says so
}

// failed has the table decide what an error means. An error that is neither from ECS nor an answer of the API server
// is none that a status could explain, and is returned; so is one that means that the manager stops.
func (a *attempt) failed(err error) (outcome, error) {
	failure := clusterError(err)
	if errors.Is(err, context.Canceled) || failure == nil && !errors.As(err, &failure) {
		return outcome{}, err
	}
	meaning := ecs.Lookup(failure.Code)
	o := outcome{
		kind:    v1alpha1.ConditionStalled,
		reason:  ecs.Reason(failure.Code),
		message: fmt.Sprintf("%s: %s %s", failure.Code, failure.Message, a.advice(meaning, failure)),
		err:     failure,
		meaning: meaning,
	}
	switch meaning.Class {
	case ecs.Waiting:
		o.kind = v1alpha1.ConditionReconciling
	case ecs.Throttled:
		o.kind, o.reason, o.unknown = v1alpha1.ConditionReconciling, v1alpha1.ReasonThrottled, true
	case ecs.Transient:
		o.kind, o.reason, o.unknown = v1alpha1.ConditionReconciling, v1alpha1.ReasonRetrying, true
	}
	return o, nil
}

// clusterError is what the API server answered, if that can last: a refusal by a role, a policy or a webhook, or a
// failure of its own. That the object changed or went meanwhile cannot.
func clusterError(err error) *ecs.Error {
	answer := apierrors.APIStatus(nil)
	if !errors.As(err, &answer) || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	code := v1alpha1.ReasonClusterForbidden
	if status := answer.Status().Code; status >= http.StatusInternalServerError || status == http.StatusTooManyRequests {
		code = ecs.CodeClusterError
	}
	return &ecs.Error{Code: code, Message: clip(err.Error(), 1024) + "."}
}

// advice fills in what the table cannot know.
func (a *attempt) advice(meaning ecs.Meaning, failure *ecs.Error) string {
	return strings.NewReplacer(
		"{action}", failure.Action,
		"{origin}", failure.Origin,
		"{operator}", a.Operator,
		"{namespace}", a.image.Namespace,
		"{secret}", a.image.Spec.CredentialsSecretRef.Name,
	).Replace(meaning.Advice)
}

// apply changes the status to what the outcome says.
func (o outcome) apply(image *v1alpha1.CustomImage, now metav1.Time) {
	status := &image.Status
	o.set(image, now, v1alpha1.ConditionReady, o.kind == "")
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		// Its transition time tells how long this reason has been in force, so another reason starts anew.
		c := meta.FindStatusCondition(status.Conditions, kind)
		if c != nil && (kind != o.kind || c.Reason != o.reason) {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
	}
	if o.kind != "" {
		o.set(image, now, o.kind, true)
	}
	if !o.unknown {
		o.applyObstacle(image, now)
	}
	status.ObservedGeneration = ptr.To(image.Generation)
	status.LastHandledRetryAt = retryAt(image)
	if o.ownedBy != nil {
		status.OwnedBy = *o.ownedBy
	}
	if o.found != nil {
		status.Image = imageStatus(o.found)
		status.LastSyncTime = &now
	}
}

// applyObstacle makes the one obstacle True that ECS reported, if it did, and clears all others.
func (o outcome) applyObstacle(image *v1alpha1.CustomImage, now metav1.Time) {
	cleared := outcome{reason: v1alpha1.ReasonCleared, message: "It is not what was in the way last."}
	for _, obstacle := range v1alpha1.Obstacles {
		if obstacle == o.meaning.Condition {
			o.set(image, now, obstacle, true)
		} else if meta.IsStatusConditionTrue(image.Status.Conditions, obstacle) {
			cleared.set(image, now, obstacle, false)
		}
	}
	old := image.Status.LastError
	image.Status.LastError = nil
	if o.err == nil {
		return
	}
	image.Status.LastError = &v1alpha1.LastError{Code: clip(o.err.Code, 256), Message: clip(o.err.Message, 1024),
		RequestID: clip(o.err.RequestID, 128), Time: &now}
	if old != nil && old.Code == o.err.Code && old.Message == image.Status.LastError.Message {
		image.Status.LastError = old // what is new is the time and the request ID alone
	}
}

func (o outcome) set(image *v1alpha1.CustomImage, now metav1.Time, kind string, value bool) {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&image.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: o.reason,
		Message: o.message, ObservedGeneration: image.Generation, LastTransitionTime: now})
}

// eventType is Normal if nobody has to know anything in a hurry.
func (o outcome) eventType() string {
	if o.kind == v1alpha1.ConditionStalled || o.unknown || o.reason == v1alpha1.EventNotFound {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// pointer says where there is more to read, if there is anything to understand or to do. Codes that mean the same
// share a page.
func (o outcome) pointer() string {
	if o.kind == "" || o.reason == v1alpha1.ReasonPending {
		return ""
	}
	page := o.reason
	if o.err != nil && !o.unknown {
		page = ecs.Reason(o.meaning.Code)
	}
	return " See docs/reasons/" + page + ".md."
}

func readyReason(image *v1alpha1.CustomImage) string {
	if ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// imageStatus keeps of an image what the status holds, cut to the lengths that the API allows: a status that
// the API server refused would leave the object without a word.
func imageStatus(found *ecs.Image) *v1alpha1.ImageStatus {
	status := &v1alpha1.ImageStatus{
		Name:    clip(found.Name, 256),
		Family:  clip(found.Family, 256),
		SizeGiB: ptr.To(max(0, found.SizeGiB)),
		State:   clip(found.Status, 64),
		Usage:   clip(found.Usage, 64),
		OwnerID: clip(found.OwnerID, 64),
	}
	for _, id := range found.SnapshotIDs {
		if len(status.SnapshotIDs) < 64 && len(id) <= 64 {
			status.SnapshotIDs = append(status.SnapshotIDs, id)
		}
	}
	if !found.CreationTime.IsZero() {
		status.CreationTime = ptr.To(metav1.NewTime(found.CreationTime))
	}
	return status
}

// clip cuts a text to so many bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
