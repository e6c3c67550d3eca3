package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// patience is how long ECS may go on showing an image whose deletion it accepted, before somebody should look.
const patience = 10 * time.Minute

// reconcileDelete is the deletion protocol. Whatever is not a proven end leaves the finalizer in place.
func (r *CustomImageReconciler) reconcileDelete(ctx context.Context, cached *v1alpha1.CustomImage) (ctrl.Result, error) {
	if end := r.endWithoutCall(cached); end != nil {
		return end(ctx)
	}
	if wait := r.untilDue(cached); wait > 0 {
		r.warnOfIgnoredRelease(cached)
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	image, err := r.readAgain(ctx, cached)
	if image == nil || err != nil {
		return ctrl.Result{}, err
	}
	if end := r.endWithoutCall(image); end != nil {
		return end(ctx)
	}
	if err := r.lookFirst(ctx, image); err != nil {
		return r.reportFailure(ctx, image, err)
	}
	err = r.ECS.DeleteImage(ctx, image.Spec.RegionID, image.Spec.ImageID, ptr.Deref(image.Spec.Force, false))
	if err != nil && !isGone(err) {
		return r.reportFailure(ctx, image, err)
	}
	left, err := r.ECS.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	switch {
	case err != nil:
		return r.reportFailure(ctx, image, err)
	case left != nil:
		return r.reportStillThere(ctx, image, left)
	case seen(image):
		return r.release(ctx, image, v1alpha1.EventDeleted, "ECS shows the image no longer.")
	default:
		return r.release(ctx, image, v1alpha1.EventNotFound, "No image was deleted: there is none of this ID in "+
			image.Spec.RegionID+" in the account of the access key.")
	}
}

// endWithoutCall returns what ends this attempt before ECS is asked, or nil if nothing does.
func (r *CustomImageReconciler) endWithoutCall(image *v1alpha1.CustomImage) func(context.Context) (ctrl.Result, error) {
	switch others := otherFinalizers(image); {
	case len(others) == len(image.Finalizers):
		return func(context.Context) (ctrl.Result, error) { return ctrl.Result{}, nil }
	case len(others) > 0:
		return func(ctx context.Context) (ctrl.Result, error) { return r.reportOthersFirst(ctx, image, others) }
	case image.Annotations[v1alpha1.AnnotationRelease] == image.Spec.ImageID:
		return func(ctx context.Context) (ctrl.Result, error) {
			return r.release(ctx, image, v1alpha1.EventReleased, "The image stays, as the annotation asked.")
		}
	case image.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain:
		return func(ctx context.Context) (ctrl.Result, error) {
			return r.release(ctx, image, v1alpha1.EventRetained, "The image stays, as spec.deletionPolicy asks.")
		}
	}
	return nil
}

// warnOfIgnoredRelease answers an annotation that was meant to let the object go, and does not.
func (r *CustomImageReconciler) warnOfIgnoredRelease(image *v1alpha1.CustomImage) {
	if value, asked := image.Annotations[v1alpha1.AnnotationRelease]; asked {
		r.eventf(image, corev1.EventTypeWarning, v1alpha1.EventReleaseIgnored,
			"The annotation %s lets this object go if its value is %s; it is %q.",
			v1alpha1.AnnotationRelease, image.Spec.ImageID, value)
	}
}

// readAgain reads the object straight from the API server, and returns nil if it is no longer the deleted
// object that the cache showed: a cache may lag behind by any time, and a deletion cannot be undone.
func (r *CustomImageReconciler) readAgain(ctx context.Context, cached *v1alpha1.CustomImage) (*v1alpha1.CustomImage, error) {
	image := &v1alpha1.CustomImage{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(cached), image); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if image.UID != cached.UID || image.DeletionTimestamp.IsZero() {
		return nil, nil
	}
	return image, nil
}

// lookFirst records the image of an object that was deleted before its image was seen, so that the end can
// tell a deletion from an image that was never there.
func (r *CustomImageReconciler) lookFirst(ctx context.Context, image *v1alpha1.CustomImage) error {
	if seen(image) {
		return nil
	}
	found, err := r.ECS.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if found == nil || err != nil {
		return err
	}
	_, err = r.report(ctx, image, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS shows the image, and is asked to delete it next.",
		found:   found,
	})
	return err
}

func (r *CustomImageReconciler) reportOthersFirst(ctx context.Context, image *v1alpha1.CustomImage, others []string) (ctrl.Result, error) {
	return r.report(ctx, image, outcome{
		kind:    v1alpha1.ConditionReconciling,
		unknown: true,
		reason:  v1alpha1.ReasonPending,
		message: fmt.Sprintf("The image is deleted after the other finalizers of this object are gone: %s. "+
			"Their owners take them off.", strings.Join(others, ", ")),
	})
}

func (r *CustomImageReconciler) reportStillThere(ctx context.Context, image *v1alpha1.CustomImage, left *ecs.Image) (ctrl.Result, error) {
	result := outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonDeleting,
		message: fmt.Sprintf("ECS accepted the deletion and still shows the image with status %s.", left.Status),
		found:   left,
	}
	if r.deletingTooLong(image) {
		result.kind = v1alpha1.ConditionStalled
		result.message += fmt.Sprintf(" That is so for more than %d minutes: ask Alibaba Cloud's support about the "+
			"image, or let the object go with the annotation %s=%s.",
			int(patience.Minutes()), v1alpha1.AnnotationRelease, image.Spec.ImageID)
	}
	return r.report(ctx, image, result)
}

func (r *CustomImageReconciler) deletingTooLong(image *v1alpha1.CustomImage) bool {
	conditions := image.Status.Conditions
	if stalled := meta.FindStatusCondition(conditions, v1alpha1.ConditionStalled); stalled != nil {
		return stalled.Reason == v1alpha1.ReasonDeleting
	}
	reconciling := meta.FindStatusCondition(conditions, v1alpha1.ConditionReconciling)
	return reconciling != nil && reconciling.Reason == v1alpha1.ReasonDeleting &&
		r.Clock.Since(reconciling.LastTransitionTime.Time) >= patience
}

// release takes the finalizer off, and says how the object went.
func (r *CustomImageReconciler) release(ctx context.Context, image *v1alpha1.CustomImage, how, note string) (ctrl.Result, error) {
	before := image.DeepCopy()
	controllerutil.RemoveFinalizer(image, v1alpha1.Finalizer)
	// The lock makes sure that the object is still the one that was judged.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, image, patch); err != nil {
		return ctrl.Result{}, fmt.Errorf("take the finalizer off: %w", err)
	}
	r.attempts.forget(client.ObjectKeyFromObject(image))
	countRelease(how)
	kind := corev1.EventTypeNormal
	if how == v1alpha1.EventNotFound {
		kind = corev1.EventTypeWarning
	}
	r.eventf(image, kind, how, "%s", note)
	log.FromContext(ctx).Info("Released the object", "reason", how, "imageID", image.Spec.ImageID,
		"regionID", image.Spec.RegionID)
	return ctrl.Result{}, nil
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
