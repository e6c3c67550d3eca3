package controller

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// observe makes sure of the finalizer, then asks ECS what it shows of the image. Nothing it does can change the
// image.
func (r *CustomImageReconciler) observe(ctx context.Context, image *v1alpha1.CustomImage) (outcome, error) {
	if err := r.ensureFinalizer(ctx, image); err != nil {
		return outcome{}, err
	}
	owner, err := r.owner(ctx, image, "")
	if err != nil {
		return outcome{}, err
	}
	settled := (owner != nil) == (readyReason(image) == v1alpha1.ReasonConflict)
	if wait := r.untilDue(image); wait > 0 && settled {
		return outcome{wait: wait}, nil
	}
	cloud, end, err := r.access(ctx, image)
	var found *ecs.Image
	if end == nil && err == nil {
		found, end, err = cloud.find(ctx, image)
	}
	switch {
	case err != nil:
		return outcome{}, err
	case end != nil:
		return *end, nil
	case found == nil:
		return outcome{}, &ecs.Error{
			Code: ecs.CodeImageNotFound,
			Message: fmt.Sprintf("DescribeImages shows no such image in %s in account %s.",
				image.Spec.RegionID, cloud.account),
		}
	}
	return r.observed(ctx, image, found)
}

// observed says what deleting the object would do to the image that was found.
func (r *CustomImageReconciler) observed(
	ctx context.Context, image *v1alpha1.CustomImage, found *ecs.Image,
) (outcome, error) {
	judged := image.DeepCopy()
	judged.Status.Image = imageStatus(found)
	owner, err := r.owner(ctx, judged, found.OwnerID)
	if err != nil {
		return outcome{}, err
	}
	if owner != nil {
		return outcome{
			kind:   v1alpha1.ConditionStalled,
			reason: v1alpha1.ReasonConflict,
			message: fmt.Sprintf("The image belongs to CustomImage %s, which is older. Delete this object: that leaves "+
				"the image.", client.ObjectKeyFromObject(owner)),
			found: found,
		}, nil
	}
	effect := "Deleting this object deletes it."
	if image.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain {
		effect = "Deleting this object leaves it."
	}
	return outcome{
		reason: v1alpha1.ReasonAvailable,
		message: fmt.Sprintf("ECS shows the image in %s with status %s. %s",
			image.Spec.RegionID, clip(found.Status, 64), effect),
		found: found,
	}, nil
}

// ensureFinalizer adds the finalizer, and tells a user of a fresh object that it was seen before ECS is asked,
// which may take a while.
func (r *CustomImageReconciler) ensureFinalizer(ctx context.Context, image *v1alpha1.CustomImage) error {
	before := image.DeepCopy()
	if !controllerutil.AddFinalizer(image, v1alpha1.Finalizer) {
		return nil
	}
	if err := r.Client.Patch(ctx, image, locked(before)); err != nil {
		return fmt.Errorf("add the finalizer: %w", err)
	}
	if readyReason(image) != "" {
		return nil
	}
	return r.record(ctx, image, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS was not asked about the image yet.",
	})
}
