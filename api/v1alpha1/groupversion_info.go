// Package v1alpha1 is the API of ECS Image GC: the objects that stand for ECS images, their conditions and
// the reasons of those, and the annotations by which a person steers one object. It knows what users write
// and read; it does not know how Alibaba Cloud is called.
// +kubebuilder:object:generate=true
// +groupName=ecs.imagegc.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "ecs.imagegc.io", Version: "v1alpha1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme makes the kinds of this package known to a scheme.
	AddToScheme = schemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &CustomImage{}, &CustomImageList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
