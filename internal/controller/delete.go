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

// deletion is one attempt to delete an image: what its steps hand on to each other.
type deletion struct {
	*CustomImageReconciler
	image *v1alpha1.CustomImage
	// cloud is ECS, asked with one access key for all of the attempt: the account that is checked is the account
	// that is called.
	cloud access
	// ending is what else is being deleted.
	ending ending
}

// delete is the deletion protocol. A step that returns an outcome ends the attempt, and one that returns neither
// outcome nor error lets it go on. Whatever is not a proven end leaves the finalizer in place.
func (r *CustomImageReconciler) delete(ctx context.Context, image *v1alpha1.CustomImage) (outcome, error) {
	d := &deletion{CustomImageReconciler: r, image: image}
	for _, step := range []func(context.Context) (*outcome, error){
		d.waitUntilDue,
		d.readAgain,
		d.judge,
		d.yieldToOwner,
		d.identify,
		d.lookFirst,
		d.yieldToOwner,
		d.judgeAgain,
		d.deleteImage,
		d.confirm,
	} {
		end, err := step(ctx)
		if err != nil {
			o, err := r.failed(image, err)
			return d.ending.explain(o), err
		}
		if end != nil {
			return d.ending.explain(*end), nil
		}
	}
	return outcome{}, nil // not reached: confirm comes to an end
}

// waitUntilDue ends an attempt that the cache shows to be too early, before anybody is asked anything. An object that
// may go without its image, or is to be held, is never too early.
func (d *deletion) waitUntilDue(ctx context.Context) (*outcome, error) {
	wait := d.untilDue(d.image)
	if _, asked := d.image.Annotations[v1alpha1.AnnotationRelease]; asked || isProtected(d.image) || wait <= 0 {
		return nil, nil
	}
	cached, err := cascade(ctx, d.Client, d.image)
	if err != nil || cached.cause != "" {
		return nil, err
	}
	return &outcome{wait: wait}, nil
}

// readAgain reads the object straight from the API server, and ends the attempt if it is no longer the deleted
// object that the cache showed: a cache may lag behind by any time, and a deletion cannot be undone.
func (d *deletion) readAgain(ctx context.Context) (*outcome, error) {
	uid := d.image.UID
	if err := d.Live.Get(ctx, client.ObjectKeyFromObject(d.image), d.image); err != nil {
		return nil, err
	}
	if d.image.UID != uid || d.image.DeletionTimestamp.IsZero() {
		return &outcome{}, nil
	}
	return nil, nil
}

// judge ends an attempt if the object itself, its namespace or the CRD says that the object goes without its image, or
// that it is to stay.
func (d *deletion) judge(ctx context.Context) (end *outcome, err error) {
	if d.ending, err = cascade(ctx, d.Live, d.image); err != nil {
		return nil, err
	}
	others, wait := otherFinalizers(d.image), d.untilDue(d.image)
	release, asked := d.image.Annotations[v1alpha1.AnnotationRelease]
	switch {
	case len(others) == len(d.image.Finalizers): // ours is gone, and the object is no longer our business
		return &outcome{}, nil
	case len(others) > 0:
		return othersFirst(others), nil
	case asked && release == d.image.Spec.ImageID:
		return released(v1alpha1.EventReleased, "The image stays, as the annotation asked."), nil
	case d.image.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain:
		return released(v1alpha1.EventRetained, "The image stays, as spec.deletionPolicy asks."), nil
	case d.ending.cause != "":
		return released(v1alpha1.EventRetained, "The image stays: "+d.ending.cause), nil
	case asked:
		return invalidRelease(d.image, release), nil
	case isProtected(d.image):
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
			"it off to have the image deleted.", v1alpha1.AnnotationRelease, clip(value, 64), image.Spec.ImageID),
	}
}

// lookFirst records the image of an object that was deleted before its image was seen, so that the end can tell
// a deletion from an image that was never there.
func (d *deletion) lookFirst(ctx context.Context) (*outcome, error) {
	if seen(d.image) {
		return nil, nil
	}
	found, end, err := d.cloud.find(ctx, d.image)
	if found == nil || end != nil || err != nil {
		return end, err
	}
	return nil, d.record(ctx, d.image, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS shows the image, and is asked to delete it next.",
		found:   found,
	})
}

// judgeAgain reads and judges all once more, right before the deletion: finding the key and the image can take minutes,
// in which somebody may have thought better of it.
func (d *deletion) judgeAgain(ctx context.Context) (*outcome, error) {
	judged := d.image.ResourceVersion
	if end, err := d.readAgain(ctx); end != nil || err != nil {
		return end, err
	}
	if d.image.ResourceVersion != judged {
		return &outcome{wait: time.Second}, nil // its key may be another one now
	}
	return d.judge(ctx)
}

// deleteImage asks ECS to delete the image. From here on the attempt is finished also when the manager stops: what
// it did is known then, and recorded.
func (d *deletion) deleteImage(ctx context.Context) (*outcome, error) {
	ctx = context.WithoutCancel(ctx)
	spec := d.image.Spec
	force := ptr.Deref(spec.Force, false)
	requestID, err := d.cloud.DeleteImage(ctx, spec.RegionID, spec.ImageID, force)
	if err == nil {
		log.FromContext(ctx).Info("Asked ECS to delete the image", "imageID", spec.ImageID,
			"regionID", spec.RegionID, "accountID", d.cloud.account, "force", force, "requestID", requestID)
	}
	if err == nil || isGone(err) {
		return nil, nil
	}
	o, err := d.failed(d.image, err)
	if err != nil {
		return nil, err
	}
	d.nameUsers(ctx, &o)
	return &o, nil
}

// confirm lets the object go once ECS shows the image no longer: that a deletion was accepted proves nothing.
func (d *deletion) confirm(ctx context.Context) (*outcome, error) {
	left, end, err := d.cloud.find(context.WithoutCancel(ctx), d.image)
	switch {
	case end != nil || err != nil:
		return end, err
	case left != nil:
		return d.stillThere(left), nil
	case seen(d.image):
		return released(v1alpha1.EventDeleted, "ECS shows the image no longer."), nil
	}
	return released(v1alpha1.EventNotFound, fmt.Sprintf("No image was deleted: there is none of this ID in %s in "+
		"account %s, which the access key belongs to.", d.image.Spec.RegionID, d.cloud.account)), nil
}

func (d *deletion) stillThere(left *ecs.Image) *outcome {
	o := &outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonDeleting,
		message: fmt.Sprintf("ECS accepted the deletion and still shows the image with status %s.", clip(left.Status, 64)),
		found:   left,
	}
	if d.deletingTooLong() {
		o.kind = v1alpha1.ConditionStalled
		o.message += fmt.Sprintf(" That is so for more than %.0f minutes: ask Alibaba Cloud's support about the "+
			"image, or let the object go with the annotation %s=%s.",
			patience.Minutes(), v1alpha1.AnnotationRelease, d.image.Spec.ImageID)
	}
	return o
}

func (d *deletion) deletingTooLong() bool {
	if readyReason(d.image) != v1alpha1.ReasonDeleting {
		return false
	}
	reconciling := meta.FindStatusCondition(d.image.Status.Conditions, v1alpha1.ConditionReconciling)
	return reconciling == nil || d.Clock.Since(reconciling.LastTransitionTime.Time) >= patience
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
