package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// DeletionPolicy says what deleting a CustomImage does to the image.
type DeletionPolicy string

const (
	// DeletionPolicyDelete deletes the image before the object is removed.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain leaves the image as it is.
	DeletionPolicyRetain DeletionPolicy = "Retain"
)

// No field of the spec has a rule of its own, and a field without a default may be null: an update that breaks such a
// rule is answered with 422, and GitOps tools with a force option delete the object then. The rules of CustomImage apply
// to a new object, the admission policy customimage-update to an update.

// CustomImageSpec names one custom image and says what deleting the object
// does to it.
type CustomImageSpec struct {
	// regionID is the region of the image, for example cn-hangzhou. It is
	// required, and cannot be changed: create another CustomImage for an image in
	// another region.
	// +optional
	// +nullable
	RegionID string `json:"regionID,omitempty"`

	// imageID is the ID of a custom image, for example m-bp67acfmxazb4p0001: m-
	// and then lower case letters and digits. It is required, and cannot be
	// changed: create another CustomImage for another image. System and
	// marketplace images have other IDs and cannot be deleted.
	// +optional
	// +nullable
	ImageID string `json:"imageID,omitempty"`

	// force deletes the image although instances use it (the Force parameter of
	// DeleteImage). Those instances keep running, but their system disks can
	// never be re-initialized. It does not help against any other
	// obstacle. Default: false.
	// +optional
	// +kubebuilder:default=false
	Force *bool `json:"force,omitempty"`

	// deletionPolicy says what deleting this object does to the image: Delete
	// deletes the image first, Retain keeps it. Default: Delete.
	// +optional
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// accountID is the Alibaba Cloud account that the image belongs to, for
	// example 1234567890123456. The operator calls ECS only with an access key of
	// that account. You can add it to an existing
	// object, but not change or remove it.
	// Default: the account in which the image is first seen (status.image.ownerID).
	// +optional
	// +nullable
	AccountID string `json:"accountID,omitempty"`

	// credentialsSecretRef names the Secret with the access key for ECS, in the
	// namespace of this object. Default: the operator's own identity, in the
	// namespaces that may use it.
	// +optional
	// +nullable
	CredentialsSecretRef SecretReference `json:"credentialsSecretRef,omitzero"`
}

// SecretReference names a Secret in the namespace of the object. The Secret
// holds an access key (access-key-id, access-key-secret and, for a temporary
// one, security-token), or a RAM role (role-arn and, if wanted,
// role-session-name and external-id), which the operator assumes with its own
// identity.
type SecretReference struct {
	// name is the name of the Secret, for example alibaba-cloud. It is required.
	// +optional
	// +nullable
	Name string `json:"name,omitempty"`
}

// ImageStatus is the image as ECS described it first or last.
type ImageStatus struct {
	// imageID is the ID under which ECS showed the image. While spec.imageID
	// names another image, nothing is deleted.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ImageID string `json:"imageID,omitempty"`

	// regionID is the region in which ECS showed the image. While spec.regionID
	// names another region, nothing is deleted.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	RegionID string `json:"regionID,omitempty"`

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

// OwnerReference names the CustomImage that owns an image.
type OwnerReference struct {
	// namespace is the namespace of the CustomImage.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// name is the name of the CustomImage.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid is the uid of the CustomImage.
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID types.UID `json:"uid,omitempty"`
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

	// lastSyncTime is when ECS was last asked for what the status shows; for a
	// listing, when the listing began.
	// +optional
	LastSyncTime *metav1.Time `json:"lastSyncTime,omitempty"`

	// image is the image as ECS last showed it. It is kept after the image is
	// gone; an object without it has never seen its image.
	// +optional
	Image *ImageStatus `json:"image,omitempty"`

	// missingSince is when ECS first did not show the image; it is removed when
	// ECS shows the image again. While it is set, deleting this object does not
	// call DeleteImage.
	// +optional
	MissingSince *metav1.Time `json:"missingSince,omitempty"`

	// deletionAcceptedTime is when ECS accepted the deletion of the image. It is
	// removed if ECS refuses the deletion later.
	// +optional
	DeletionAcceptedTime *metav1.Time `json:"deletionAcceptedTime,omitempty"`

	// ownedBy is the other CustomImage that owned the image at the last check: an
	// older one that has seen it. While it is set, deleting this object does not
	// delete the image.
	// +optional
	OwnedBy OwnerReference `json:"ownedBy,omitzero"`

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
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.regionID",reason=FieldValueRequired,rule="oldSelf.hasValue() || has(self.spec) && has(self.spec.regionID) && size(self.spec.regionID) > 0",message="regionID is required, such as cn-hangzhou"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.regionID",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.regionID) || size(self.spec.regionID) <= 64",message="regionID must have at most 64 characters"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.regionID",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.regionID) || size(self.spec.regionID) > 64 || self.spec.regionID.matches('^([a-z]{2}(-[a-z0-9]+)+)?$')",message="regionID must be the ID of an Alibaba Cloud region, such as cn-hangzhou"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.imageID",reason=FieldValueRequired,rule="oldSelf.hasValue() || has(self.spec) && has(self.spec.imageID) && size(self.spec.imageID) > 0",message="imageID is required, such as m-bp67acfmxazb4p0001"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.imageID",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.imageID) || size(self.spec.imageID) <= 64",message="imageID must have at most 64 characters"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.imageID",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.imageID) || size(self.spec.imageID) == 0 || size(self.spec.imageID) > 64 || self.spec.imageID.matches(r'^\\s*[mM]-[a-zA-Z0-9\\s]*[a-zA-Z0-9]\\s*$')",message="imageID must be the ID of a custom image, such as m-bp67acfmxazb4p0001: system and marketplace images cannot be deleted"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.imageID",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.imageID) || size(self.spec.imageID) > 64 || self.spec.imageID.matches('^m-[a-z0-9]+$') || !self.spec.imageID.matches(r'^\\s*[mM]-[a-zA-Z0-9\\s]*[a-zA-Z0-9]\\s*$')",message="imageID must not contain upper case letters or blanks"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.deletionPolicy",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.deletionPolicy) || self.spec.deletionPolicy in ['Delete', 'Retain']",message="deletionPolicy must be Delete or Retain"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.accountID",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.accountID) || size(self.spec.accountID) <= 18 && self.spec.accountID.matches('^[1-9][0-9]{0,17}$')",message="accountID must be the ID of an Alibaba Cloud account: 1 to 18 digits, such as 1234567890123456"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.credentialsSecretRef.name",reason=FieldValueRequired,rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.credentialsSecretRef) || has(self.spec.credentialsSecretRef.name)",message="credentialsSecretRef.name is required, such as alibaba-cloud"
// +kubebuilder:validation:XValidation:optionalOldSelf=true,fieldPath=".spec.credentialsSecretRef.name",rule="oldSelf.hasValue() || !has(self.spec) || !has(self.spec.credentialsSecretRef) || !has(self.spec.credentialsSecretRef.name) || size(self.spec.credentialsSecretRef.name) <= 253 && self.spec.credentialsSecretRef.name.matches(r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="credentialsSecretRef.name must be the name of a Secret, such as alibaba-cloud"
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=cimg,categories=imagegc
// +kubebuilder:selectablefield:JSONPath=`.spec.imageID`
// +kubebuilder:selectablefield:JSONPath=`.spec.regionID`
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.spec.imageID`,description="ID of the image"
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.regionID`,description="Region of the image"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether the image is available and nothing blocks this object"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the object is not ready"
// +kubebuilder:printcolumn:name="Deleting",type=date,JSONPath=`.metadata.deletionTimestamp`,description="How long ago the deletion was requested"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="Age of the object"
// +kubebuilder:printcolumn:name="Name",type=string,JSONPath=`.status.image.name`,priority=1,description="Name of the image"
// +kubebuilder:printcolumn:name="Size",type=integer,JSONPath=`.status.image.sizeGiB`,priority=1,description="Size of the image in GiB"
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1,description="Why the object is not ready, and what to do"
type CustomImage struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec names the image and says what deleting this object does to it. It is
	// required.
	// +optional
	// +nullable
	Spec CustomImageSpec `json:"spec,omitzero"`

	// status is what the operator knows of the image.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1,"conditions":{{"type":"Ready","status":"Unknown","reason":"Pending","message":"Waiting for the first check in ECS.","lastTransitionTime":"1970-01-01T00:00:00Z"}}}
	Status CustomImageStatus `json:"status,omitzero"`
}

// CustomImageList is a list of CustomImages.
// +kubebuilder:object:root=true
type CustomImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CustomImage `json:"items"`
}
