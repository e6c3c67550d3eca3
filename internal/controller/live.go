package controller

import (
	"context"
	"fmt"

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
	if wait := r.untilDue(image); wait > 0 {
		return outcome{wait: wait}, nil
	}
	found, err := r.ECS.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if err == nil && found == nil {
		err = &ecs.Error{
			Code:    ecs.CodeImageNotFound,
			Message: fmt.Sprintf("DescribeImages shows no such image in %s.", image.Spec.RegionID),
		}
	}
	if err != nil {
		return failed(err)
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
