package customimage

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

// imageIDField is the field by which objects for one image are found. The cache has an index of that name, which also
// finds those that have seen the image and name another one now.
const imageIDField = "spec.imageID"

// imagesOf returns the images that an object has to do with.
func imagesOf(object client.Object) []string {
	image := object.(*v1alpha1.CustomImage)
	ids := []string{image.Spec.ImageID}
	if seen := image.Status.Image; seen != nil && seen.ImageID != "" && seen.ImageID != image.Spec.ImageID {
		ids = append(ids, seen.ImageID)
	}
	return ids
}

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

// metadata reads the metadata of an object; nil if it does not exist.
func metadata(
	ctx context.Context, reader client.Reader, of *metav1.PartialObjectMetadata,
) (*metav1.PartialObjectMetadata, error) {
	found := &metav1.PartialObjectMetadata{TypeMeta: of.TypeMeta}
	err := reader.Get(ctx, client.ObjectKeyFromObject(of), found)
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", of.Kind, of.Name, err)
	}
	return found, nil
}

// isAbsent reports whether the API server says that an object does not exist. It also answers "not found" to everything
// about a kind that it does not serve at the moment, such as one whose definition is established anew.
func isAbsent(err error) bool {
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

var customImageKind = v1alpha1.GroupVersion.WithKind("CustomImage")

func namespaceNamed(name string) *metav1.PartialObjectMetadata {
	return metadataOf(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, types.NamespacedName{Name: name})
}

// definition stands for the CustomResourceDefinition of CustomImages.
func definition() *metav1.PartialObjectMetadata {
	kind := schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}
	return metadataOf(kind, types.NamespacedName{Name: decision.CRDName})
}

// metadataOf stands for an object of which only the metadata is read.
func metadataOf(kind schema.GroupVersionKind, key types.NamespacedName) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	object.SetGroupVersionKind(kind)
	return object
}

// CacheByObject is what the manager's cache may hold of objects of other kinds: of all definitions, the one.
func CacheByObject() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		definition(): {Field: fields.OneTermEqualSelector("metadata.name", decision.CRDName)},
	}
}
