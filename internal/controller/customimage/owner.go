package customimage

import (
	"cmp"
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// imageIDField is the field by which objects for one image are found, in the cache by an index.
const imageIDField = "spec.imageID"

// rivalsOf returns the other objects for the image of this one. They are shared with the cache, and must not be
// changed.
func rivalsOf(ctx context.Context, reader client.Reader, image *v1alpha1.CustomImage) ([]*v1alpha1.CustomImage, error) {
	list := &v1alpha1.CustomImageList{}
	err := reader.List(ctx, list, client.MatchingFields{imageIDField: image.Spec.ImageID}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list the objects for image %s: %w", image.Spec.ImageID, err)
	}
	var rivals []*v1alpha1.CustomImage
	for i := range list.Items {
		if rival := &list.Items[i]; rival.UID != image.UID {
			rivals = append(rivals, rival)
		}
	}
	return rivals, nil
}

// ownerOf returns the rival that owns the image of this object: the oldest of those that have seen it. An object that
// has not seen it owns nothing, or naming the ID of an image would be enough to own it. It returns nil if this object
// owns the image.
func ownerOf(image *v1alpha1.CustomImage, rivals []*v1alpha1.CustomImage, account string) *v1alpha1.CustomImage {
	var owner *v1alpha1.CustomImage
	for _, rival := range rivals {
		precedes := image.Status.Image == nil || isOlder(rival, image)
		if precedes && hasSeen(rival, image, account) && (owner == nil || isOlder(rival, owner)) {
			owner = rival
		}
	}
	return owner
}

// keeperOf returns a rival that has seen the image of this object and keeps it: by its policy, or because it is
// protected.
func keeperOf(image *v1alpha1.CustomImage, rivals []*v1alpha1.CustomImage, account string) *v1alpha1.CustomImage {
	for _, rival := range rivals {
		if hasSeen(rival, image, account) && (retains(rival) || isProtected(rival)) {
			return rival
		}
	}
	return nil
}

// hasSeen reports whether a rival has seen the image of this object, in the account that this one saw it in or would
// be asked for with. A rival that does not know the account may have seen it in this one.
func hasSeen(rival, image *v1alpha1.CustomImage, account string) bool {
	if image.Status.Image != nil {
		account = cmp.Or(image.Status.Image.OwnerID, account)
	}
	saw := rival.Status.Image
	return saw != nil && rival.Spec.RegionID == image.Spec.RegionID && (saw.OwnerID == account || saw.OwnerID == "")
}

func isOlder(a, b *v1alpha1.CustomImage) bool {
	if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.UID < b.UID // either will do, as long as both agree
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}

// retains reports whether the deletion of an object keeps its image. A policy that the operator does not know keeps
// it too.
func retains(image *v1alpha1.CustomImage) bool {
	return cmp.Or(image.Spec.DeletionPolicy, v1alpha1.DeletionPolicyDelete) != v1alpha1.DeletionPolicyDelete
}

func isProtected(image *v1alpha1.CustomImage) bool {
	value := image.Annotations[v1alpha1.AnnotationProtected]
	return value != "" && value != "false"
}
