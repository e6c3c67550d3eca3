package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DeletionPolicy says what deleting a CustomImage does to the image.
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionPolicyDelete deletes the image before the object goes.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain leaves the image as it is.
	DeletionPolicyRetain DeletionPolicy = "Retain"
)

// CustomImageSpec names one custom image and says what deleting the object
// does to it.
type CustomImageSpec struct {
	// regionID is the region that the image is in, for example cn-hangzhou. It
	// cannot be changed: an image in another region is another object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]{2}(-[a-z0-9]+)+$')",message="regionID must be the ID of an Alibaba Cloud region, such as cn-hangzhou"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="regionID is immutable: create another CustomImage for an image in another region"
	RegionID string `json:"regionID,omitempty"`

	// imageID is the ID of a custom image, for example m-bp67acfmxazb4p0001.
	// Only custom images, whose IDs begin with m-, can be deleted. It cannot be
	// changed: another image is another object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^m-[a-z0-9]+$')",message="imageID must be the ID of a custom image, such as m-bp67acfmxazb4p0001: system and marketplace images cannot be deleted"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="imageID is immutable: create another CustomImage for another image"
	ImageID string `json:"imageID,omitempty"`

	// force deletes the image although instances use it (the Force parameter of
	// DeleteImage). Those instances go on running, but their system disks can
	// never be re-initialised again. It does not help against any other
	// obstacle. Default: false.
	// +optional
	// +kubebuilder:default=false
	Force *bool `json:"force,omitempty"`

	// deletionPolicy says what deleting this object does to the image: Delete
	// deletes it first, Retain leaves it. Default: Delete.
	// +optional
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// credentialsSecretRef names the Secret with the access key to ask ECS with.
	// Default: the operator's own identity, in the namespaces that may use it.
	// +optional
	CredentialsSecretRef SecretReference `json:"credentialsSecretRef,omitzero"`
}

// SecretReference names a Secret in the namespace of the object. The Secret
// holds an access key (access-key-id, access-key-secret and, for a temporary
// one, security-token), or a RAM role (role-arn and, if wanted,
// role-session-name and external-id), which the operator assumes with its own
// identity.
type SecretReference struct {
	// name is the name of the Secret, for example alibaba-cloud.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="name must be the name of a Secret, such as alibaba-cloud"
	Name string `json:"name,omitempty"`
}

// ImageStatus is the image as ECS described it first or last.
type ImageStatus struct {
	// name is the name of the image, for example web-2024-01.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`

	// family is the image family that the image belongs to, for example web.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Family string `json:"family,omitempty"`

	// creationTime is when the image was created.
	// +optional
	CreationTime *metav1.Time `json:"creationTime,omitempty"`

	// sizeGiB is the size of the image in GiB.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SizeGiB *int32 `json:"sizeGiB,omitempty"`

	// state is the status of the image in ECS, for example Available or
	// Deprecated.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`

	// usage is "instance" while ECS counts instances that use the image, "none"
	// otherwise.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Usage string `json:"usage,omitempty"`

	// ownerID is the ID of the account that the image was seen in, for example
	// 1234567890123456.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	OwnerID string `json:"ownerID,omitempty"`

	// snapshotIDs are the snapshots under the image, for example
	// s-bp67acfmxazb4p0001. They survive it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	SnapshotIDs []string `json:"snapshotIDs,omitempty"`
}

// LastError is the answer of ECS that the obstacle in force was first seen
// with.
type LastError struct {
	// code is the error code as ECS spells it, for example
	// OperationDenied.ImageCopying.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Code string `json:"code,omitempty"`

	// message is the text that came with the code.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// requestID is what Alibaba Cloud's support asks for.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RequestID string `json:"requestID,omitempty"`

	// time is when the answer came.
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
}

// CustomImageStatus is what the operator knows of the image and of what
// stands in the way of its deletion.
// +kubebuilder:validation:MinProperties=1
type CustomImageStatus struct {
	// observedGeneration is the generation of the object that this status speaks
	// of; -1 until the operator has seen the object.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`

	// lastSyncTime is when ECS last told something new about the live image.
	// +optional
	LastSyncTime *metav1.Time `json:"lastSyncTime,omitempty"`

	// image is the image as ECS described it. It stays when the image is gone;
	// an object without it never saw its image.
	// +optional
	Image *ImageStatus `json:"image,omitempty"`

	// ownedBy is the other CustomImage that owned the image when it was last
	// looked at, as NAMESPACE/NAME: an older one that has seen it. While it is
	// set, deleting this object leaves the image.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	OwnedBy string `json:"ownedBy,omitempty"`

	// lastError is the ECS error behind the obstacle in force, as it was first
	// seen.
	// +optional
	LastError *LastError `json:"lastError,omitempty"`

	// lastHandledRetryAt is the last value of the annotation
	// ecs.imagegc.io/retry-at that was acted upon.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	LastHandledRetryAt string `json:"lastHandledRetryAt,omitempty"`

	// conditions say how things stand. Ready sums up; Reconciling and Stalled
	// are present only while True; each documented ECS error has a condition of
	// its own.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CustomImage stands for one custom image on Alibaba Cloud ECS. Deleting the
// object deletes the image.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=cimg,categories=imagegc
// +kubebuilder:selectablefield:JSONPath=`.spec.imageID`
// +kubebuilder:selectablefield:JSONPath=`.spec.regionID`
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.imageID`,description="ID of the image"
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.regionID`,description="Region of the image"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the image is there and nothing is in the way"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="What is in the way"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="Age of the object"
// +kubebuilder:printcolumn:name="Name",type=string,JSONPath=`.status.image.name`,priority=1,description="Name of the image"
// +kubebuilder:printcolumn:name="Size",type=integer,JSONPath=`.status.image.sizeGiB`,priority=1,description="Size of the image in GiB"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1,description="What is in the way, and what to do"
type CustomImage struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec names the image and says what deleting this object does to it.
	// +required
	Spec CustomImageSpec `json:"spec,omitzero"`

	// status is what the operator knows of the image.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status CustomImageStatus `json:"status,omitzero"`
}

// CustomImageList is a list of CustomImages.
// +kubebuilder:object:root=true
type CustomImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CustomImage `json:"items"`
}
