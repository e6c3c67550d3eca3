package controller

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// observe makes sure of the finalizer, then asks ECS what it shows of the image. Nothing it does can change the
// image.
func (r *CustomImageReconciler) observe(ctx context.Context, image *v1alpha1.CustomImage) (outcome, error) {
	o, err := r.look(ctx, image)
	if err != nil {
		return r.failed(image, err)
	}
	return *o, nil
}

func (r *CustomImageReconciler) look(ctx context.Context, image *v1alpha1.CustomImage) (*outcome, error) {
	if err := r.ensureFinalizer(ctx, image); err != nil {
		return nil, err
	}
	wait, err := r.untilLookedAt(ctx, image)
	if wait > 0 || err != nil {
		return &outcome{wait: wait}, err
	}
	cloud, end, err := r.access(ctx, image)
	if end != nil || err != nil {
		return end, err
	}
	found, end, err := cloud.find(ctx, image)
	if end != nil || err != nil {
		return end, err
	}
	if found == nil {
		return nil, &ecs.Error{
			Code: ecs.CodeImageNotFound,
			Message: fmt.Sprintf("DescribeImages shows no such image in %s in account %s.",
				image.Spec.RegionID, cloud.account),
		}
	}
	return r.observed(ctx, image, found)
}

// untilLookedAt returns how long to wait before ECS is asked about a live object. One whose image has got or lost an
// owner since it spoke of that is looked at now.
func (r *CustomImageReconciler) untilLookedAt(ctx context.Context, image *v1alpha1.CustomImage) (time.Duration, error) {
	wait, reason := r.untilDue(image), readyReason(image)
	if wait <= 0 || reason != v1alpha1.ReasonAvailable && reason != v1alpha1.ReasonConflict {
		return wait, nil
	}
	owner, err := ownerOf(ctx, r.Client, image, "")
	if (owner != nil) != (reason == v1alpha1.ReasonConflict) {
		wait = 0
	}
	return wait, err
}

// observed says what deleting the object would do to the image that was found.
func (r *CustomImageReconciler) observed(
	ctx context.Context, image *v1alpha1.CustomImage, found *ecs.Image,
) (*outcome, error) {
	judged := image.DeepCopy()
	judged.Status.Image = imageStatus(found)
	owner, err := ownerOf(ctx, r.Client, judged, found.OwnerID)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		return &outcome{
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
	return &outcome{
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
