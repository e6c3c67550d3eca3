package decision

import (
	"cmp"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// ownerOf returns the rival that owns the image of this object: the oldest of those that have seen it. An object that
// has not seen it owns nothing, or naming the ID of an image would be enough to own it. It returns nil if this object
// owns the image.
func ownerOf(f Facts) *v1alpha1.CustomImage {
	var owner *v1alpha1.CustomImage
	for _, rival := range rivalsInSight(f) {
		precedes := f.Image.Status.Image == nil || isOlder(rival, f.Image)
		if precedes && isOlder(rival, owner) {
			owner = rival
		}
	}
	return owner
}

// keeperOf returns a rival that has seen the image of this object and keeps it; nil if there is none.
func keeperOf(f Facts) *v1alpha1.CustomImage {
	for _, rival := range rivalsInSight(f) {
		if keeps(rival) {
			return rival
		}
	}
	return nil
}

// rivalsInSight returns the rivals that have seen the image of this object, in the account that this one saw it in or is
// looked for in. A rival that does not know the account may have seen it in this one.
func rivalsInSight(f Facts) (rivals []*v1alpha1.CustomImage) {
	account := cmp.Or(seenAs(f.Image).OwnerID, f.Image.Spec.AccountID, f.Account)
	for _, rival := range f.Rivals {
		if rival.Status.Image == nil || sightOf(rival) != sightOf(f.Image) {
			continue
		}
		if cmp.Or(rival.Status.Image.OwnerID, account) == account {
			rivals = append(rivals, rival)
		}
	}
	return rivals
}

// sightOf returns image and region as an object has seen them or, if it has not, as its spec names them.
func sightOf(image *v1alpha1.CustomImage) [2]string {
	seen := seenAs(image)
	return [2]string{cmp.Or(seen.ImageID, image.Spec.ImageID), cmp.Or(seen.RegionID, image.Spec.RegionID)}
}

// isOlder reports whether an object is older than another one, or there is no other.
func isOlder(a, b *v1alpha1.CustomImage) bool {
	switch {
	case b == nil:
		return true
	case a.CreationTimestamp.Equal(&b.CreationTimestamp):
		return a.UID < b.UID // either will do, as long as both agree
	}
	return a.CreationTimestamp.Before(&b.CreationTimestamp)
}
