package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// patience is how long ECS may go on showing an image whose deletion it accepted, before somebody should look.
const patience = 10 * time.Minute

// delete is the deletion protocol. Whatever is not a proven end leaves the finalizer in place.
func (r *CustomImageReconciler) delete(ctx context.Context, image *v1alpha1.CustomImage) (outcome, error) {
	if o, ok := r.endWithoutCall(image); ok {
		return o, nil
	}
	if same, err := r.readAgain(ctx, image); !same || err != nil {
		return outcome{}, err
	}
	if o, ok := r.endWithoutCall(image); ok {
		return o, nil
	}
	if err := r.lookFirst(ctx, image); err != nil {
		return failed(err)
	}
	force := ptr.Deref(image.Spec.Force, false)
	requestID, err := r.ECS.DeleteImage(ctx, image.Spec.RegionID, image.Spec.ImageID, force)
	if err != nil && !isGone(err) {
		return failed(err)
	}
	if err == nil {
		log.FromContext(ctx).Info("Asked ECS to delete the image", "imageID", image.Spec.ImageID,
			"regionID", image.Spec.RegionID, "force", force, "requestID", requestID)
	}
	return r.confirm(ctx, image)
}

// endWithoutCall returns what ends this attempt before ECS is asked, if anything does.
func (r *CustomImageReconciler) endWithoutCall(image *v1alpha1.CustomImage) (outcome, bool) {
	others := otherFinalizers(image)
	release, asked := image.Annotations[v1alpha1.AnnotationRelease]
	switch {
	case len(others) == len(image.Finalizers): // ours is gone, and the object is no longer our business
		return outcome{}, true
	case len(others) > 0:
		return othersFirst(others), true
	case asked && release == image.Spec.ImageID:
		return released(v1alpha1.EventReleased, "The image stays, as the annotation asked."), true
	case image.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain:
		return released(v1alpha1.EventRetained, "The image stays, as spec.deletionPolicy asks."), true
	case asked:
		return invalidRelease(image, release), true
	}
	wait := r.untilDue(image)
	return outcome{wait: wait}, wait > 0
}

func othersFirst(others []string) outcome {
	return outcome{
		kind:    v1alpha1.ConditionReconciling,
		unknown: true,
		reason:  v1alpha1.ReasonPending,
		message: fmt.Sprintf("The other finalizers of this object go first, and their owners take them off: %s.",
			clip(strings.Join(others, ", "), 1024)),
	}
}

// invalidRelease holds an object whose user meant to keep some image: it may well be this one.
func invalidRelease(image *v1alpha1.CustomImage, value string) outcome {
	return outcome{
		kind:    v1alpha1.ConditionStalled,
		unknown: true,
		reason:  v1alpha1.ReasonInvalidRelease,
		message: fmt.Sprintf("The annotation %s is %q. Set it to %s to let this object go and leave the image, or take "+
			"it off to have the image deleted.", v1alpha1.AnnotationRelease, clip(value, 64), image.Spec.ImageID),
	}
}

// readAgain reads the object straight from the API server, and reports whether it is still the deleted object
// that the cache showed: a cache may lag behind by any time, and a deletion cannot be undone.
func (r *CustomImageReconciler) readAgain(ctx context.Context, image *v1alpha1.CustomImage) (bool, error) {
	uid := image.UID
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(image), image); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return image.UID == uid && !image.DeletionTimestamp.IsZero(), nil
}

// lookFirst records the image of an object that was deleted before its image was seen, so that the end can tell
// a deletion from an image that was never there.
func (r *CustomImageReconciler) lookFirst(ctx context.Context, image *v1alpha1.CustomImage) error {
	if seen(image) {
		return nil
	}
	found, err := r.ECS.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if found == nil || err != nil {
		return err
	}
	return r.record(ctx, image, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS shows the image, and is asked to delete it next.",
		found:   found,
	})
}

// confirm lets the object go once ECS shows the image no longer: that a deletion was accepted proves nothing.
func (r *CustomImageReconciler) confirm(ctx context.Context, image *v1alpha1.CustomImage) (outcome, error) {
	left, err := r.ECS.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	switch {
	case err != nil:
		return failed(err)
	case left != nil:
		return r.stillThere(image, left), nil
	case seen(image):
		return released(v1alpha1.EventDeleted, "ECS shows the image no longer."), nil
	}
	return released(v1alpha1.EventNotFound, fmt.Sprintf("No image was deleted: there is none of this ID in %s in "+
		"the account of the access key.", image.Spec.RegionID)), nil
}

func (r *CustomImageReconciler) stillThere(image *v1alpha1.CustomImage, left *ecs.Image) outcome {
	o := outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonDeleting,
		message: fmt.Sprintf("ECS accepted the deletion and still shows the image with status %s.", clip(left.Status, 64)),
		found:   left,
	}
	if r.deletingTooLong(image) {
		o.kind = v1alpha1.ConditionStalled
		o.message += fmt.Sprintf(" That is so for more than %.0f minutes: ask Alibaba Cloud's support about the "+
			"image, or let the object go with the annotation %s=%s.",
			patience.Minutes(), v1alpha1.AnnotationRelease, image.Spec.ImageID)
	}
	return o
}

func (r *CustomImageReconciler) deletingTooLong(image *v1alpha1.CustomImage) bool {
	if readyReason(image) != v1alpha1.ReasonDeleting {
		return false
	}
	reconciling := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReconciling)
	return reconciling == nil || r.Clock.Since(reconciling.LastTransitionTime.Time) >= patience
}

func released(reason, message string) outcome {
	return outcome{release: true, reason: reason, message: message}
}

// seen reports whether ECS showed the image when it was last asked about it.
func seen(image *v1alpha1.CustomImage) bool {
	return image.Status.Image != nil &&
		!meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ConditionNotFound)
}

func isGone(err error) bool {
	e := (*ecs.Error)(nil)
	return errors.As(err, &e) && ecs.Lookup(e.Code).Class == ecs.Gone
}

func otherFinalizers(image *v1alpha1.CustomImage) []string {
	return slices.DeleteFunc(slices.Clone(image.Finalizers), func(f string) bool { return f == v1alpha1.Finalizer })
}
