package controller

import (
	"cmp"
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// imageIDField is the field by which objects are looked up, in the cache by an index.
const imageIDField = "spec.imageID"

// yieldToOwner ends an attempt for an image that another object owns, or owned when the status last said so: that said
// too that deleting this object leaves the image.
func (a *attempt) yieldToOwner(ctx context.Context) (*outcome, error) {
	owner, err := ownerOf(ctx, a.Live, a.image, a.cloud.account)
	switch {
	case err != nil:
		return nil, err
	case owner != nil && a.image.Status.Image == nil:
		return released(v1alpha1.EventRetained, fmt.Sprintf("No image was deleted: it belongs to CustomImage %s, which has "+
			"seen it, and this one has not.", client.ObjectKeyFromObject(owner))), nil
	case owner != nil:
		return released(v1alpha1.EventRetained, fmt.Sprintf("No image was deleted: it belongs to CustomImage %s, which is older.",
			client.ObjectKeyFromObject(owner))), nil
	case a.image.Status.OwnedBy != "":
		return released(v1alpha1.EventRetained, fmt.Sprintf("No image was deleted: it belonged to CustomImage %s, and this "+
			"one said that deleting it leaves the image.", a.image.Status.OwnedBy)), nil
	}
	return nil, nil
}

// ownerOf returns the other object that owns the image of this one: the oldest of those that have seen it in the same
// account, which is the given one if this one never saw it. One that never saw it owns nothing, or naming the ID of
// somebody else's image would be enough to own it. A cache may not have it yet who saw the image, and has the watched
// namespaces alone.
func ownerOf(
	ctx context.Context, reader client.Reader, image *v1alpha1.CustomImage, account string,
) (owner *v1alpha1.CustomImage, err error) {
	others := &v1alpha1.CustomImageList{}
	if err := reader.List(ctx, others, client.MatchingFields{imageIDField: image.Spec.ImageID}); err != nil {
		return nil, fmt.Errorf("list the objects for the same image: %w", err)
	}
	if image.Status.Image != nil {
		account = cmp.Or(image.Status.Image.OwnerID, account)
	}
	for i := range others.Items {
		other := &others.Items[i]
		if other.UID != image.UID && precedes(other, image, account) && (owner == nil || isOlder(other, owner)) {
			owner = other
		}
	}
	return owner, nil
}

// precedes reports whether the image belongs to the other object rather than to this one. One that saw it in an account
// that is not known may have seen it in this one.
func precedes(other, image *v1alpha1.CustomImage, account string) bool {
	saw := other.Status.Image
	return other.Spec.RegionID == image.Spec.RegionID && saw != nil && (saw.OwnerID == account || saw.OwnerID == "") &&
		(image.Status.Image == nil || isOlder(other, image))
}

func isOlder(a, b *v1alpha1.CustomImage) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.UID < b.UID // either will do, as long as both agree
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

func conflict(found *ecs.Image, owner *v1alpha1.CustomImage) *outcome {
	name := nameOf(owner)
	return &outcome{
		kind:    v1alpha1.ConditionStalled,
		reason:  v1alpha1.ReasonConflict,
		message: fmt.Sprintf("The image belongs to CustomImage %s, which is older. Delete this object: that leaves the image.", name),
		found:   found,
		ownedBy: &name,
	}
}

// nameOf returns an owner as the status names it; "" if there is none.
func nameOf(owner *v1alpha1.CustomImage) string {
	if owner == nil {
		return ""
	}
	return client.ObjectKeyFromObject(owner).String()
}
