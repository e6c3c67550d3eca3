package controller

import (
	"cmp"
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// What keeps the wrong image from being deleted: the account that an image was seen in, the one object that owns
// it, and what else is deleted together with the object.

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

// imageIDField is the field by which objects are looked up, in the cache by an index.
const imageIDField = "spec.imageID"

// yieldToOwner ends an attempt for an image that another object owns, or owned when the status last said so: that said
// too that deleting this object leaves the image.
func (a *attempt) yieldToOwner(ctx context.Context) (*outcome, error) {
	owner, err := ownerOf(ctx, a.Live, a.image, a.cloud.account)
	switch {
	case err != nil:
		return nil, err
	case owner != nil:
		return released(v1alpha1.EventRetained, fmt.Sprintf("The image stays: it belongs to CustomImage %s, which saw it "+
			"first or is older.", client.ObjectKeyFromObject(owner))), nil
	case readyReason(a.image) == v1alpha1.ReasonConflict:
		return released(v1alpha1.EventRetained, "The image stays: it belonged to another CustomImage, and this one said that "+
			"deleting it leaves the image."), nil
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

// crdName is the definition of the objects.
const crdName = "customimages.ecs.imagegc.io"

// metadataOf stands for an object of which only the metadata is read.
func metadataOf(group, version, kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: kind})
	return object
}

func namespaceMetadata() *metav1.PartialObjectMetadata { return metadataOf("", "v1", "Namespace") }

func crdMetadata() *metav1.PartialObjectMetadata {
	return metadataOf("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
}

// CacheByObject is what the manager's cache may hold of objects that are not ours: of all definitions, the one.
func CacheByObject() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		crdMetadata(): {Field: fields.OneTermEqualSelector("metadata.name", crdName)},
	}
}

// ending is what else is being deleted that the object is part of.
type ending struct {
	// cause says why the image stays; "" if it goes nevertheless.
	cause string
	// namespace is the object's, if it is being deleted: nothing can be created in it any more.
	namespace *metav1.PartialObjectMetadata
}

// cascade looks for what the object is deleted together with.
func cascade(ctx context.Context, reader client.Reader, image *v1alpha1.CustomImage) (ending, error) {
	crd, namespace := crdMetadata(), namespaceMetadata()
	crdEnds, err := isEnding(ctx, reader, crdName, crd)
	if err != nil {
		return ending{}, err
	}
	namespaceEnds, err := isEnding(ctx, reader, image.Namespace, namespace)
	if err != nil {
		return ending{}, err
	}
	var found ending
	if namespaceEnds {
		found.namespace = namespace
	}
	optedIn := namespace.Annotations[v1alpha1.AnnotationOnNamespaceDeletion] == string(v1alpha1.DeletionPolicyDelete)
	switch {
	case isAnotherSince(crd, image) || isAnotherSince(namespace, image):
		found.cause = "its namespace or CustomResourceDefinition was deleted and created anew since, which deletes no images."
	case crdEnds:
		found.cause = "CustomResourceDefinition " + crdName + " is being deleted, which deletes no images."
	case namespaceEnds && (!optedIn || isProtected(image)):
		found.cause = "namespace " + image.Namespace + " is being deleted, which deletes no images unless it asks for that."
	}
	return found, nil
}

// isEnding reads the metadata of what the object needs, and reports whether it is being deleted. What is gone already
// counts too.
func isEnding(
	ctx context.Context, reader client.Reader, name string, of *metav1.PartialObjectMetadata,
) (bool, error) {
	err := reader.Get(ctx, client.ObjectKey{Name: name}, of)
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read %s %s: %w", of.Kind, name, err)
	}
	of.Name = name // also of what is gone
	return err != nil || !of.DeletionTimestamp.IsZero(), nil
}

// isAnotherSince reports whether that is not what the object was created in, but something of the same name that came
// later: the object was deleted with what was there before, and outlived it. A minute is for clocks that differ.
func isAnotherSince(of *metav1.PartialObjectMetadata, image *v1alpha1.CustomImage) bool {
	return of.CreationTimestamp.Sub(image.CreationTimestamp.Time) > time.Minute
}

// explain adds to an outcome what follows from the deletion of the namespace: who wants the object to go needs another
// way than to clear what is in the way.
func (e ending) explain(o outcome) outcome {
	if e.namespace != nil && o.kind == v1alpha1.ConditionStalled {
		o.message += fmt.Sprintf(" The namespace is being deleted, so nothing can be created in it. To let the object go and "+
			"leave the image: `kubectl annotate namespace %s %s-`.", e.namespace.Name, v1alpha1.AnnotationOnNamespaceDeletion)
	}
	return o
}

func isProtected(image *v1alpha1.CustomImage) bool {
	return image.Annotations[v1alpha1.AnnotationProtected] == "true"
}

// protected holds an object whose deletion came past the admission policy that refuses it.
func protected() *outcome {
	return &outcome{
		kind:    v1alpha1.ConditionStalled,
		unknown: true,
		reason:  v1alpha1.ReasonProtected,
		message: fmt.Sprintf("The annotation %s is \"true\". Take it off to have the image deleted, or set "+
			"spec.deletionPolicy to Retain to let this object go and leave the image.", v1alpha1.AnnotationProtected),
	}
}
