package controller

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// reconcileLive makes sure of the finalizer, then has the status say what ECS shows of the image. Nothing it
// does can change the image.
func (r *CustomImageReconciler) reconcileLive(ctx context.Context, image *v1alpha1.CustomImage) (ctrl.Result, error) {
	if err := r.ensureFinalizer(ctx, image); err != nil {
		return ctrl.Result{}, err
	}
	if wait := r.untilDue(image); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	found, err := r.ECS.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if err != nil {
		return r.reportFailure(ctx, image, err)
	}
	if found == nil {
		return r.reportFailure(ctx, image, &ecs.Error{
			Code:    ecs.CodeImageNotFound,
			Message: fmt.Sprintf("DescribeImages shows no such image in %s.", image.Spec.RegionID),
		})
	}
	return r.report(ctx, image, outcome{
		reason:  v1alpha1.ReasonAvailable,
		message: describe(image, found),
		found:   found,
	})
}

// ensureFinalizer adds the finalizer, and tells a user of a fresh object that it was seen before ECS is asked,
// which may take a while.
func (r *CustomImageReconciler) ensureFinalizer(ctx context.Context, image *v1alpha1.CustomImage) error {
	before := image.DeepCopy()
	if !controllerutil.AddFinalizer(image, v1alpha1.Finalizer) {
		return nil
	}
	// A merge patch replaces the whole list, so it must not meet another list than the one it was made from.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, image, patch); err != nil {
		return fmt.Errorf("add the finalizer: %w", err)
	}
	if readyReason(image) != "" {
		return nil
	}
	_, err := r.report(ctx, image, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS was not asked about the image yet.",
	})
	return err
}

func describe(image *v1alpha1.CustomImage, found *ecs.Image) string {
	effect := "Deleting this object deletes it."
	if image.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain {
		effect = "Deleting this object leaves it."
	}
	return fmt.Sprintf("ECS shows the image in %s with status %s. %s", image.Spec.RegionID, found.Status, effect)
}

// imageStatus keeps of an image what the status holds, cut to the lengths that the API allows: a status that
// the API server refused would leave the object without a word.
func imageStatus(found *ecs.Image) *v1alpha1.ImageStatus {
	status := &v1alpha1.ImageStatus{
		Name:        clip(found.Name, 256),
		Family:      clip(found.Family, 256),
		SizeGiB:     ptr.To(max(0, found.SizeGiB)),
		State:       clip(found.Status, 64),
		Usage:       clip(found.Usage, 64),
		OwnerID:     clip(found.OwnerID, 64),
		SnapshotIDs: found.SnapshotIDs[:min(len(found.SnapshotIDs), 64)],
	}
	if !found.CreationTime.IsZero() {
		status.CreationTime = ptr.To(metav1.NewTime(found.CreationTime))
	}
	return status
}
