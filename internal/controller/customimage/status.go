package customimage

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// reasonPages is where a user finds the page of a reason.
const reasonPages = "https://github.com/imagegc/ecs-image-gc/blob/main/docs/reasons/"

// writer makes known what was decided: in the finalizer, the status and the events of an object.
type writer struct {
	client client.Client
	events events.EventRecorder
	clock  clock.PassiveClock
	// wrote is told of each write that came back with a resource version, and when it was sent.
	wrote func(resourceVersion string, sent time.Time)
}

// addFinalizer adds the finalizer to a live object that lacks it.
func (w *writer) addFinalizer(ctx context.Context, image *v1alpha1.CustomImage) error {
	before := image.DeepCopy()
	if !controllerutil.AddFinalizer(image, v1alpha1.Finalizer) {
		return nil
	}
	err := w.send(image, func() error { return w.client.Patch(ctx, image, locked(before)) })
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("add the finalizer: %w", err)
	}
	return nil
}

// release removes the finalizer, and announces how the object ended.
func (w *writer) release(ctx context.Context, f facts, end letGo) error {
	released := f.image.DeepCopy()
	controllerutil.RemoveFinalizer(released, v1alpha1.Finalizer)
	err := w.send(released, func() error { return w.client.Patch(ctx, released, locked(f.image)) })
	switch {
	case apierrors.IsNotFound(err):
		return nil // somebody else removed it, and the object is gone
	case err != nil:
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	countRelease(end.event)
	eventType := corev1.EventTypeNormal
	if end.event == v1alpha1.EventNotFound || end.event == v1alpha1.EventDeletionAccepted {
		eventType = corev1.EventTypeWarning
	}
	w.announce(f, eventType, end.event, end.message)
	log.FromContext(ctx).Info("Removed the finalizer", "reason", end.event, "message", end.message,
		"imageID", f.image.Spec.ImageID, "regionID", f.image.Spec.RegionID)
	return nil
}

// write writes a report to the status, and announces it, if it says anything new.
func (w *writer) write(ctx context.Context, f facts, r report) error {
	before := f.image.DeepCopy()
	if namespace := f.namespace; r.summary == v1alpha1.ConditionStalled && namespace != nil && isEnding(namespace) {
		// Nothing can be created in it, so most advice does not help there.
		r.message += fmt.Sprintf(" The namespace is terminating. To remove this object and keep the image, run "+
			"`kubectl annotate namespace %s %s-`.", namespace.Name, v1alpha1.AnnotationOnNamespaceDeletion)
	}
	if r.page != "" {
		r.message += " See " + reasonPages + r.page + ".md"
	}
	apply(f, r, metav1.NewTime(w.clock.Now()))
	if saysTheSame(before.Status, f.image.Status) {
		f.image.Status = before.Status // what is not written must not count for the schedule either
		return nil
	}
	err := w.send(f.image, func() error { return w.client.Status().Patch(ctx, f.image, locked(before)) })
	if err != nil {
		f.image.Status = before.Status
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("write the status: %w", err)
	}
	// An object that turns from Reconciling to Stalled for the same reason needs a user from now on.
	turned := r.summary != "" && meta.FindStatusCondition(before.Status.Conditions, r.summary) == nil
	if (turned || r.reason != readyReason(before)) && r.reason != v1alpha1.ReasonPending {
		eventType := corev1.EventTypeNormal
		if r.summary == v1alpha1.ConditionStalled || r.others == unobserved {
			eventType = corev1.EventTypeWarning
		}
		w.announce(f, eventType, r.reason, r.message)
	}
	return nil
}

// recordAcceptance records that ECS accepted the deletion, whatever else changed in the object meanwhile: nothing may
// say afterwards that the image is kept.
func (w *writer) recordAcceptance(ctx context.Context, f facts) error {
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"deletionAcceptedTime":%q}}`,
		f.image.UID, acceptedAt(f).UTC().Format(time.RFC3339))
	image := f.image.DeepCopy()
	return client.IgnoreNotFound(w.send(image, func() error {
		return w.client.Status().Patch(ctx, image, client.RawPatch(types.MergePatchType, patch))
	}))
}

// send sends a patch, and has its time and its result counted as a proof of how new the cache is.
func (w *writer) send(image *v1alpha1.CustomImage, patch func() error) error {
	sent := w.clock.Now()
	err := patch()
	if err == nil {
		w.wrote(image.ResourceVersion, sent)
	}
	return err
}

// locked makes a patch that fails if another client changed the object meanwhile. A merge patch replaces whole lists,
// finalizers and conditions among them, and what was decided on must be what is changed.
func locked(before *v1alpha1.CustomImage) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}

// maxNote is how many bytes of a note the API server accepts.
const maxNote = 1024

// announce writes an event. The image is its related object: without it, events that differ in their note alone would
// be merged. A namespace that is being deleted accepts no event but about itself.
func (w *writer) announce(f facts, eventType, reason, message string) {
	imageID := f.image.Spec.ImageID
	var regarding, related runtime.Object = f.image, &corev1.ObjectReference{Kind: "Image", Name: imageID}
	if f.namespace != nil && isEnding(f.namespace) {
		regarding, related = f.namespace, f.image
	}
	w.events.Eventf(regarding, related, eventType, reason, "Reconcile", "%s", clip("Image "+imageID+": "+message, maxNote))
}

// apply changes the status to what the report says, and to what the facts have shown.
func apply(f facts, r report, now metav1.Time) {
	status := &f.image.Status
	r.setObstacles(f.image, now)
	r.set(f.image, now, v1alpha1.ConditionReady, r.summary == "")
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		// Its transition time tells how long this reason has been in force, so another reason starts again.
		c := meta.FindStatusCondition(status.Conditions, kind)
		if c != nil && (kind != r.summary || c.Reason != r.reason) {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
	}
	if r.summary != "" {
		r.set(f.image, now, r.summary, true)
	}
	status.ObservedGeneration = ptr.To(f.image.Generation)
	status.LastHandledRetryAt = retryAt(f.image)
	if r.owner != nil {
		status.OwnedBy = *r.owner
	}
	remember(f, r, now)
}

// remember keeps what later decisions rest on.
func remember(f facts, r report, now metav1.Time) {
	status := &f.image.Status
	switch shown := f.shown; {
	case shown == nil:
	case shown.image == nil && status.MissingSince == nil:
		status.MissingSince = &now
	case shown.image != nil && r.reason != v1alpha1.ReasonAccountMismatch:
		status.Image, status.LastSyncTime, status.MissingSince = imageStatus(f), &now, nil
	}
	switch {
	case f.call == accepted && status.DeletionAcceptedTime == nil:
		status.DeletionAcceptedTime = ptr.To(metav1.NewTime(f.now))
	case f.call == refused && r.others == cleared:
		status.DeletionAcceptedTime = nil
	}
}

// setObstacles makes the one obstacle True that the report names, and changes the others as it says.
func (r *report) setObstacles(image *v1alpha1.CustomImage, now metav1.Time) {
	conditions := &image.Status.Conditions
	if c := meta.FindStatusCondition(*conditions, r.obstacle); r.keep && c != nil && c.Reason == r.reason {
		r.message = c.Message
	}
	for _, obstacle := range v1alpha1.Obstacles {
		c := meta.FindStatusCondition(*conditions, obstacle)
		switch {
		case obstacle == r.obstacle:
			r.set(image, now, obstacle, true)
		case c == nil || c.Status == metav1.ConditionFalse || r.others == kept:
		case r.others == cleared:
			setCondition(image, now, obstacle, metav1.ConditionFalse, v1alpha1.ReasonCleared, "ECS no longer reports this.")
		default:
			setCondition(image, now, obstacle, metav1.ConditionUnknown, v1alpha1.ReasonNotObserved,
				"ECS reported this last, and cannot be asked now.")
		}
	}
	if r.err != nil && r.obstacle != "" {
		setLastError(image, r, now)
	} else if r.others == cleared {
		image.Status.LastError = nil
	}
}

func setLastError(image *v1alpha1.CustomImage, r *report, now metav1.Time) {
	last := &v1alpha1.LastError{Code: clip(r.err.Code, 256), Message: clip(r.err.Message, 1024),
		RequestID: clip(r.err.RequestID, 128), Time: &now}
	if old := image.Status.LastError; old != nil && old.Code == last.Code && old.Message == last.Message {
		return // what is new is only the time and the request ID
	}
	image.Status.LastError = last
}

func (r *report) set(image *v1alpha1.CustomImage, now metav1.Time, kind string, value bool) {
	status := metav1.ConditionFalse
	if value {
		status = metav1.ConditionTrue
	}
	setCondition(image, now, kind, status, r.reason, r.message)
}

func setCondition(
	image *v1alpha1.CustomImage, now metav1.Time, kind string, status metav1.ConditionStatus, reason, message string,
) {
	meta.SetStatusCondition(&image.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason,
		Message: message, ObservedGeneration: image.Generation, LastTransitionTime: now})
}

// imageStatus keeps of an image what the status holds, cut to the lengths that the API allows: a status that the API
// server refused would leave the object without a word.
func imageStatus(f facts) *v1alpha1.ImageStatus {
	found := f.shown.image
	status := &v1alpha1.ImageStatus{
		ImageID:  f.image.Spec.ImageID,
		RegionID: f.image.Spec.RegionID,
		Name:     clip(found.Name, 256),
		Family:   clip(found.Family, 256),
		SizeGiB:  ptr.To(max(0, found.SizeGiB)),
		State:    clip(found.Status, 64),
		Usage:    clip(found.Usage, 64),
		OwnerID:  clip(found.OwnerID, 64),
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

func readyReason(image *v1alpha1.CustomImage) string {
	if ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// saysTheSame reports whether two statuses differ in times alone, of those that nothing is decided by.
func saysTheSame(a, b v1alpha1.CustomImageStatus) bool {
	a.LastSyncTime, b.LastSyncTime = nil, nil
	return equality.Semantic.DeepEqual(a, b)
}
