package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

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
	case outlived(image, crd, namespace):
		found.cause = "its namespace or CustomResourceDefinition was deleted and created anew since, which deletes no images."
	case crdEnds:
		found.cause = "CustomResourceDefinition " + crdName + " is being deleted, which deletes no images."
	case namespaceEnds && optedIn && isProtected(image):
		found.cause = "namespace " + image.Namespace + " is being deleted, and the object is protected."
	case namespaceEnds && !optedIn:
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

// outlived reports whether one of these is not what the object was created in, but something of the same name that
// came later: the object was deleted with what was there before, and outlived it. A minute is for clocks that differ.
func outlived(image *v1alpha1.CustomImage, these ...*metav1.PartialObjectMetadata) bool {
	return slices.ContainsFunc(these, func(of *metav1.PartialObjectMetadata) bool {
		return of.CreationTimestamp.Sub(image.CreationTimestamp.Time) > time.Minute
	})
}

// explain adds to an outcome what follows from the deletion of the namespace: who wants the object to go needs another
// way than to clear what is in the way.
func (e ending) explain(o outcome) outcome {
	if e.namespace != nil && o.kind == v1alpha1.ConditionStalled {
		o.message += fmt.Sprintf(" But the namespace is being deleted, and nothing can be created in it any more. To let the "+
			"object go and leave the image: `kubectl annotate namespace %s %s-`.", e.namespace.Name, v1alpha1.AnnotationOnNamespaceDeletion)
	}
	return o
}
