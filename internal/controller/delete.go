package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// patience is how long ECS may go on showing an image whose deletion it accepted, before somebody should look.
const patience = 10 * time.Minute

// deletion is the protocol for a deleted object. Whatever is not a proven end leaves the finalizer in place.
func (a *attempt) deletion() []step {
	return []step{
		a.waitUntilDue,
		a.readAgain,
		a.judge,
		a.yieldToOwner,
		a.identify,
		a.lookFirst,
		a.yieldToOwner,
		a.judgeAgain,
		a.deleteImage,
		a.confirm,
	}
}

// waitUntilDue ends an attempt that the cache shows to be too early, before anybody is asked anything. An object that
// may go without its image, or is to be held, is never too early.
func (a *attempt) waitUntilDue(ctx context.Context) (*outcome, error) {
	wait := a.untilDue(a.image)
	if _, asked := a.image.Annotations[v1alpha1.AnnotationRelease]; asked || isProtected(a.image) || wait <= 0 {
		return nil, nil
	}
	cached, err := cascade(ctx, a.Client, a.image)
	if err != nil || cached.cause != "" {
		return nil, err
	}
	return &outcome{wait: wait}, nil
}

// readAgain reads the object straight from the API server, and ends the attempt if it is no longer the deleted
// object that the cache showed: a cache may lag behind by any time, and a deletion cannot be undone.
func (a *attempt) readAgain(ctx context.Context) (*outcome, error) {
	uid := a.image.UID
	if err := a.Live.Get(ctx, client.ObjectKeyFromObject(a.image), a.image); err != nil {
		return nil, err
	}
	if a.image.UID != uid || a.image.DeletionTimestamp.IsZero() {
		return &outcome{}, nil
	}
	return nil, nil
}

// judge ends an attempt if the object itself, its namespace or the CRD says that the object goes without its image, or
// that it is to stay.
func (a *attempt) judge(ctx context.Context) (end *outcome, err error) {
	if a.ending, err = cascade(ctx, a.Live, a.image); err != nil {
		return nil, err
	}
	others, wait := otherFinalizers(a.image), a.untilDue(a.image)
	release, asked := a.image.Annotations[v1alpha1.AnnotationRelease]
	switch {
	case len(others) == len(a.image.Finalizers): // ours is gone, and the object is no longer our business
		return &outcome{}, nil
	case len(others) > 0:
		return othersFirst(others), nil
	case asked && release == a.image.Spec.ImageID:
		return released(v1alpha1.EventReleased, "The image stays, as the annotation asked."), nil
	case a.image.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain:
		return released(v1alpha1.EventRetained, "The image stays, as spec.deletionPolicy asks."), nil
	case a.ending.cause != "":
		return released(v1alpha1.EventRetained, "The image stays: "+a.ending.cause), nil
	case asked:
		return invalidRelease(a.image, release), nil
	case isProtected(a.image):
		return protected(), nil
	case wait > 0:
		return &outcome{wait: wait}, nil
	}
	return nil, nil
}

func othersFirst(others []string) *outcome {
	return &outcome{
		kind:    v1alpha1.ConditionReconciling,
		unknown: true,
		reason:  v1alpha1.ReasonPending,
		message: fmt.Sprintf("The other finalizers of this object go first, and their owners take them off: %s.",
			clip(strings.Join(others, ", "), 1024)),
	}
}

// invalidRelease holds an object whose user meant to keep some image: it may well be this one.
func invalidRelease(image *v1alpha1.CustomImage, value string) *outcome {
	return &outcome{
		kind:    v1alpha1.ConditionStalled,
		unknown: true,
		reason:  v1alpha1.ReasonInvalidRelease,
		message: fmt.Sprintf("The annotation %s is %q. Set it to %s to let this object go and leave the image, or take "+
			"it off to go on with the deletion.", v1alpha1.AnnotationRelease, clip(value, 64), image.Spec.ImageID),
	}
}

func isProtected(image *v1alpha1.CustomImage) bool {
	return image.Annotations[v1alpha1.AnnotationProtected] == "true"
}

// protected holds an object whose deletion came past the admission policy that refuses it.
func protected() *outcome {
	return &outcome{
		kind:    v1alpha1.ConditionStalled,
		unknown: true,
		reason:  v1alpha1.ReasonProtected,
		message: fmt.Sprintf("The annotation %s is \"true\". Take it off to go on with the deletion, or set "+
			"spec.deletionPolicy to Retain to let this object go and leave the image.", v1alpha1.AnnotationProtected),
	}
}

// lookFirst records the image of an object that was deleted before its image was seen, so that the end can tell
// a deletion from an image that was never there.
func (a *attempt) lookFirst(ctx context.Context) (*outcome, error) {
	if seen(a.image) {
		return nil, nil
	}
	found, end, err := a.cloud.find(ctx, a.image)
	if found == nil || end != nil || err != nil {
		return end, err
	}
	return nil, a.record(ctx, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS shows the image, and is asked to delete it next.",
		found:   found,
	})
}

// judgeAgain reads and judges all once more, right before the deletion: finding the key and the image can take minutes,
// in which somebody may have thought better of it.
func (a *attempt) judgeAgain(ctx context.Context) (*outcome, error) {
	judged := a.image.ResourceVersion
	if end, err := a.readAgain(ctx); end != nil || err != nil {
		return end, err
	}
	if a.image.ResourceVersion != judged {
		return &outcome{wait: time.Second}, nil // its key may be another one now
	}
	return a.judge(ctx)
}

// deleteImage asks ECS to delete the image. From here on the attempt is finished also when the manager stops: what
// it did is known then, and recorded.
func (a *attempt) deleteImage(ctx context.Context) (*outcome, error) {
	ctx = context.WithoutCancel(ctx)
	spec := a.image.Spec
	force := ptr.Deref(spec.Force, false)
	requestID, err := a.cloud.DeleteImage(ctx, spec.RegionID, spec.ImageID, force)
	if err == nil {
		log.FromContext(ctx).Info("Asked ECS to delete the image", "imageID", spec.ImageID,
			"regionID", spec.RegionID, "accountID", a.cloud.account, "force", force, "requestID", requestID)
	}
	if err == nil || isGone(err) {
		return nil, nil
	}
	o, err := a.failed(err)
	if err != nil {
		return nil, err
	}
	a.nameUsers(ctx, &o)
	return &o, nil
}

// confirm lets the object go once ECS shows the image no longer: that a deletion was accepted proves nothing.
func (a *attempt) confirm(ctx context.Context) (*outcome, error) {
	left, end, err := a.cloud.find(context.WithoutCancel(ctx), a.image)
	switch {
	case end != nil || err != nil:
		return end, err
	case left != nil:
		return a.stillThere(left), nil
	case seen(a.image):
		return released(v1alpha1.EventDeleted, "ECS shows the image no longer."), nil
	}
	return released(v1alpha1.EventNotFound, fmt.Sprintf("No image was deleted: there is none of this ID in %s in "+
		"account %s, which the access key belongs to.", a.image.Spec.RegionID, a.cloud.account)), nil
}

func (a *attempt) stillThere(left *ecs.Image) *outcome {
	o := &outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonDeleting,
		message: fmt.Sprintf("ECS accepted the deletion and still shows the image with status %s.", clip(left.Status, 64)),
		found:   left,
	}
	if a.deletingTooLong() {
		o.kind = v1alpha1.ConditionStalled
		o.message += fmt.Sprintf(" That is so for more than %.0f minutes: ask Alibaba Cloud's support about the "+
			"image, or let the object go with the annotation %s=%s.",
			patience.Minutes(), v1alpha1.AnnotationRelease, a.image.Spec.ImageID)
	}
	return o
}

func (a *attempt) deletingTooLong() bool {
	if readyReason(a.image) != v1alpha1.ReasonDeleting {
		return false
	}
	reconciling := meta.FindStatusCondition(a.image.Status.Conditions, v1alpha1.ConditionReconciling)
	return reconciling == nil || a.Clock.Since(reconciling.LastTransitionTime.Time) >= patience
}

func released(reason, message string) *outcome {
	return &outcome{release: true, reason: reason, message: message}
}

// seen reports whether ECS showed the image when it was last found or not found, in an account that is known: an image
// that is not found in another one is not gone.
func seen(image *v1alpha1.CustomImage) bool {
	status := image.Status
	if status.Image == nil || status.Image.OwnerID == "" {
		return false
	}
	// It is cleared too by what says nothing about the image, such as a key that is missing.
	lost := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionNotFound)
	return lost == nil || lost.Status == metav1.ConditionFalse && !status.LastSyncTime.Before(&lost.LastTransitionTime)
}

func isGone(err error) bool {
	e := (*ecs.Error)(nil)
	return errors.As(err, &e) && ecs.Lookup(e.Code).Class == ecs.Gone
}

func otherFinalizers(image *v1alpha1.CustomImage) []string {
	return slices.DeleteFunc(slices.Clone(image.Finalizers), func(f string) bool { return f == v1alpha1.Finalizer })
}
