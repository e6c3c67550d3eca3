package customimage

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
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
	// ends is told of each write that ends an object, before it is sent, and of its result.
	ends func(uid types.UID, sent time.Time) (result func(succeeded bool))
}

// addFinalizer adds the finalizer to a live object that lacks it, and reports whether the object is still there.
func (w *writer) addFinalizer(ctx context.Context, image *v1alpha1.CustomImage) (exists bool, err error) {
	before := image.DeepCopy()
	if !controllerutil.AddFinalizer(image, v1alpha1.Finalizer) {
		return true, nil
	}
	err = w.send(image, func() error { return w.client.Patch(ctx, image, locked(before)) })
	if err != nil && !isAbsent(err) {
		return true, fmt.Errorf("add the finalizer: %w", err)
	}
	return err == nil, nil
}

// release removes the finalizer, and announces how the object ended. The patch fails if another client changed the object
// meanwhile. It is made by hand, and only the metadata comes back: this is the one write that each deletion costs.
func (w *writer) release(ctx context.Context, f decision.Facts, end decision.LetGo) error {
	left := slices.DeleteFunc(slices.Clone(f.Image.Finalizers), func(name string) bool { return name == v1alpha1.Finalizer })
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": f.Image.UID, "resourceVersion": f.Image.ResourceVersion, "finalizers": left,
	}})
	if err != nil {
		return err
	}
	released := metadataOf(customImageKind, client.ObjectKeyFromObject(f.Image))
	result := w.ends(f.Image.UID, w.clock.Now())
	err = w.client.Patch(ctx, released, client.RawPatch(types.MergePatchType, patch))
	result(err == nil)
	switch {
	case isAbsent(err):
		return nil // another client removed it, and the object is gone
	case err != nil:
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	countRelease(end.Event)
	w.announce(f, end.EventType(), end.Event, end.Message)
	log.FromContext(ctx).Info("Removed the finalizer", "reason", end.Event, "message", end.Message,
		"imageID", f.Image.Spec.ImageID, "regionID", f.Image.Spec.RegionID)
	return nil
}

// write writes a report to the status, and announces it, if it says anything new.
func (w *writer) write(ctx context.Context, f decision.Facts, r decision.Report) error {
	before := f.Image.DeepCopy()
	if namespace := terminating(f); namespace != nil && r.Summary == v1alpha1.ConditionStalled {
		// Nothing can be created in it, so most advice does not help there.
		r.Message += fmt.Sprintf(" The namespace is terminating. To remove this object without deleting the image, run "+
			"`kubectl annotate namespace %s %s-`.", namespace.Name, v1alpha1.AnnotationOnNamespaceDeletion)
	}
	r.Message = decision.Clip(r.Message, maxMessage)
	if r.Page != "" {
		r.Message += " See " + reasonPages + r.Page + ".md"
	}
	apply(f, r, metav1.NewTime(w.clock.Now()))
	if saysTheSame(before.Status, f.Image.Status) {
		f.Image.Status = before.Status // what is not written must not count for the schedule either
		return nil
	}
	err := w.send(f.Image, func() error { return w.client.Status().Patch(ctx, f.Image, locked(before)) })
	if err != nil {
		f.Image.Status = before.Status
		if isAbsent(err) {
			return nil
		}
		return fmt.Errorf("write the status: %w", err)
	}
	if isNews(before, r) {
		w.announce(f, r.EventType(), r.Reason, r.Message)
	}
	return nil
}

// isNews reports whether a report is worth an event. An object that turns from Reconciling to Stalled for the same
// reason needs a user from now on.
func isNews(before *v1alpha1.CustomImage, r decision.Report) bool {
	switch {
	case r.Reason == v1alpha1.ReasonPending:
		return false
	case r.Reason != readyReason(before):
		return true
	}
	return r.Summary == v1alpha1.ConditionStalled && meta.FindStatusCondition(before.Status.Conditions, r.Summary) == nil
}

// terminating returns the namespace if it is being deleted; nil if it is not.
func terminating(f decision.Facts) *metav1.PartialObjectMetadata {
	if f.Namespace != nil && decision.IsEnding(f.Namespace) {
		return f.Namespace
	}
	return nil
}

// recordAcceptance records that ECS accepted the deletion, whatever else changed in the object meanwhile: nothing may
// say afterwards that the image is kept.
func (w *writer) recordAcceptance(ctx context.Context, f decision.Facts) error {
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"deletionAcceptedTime":%q}}`,
		f.Image.UID, f.AcceptedAt().UTC().Format(time.RFC3339))
	err := w.client.Status().Patch(ctx, f.Image.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	if isAbsent(err) {
		return nil
	}
	return err
}

// send sends a patch, and has its time and its result counted as a proof of how new the cache is.
func (w *writer) send(image *v1alpha1.CustomImage, patch func() error) error {
	sent, before := w.clock.Now(), image.ResourceVersion
	err := patch()
	if err == nil && image.ResourceVersion != before { // a patch that changes nothing proves nothing
		w.wrote(image.ResourceVersion, sent)
	}
	return err
}

// locked makes a patch that fails if another client changed the object meanwhile. A merge patch replaces whole lists,
// finalizers and conditions among them, and what was decided on must be what is changed.
func locked(before *v1alpha1.CustomImage) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}

// maxMessage is how many bytes of a message there may be, beside the link: the API allows 32,768 for a condition.
const maxMessage = 32000

// maxNote is how many bytes of a note the API server accepts.
const maxNote = 1024

// announce writes an event. The image is its related object. A namespace that is being deleted accepts no event but about
// itself.
func (w *writer) announce(f decision.Facts, eventType, reason, message string) {
	imageID := f.Image.Spec.ImageID
	var regarding, related runtime.Object = f.Image, &corev1.ObjectReference{Kind: "Image", Name: imageID}
	if namespace := terminating(f); namespace != nil {
		regarding, related = namespace, f.Image
	}
	note := decision.Clip("Image "+imageID+": "+message, maxNote)
	w.events.Eventf(regarding, related, eventType, reason, "Reconcile", "%s", note)
}

// apply changes the status to what the report says, and to what the facts have shown.
func apply(f decision.Facts, r decision.Report, now metav1.Time) {
	status := &f.Image.Status
	if r.Keep && hasReason(f.Image, r.Obstacle, r.Reason) {
		r.Message = meta.FindStatusCondition(status.Conditions, r.Obstacle).Message
	}
	setObstacles(f.Image, r, now)
	setLastError(f.Image, r, now)
	ready := metav1.ConditionFalse
	if r.Summary == "" {
		ready = metav1.ConditionTrue
	}
	set(f.Image, now, v1alpha1.ConditionReady, ready, r.Reason, r.Message)
	for _, kind := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		// Its transition time tells how long this reason has been in force, so another reason starts again.
		if kind != r.Summary || !hasReason(f.Image, kind, r.Reason) {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
	}
	if r.Summary != "" {
		set(f.Image, now, r.Summary, metav1.ConditionTrue, r.Reason, r.Message)
	}
	status.ObservedGeneration = ptr.To(f.Image.Generation)
	status.LastHandledRetryAt = decision.RetryAt(f.Image)
	if r.Owner != nil {
		status.OwnedBy = *r.Owner
	}
	recordFacts(f, r, now)
}

// recordFacts keeps what later decisions rest on.
func recordFacts(f decision.Facts, r decision.Report, now metav1.Time) {
	status := &f.Image.Status
	switch shown := f.Shown; {
	case shown == nil:
	case shown.Image == nil && status.MissingSince == nil:
		status.MissingSince = &now
	case shown.Image != nil && r.Reason != v1alpha1.ReasonAccountMismatch:
		status.Image, status.LastSyncTime, status.MissingSince = imageStatus(f), ptr.To(metav1.NewTime(shown.At)), nil
	}
	switch {
	case f.AcceptedAt().IsZero() && f.Call != decision.Refused:
		status.DeletionAcceptedTime = nil // of another life
	case f.Call != decision.Refused:
		status.DeletionAcceptedTime = ptr.To(metav1.NewTime(f.AcceptedAt()).Rfc3339Copy())
	case r.Others == decision.Cleared: // and the call was refused
		status.DeletionAcceptedTime = nil
	}
}

// setObstacles makes the one obstacle True that the report names, and changes the others as it says.
func setObstacles(image *v1alpha1.CustomImage, r decision.Report, now metav1.Time) {
	for _, obstacle := range v1alpha1.Obstacles {
		c := meta.FindStatusCondition(image.Status.Conditions, obstacle)
		switch {
		case obstacle == r.Obstacle:
			set(image, now, obstacle, metav1.ConditionTrue, r.Reason, r.Message)
		case c == nil || c.Status == metav1.ConditionFalse:
		case c.Reason == v1alpha1.ReasonInvalidSpec && decision.NamesItsImage(image):
			set(image, now, obstacle, metav1.ConditionFalse, v1alpha1.ReasonCleared, "The spec names the image of this object.")
		case r.Others == decision.Cleared:
			set(image, now, obstacle, metav1.ConditionFalse, v1alpha1.ReasonCleared, "ECS no longer reports this.")
		case r.Others == decision.Unobserved:
			set(image, now, obstacle, metav1.ConditionUnknown, v1alpha1.ReasonNotObserved,
				"ECS reported this last, and cannot be asked now.")
		}
	}
}

// setLastError keeps the error behind the obstacle in force, and the old one if only time and request ID are new.
func setLastError(image *v1alpha1.CustomImage, r decision.Report, now metav1.Time) {
	if r.Err == nil || r.Obstacle == "" {
		if r.Others == decision.Cleared {
			image.Status.LastError = nil
		}
		return
	}
	last := v1alpha1.LastError{Code: decision.Clip(r.Err.Code, 256), Message: decision.Clip(r.Err.Message, 1024),
		RequestID: decision.Clip(r.Err.RequestID, 128), Time: &now}
	if old := image.Status.LastError; old != nil {
		same := last
		same.RequestID, same.Time = old.RequestID, old.Time
		if same == *old {
			return
		}
	}
	image.Status.LastError = &last
}

func hasReason(image *v1alpha1.CustomImage, kind, reason string) bool {
	c := meta.FindStatusCondition(image.Status.Conditions, kind)
	return c != nil && c.Reason == reason
}

func set(
	image *v1alpha1.CustomImage, now metav1.Time, kind string, status metav1.ConditionStatus, reason, message string,
) {
	meta.SetStatusCondition(&image.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason,
		Message: message, ObservedGeneration: image.Generation, LastTransitionTime: now})
}

// imageStatus keeps of an image what the status holds, cut to the lengths that the API allows: a status that the API
// server refused would leave the object without a word.
func imageStatus(f decision.Facts) *v1alpha1.ImageStatus {
	found := f.Shown.Image
	status := &v1alpha1.ImageStatus{
		ImageID:  f.Image.Spec.ImageID,
		RegionID: f.Image.Spec.RegionID,
		Name:     decision.Clip(found.Name, 256),
		Family:   decision.Clip(found.Family, 256),
		SizeGiB:  ptr.To(max(0, found.SizeGiB)),
		State:    decision.Clip(found.Status, 64),
		Usage:    decision.Clip(found.Usage, 64),
		OwnerID:  decision.Clip(found.OwnerID, 64),
	}
	for _, id := range found.SnapshotIDs {
		if len(status.SnapshotIDs) < 64 && len(id) <= 64 {
			status.SnapshotIDs = append(status.SnapshotIDs, id)
		}
	}
	if !found.CreationTime.IsZero() {
		status.CreationTime = ptr.To(metav1.NewTime(found.CreationTime).Rfc3339Copy()) // as the API keeps it
	}
	return status
}

func readyReason(image *v1alpha1.CustomImage) string {
	if ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// saysTheSame reports whether two statuses differ only in times that no decision depends on.
func saysTheSame(a, b v1alpha1.CustomImageStatus) bool {
	a.LastSyncTime, b.LastSyncTime = nil, nil
	return equality.Semantic.DeepEqual(a, b)
}
