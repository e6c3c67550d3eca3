package controller

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// observation is the protocol for a live object: make sure of the finalizer, then ask ECS what it shows of the image.
// None of it can change the image.
func (a *attempt) observation() []step {
	return []step{
		a.ensureFinalizer,
		a.waitUnlessOwnerChanged,
		a.identify,
		a.look,
	}
}

// ensureFinalizer adds the finalizer, and tells a user of a fresh object that it was seen before ECS is asked,
// which may take a while.
func (a *attempt) ensureFinalizer(ctx context.Context) (*outcome, error) {
	before := a.image.DeepCopy()
	if !controllerutil.AddFinalizer(a.image, v1alpha1.Finalizer) {
		return nil, nil
	}
	if err := a.Client.Patch(ctx, a.image, locked(before)); err != nil {
		return nil, fmt.Errorf("add the finalizer: %w", err)
	}
	if readyReason(a.image) != "" {
		return nil, nil
	}
	return nil, a.record(ctx, outcome{
		kind:    v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: "ECS was not asked about the image yet.",
	})
}

// waitUnlessOwnerChanged ends an attempt that is too early. None is if the image has got or lost an owner since the
// object spoke of that.
func (a *attempt) waitUnlessOwnerChanged(ctx context.Context) (*outcome, error) {
	wait, reason := a.untilDue(a.image), readyReason(a.image)
	if wait <= 0 {
		return nil, nil
	}
	if reason == v1alpha1.ReasonAvailable || reason == v1alpha1.ReasonConflict {
		owner, err := ownerOf(ctx, a.Client, a.image, "")
		if err != nil || nameOf(owner) != a.image.Status.OwnedBy {
			return nil, err
		}
	}
	return &outcome{wait: wait}, nil
}

// look asks ECS for the image, and says what deleting the object would do to it.
func (a *attempt) look(ctx context.Context) (*outcome, error) {
	found, end, err := a.cloud.find(ctx, a.image)
	if end != nil || err != nil {
		return end, err
	}
	spec := a.image.Spec
	if found == nil {
		return nil, &ecs.Error{
			Code:    ecs.CodeImageNotFound,
			Message: fmt.Sprintf("DescribeImages shows no such image in %s in account %s.", spec.RegionID, a.cloud.account),
		}
	}
	judged := a.image.DeepCopy()
	judged.Status.Image = imageStatus(found)
	owner, err := ownerOf(ctx, a.Client, judged, found.OwnerID)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		return conflict(found, owner), nil
	}
	effect := "Deleting this object deletes it."
	if spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain {
		effect = "Deleting this object leaves it."
	}
	return &outcome{
		reason:  v1alpha1.ReasonAvailable,
		message: fmt.Sprintf("ECS shows the image in %s with status %s. %s", spec.RegionID, clip(found.Status, 64), effect),
		found:   found,
		ownedBy: new(string), // by nobody else
	}, nil
}
