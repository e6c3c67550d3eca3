package controller

import (
	"cmp"
	"context"
	"fmt"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// cloud is ECS, asked with one access key.
type cloud struct {
	*ecs.Client
	account string // that the key belongs to
}

// identify finds the access key of the object, and ends the attempt if it belongs to another account than the one in
// which the image was seen: there, "not found" would say nothing about the image.
func (a *attempt) identify(ctx context.Context) (*outcome, error) {
	spec, seen := a.image.Spec, a.image.Status.Image
	key, err := a.Credentials.For(ctx, spec.RegionID, a.image.Namespace, spec.CredentialsSecretRef.Name)
	if err != nil {
		return nil, err
	}
	a.cloud = cloud{a.ECS.As(key), key.AccountID}
	if seen == nil {
		return nil, nil
	}
	return a.cloud.mismatch(seen.OwnerID), nil
}

// find returns the image as ECS shows it, nil if it shows none, or the outcome for an image of another account.
func (c cloud) find(ctx context.Context, image *v1alpha1.CustomImage) (*ecs.Image, *outcome, error) {
	found, err := c.FindImage(ctx, image.Spec.RegionID, image.Spec.ImageID)
	if found == nil || err != nil {
		return nil, nil, err
	}
	found.OwnerID = cmp.Or(found.OwnerID, c.account) // only its own images were asked for
	return found, c.mismatch(found.OwnerID), nil
}

// mismatch returns the outcome for an image of that account; nil if the access key belongs to the same one.
func (c cloud) mismatch(owner string) *outcome {
	if owner == "" || owner == c.account {
		return nil
	}
	return &outcome{
		kind:   v1alpha1.ConditionStalled,
		reason: v1alpha1.ReasonAccountMismatch,
		message: fmt.Sprintf("The image was seen in account %s, and today's access key belongs to account %s. Nothing "+
			"is asked of ECS with it. Give the object a key of account %s, or leave the image to it: set "+
			"spec.deletionPolicy to Retain, and delete the object.", owner, c.account, owner),
	}
}
