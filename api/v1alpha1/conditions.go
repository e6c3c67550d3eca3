package v1alpha1

// The conditions that sum up. Ready is always present once the operator has seen the object. Reconciling and
// Stalled follow kstatus: they are present only while they are True, and never both.
const (
	// ConditionReady is True while the image is there and nothing stands in the way of this object. While it
	// is False it repeats reason and message of whatever does.
	ConditionReady = "Ready"

	// ConditionReconciling means that the operator goes on by itself.
	ConditionReconciling = "Reconciling"

	// ConditionStalled means that somebody has to act. The operator still looks again, at growing intervals:
	// nothing tells it when, say, the instances that use an image are released.
	ConditionStalled = "Stalled"
)

// The obstacles: one condition for each documented error. At most one is True, while ECS reports that error;
// afterwards it is False with ReasonCleared. Its reason is the ECS error code without its dots.
const (
	// ConditionInUse says that instances use the image.
	ConditionInUse = "InUse"
	// ConditionShared says that the image is shared with other accounts.
	ConditionShared = "Shared"
	// ConditionPublic says that the image is public.
	ConditionPublic = "Public"
	// ConditionCopying says that the image is being copied.
	ConditionCopying = "Copying"
	// ConditionImporting says that the image is being imported.
	ConditionImporting = "Importing"
	// ConditionExporting says that the image is being exported.
	ConditionExporting = "Exporting"
	// ConditionCreating says that the image is still being created.
	ConditionCreating = "Creating"
	// ConditionNotFound says that there is no such image in the account and region that were asked.
	ConditionNotFound = "NotFound"
	// ConditionDenied says that there is no access key to ask with, or that the key, its signature or its
	// permissions were refused.
	ConditionDenied = "Denied"
	// ConditionInvalid says that ECS does not accept the request: a region that does not exist, for example.
	ConditionInvalid = "Invalid"
)

// Obstacles lists the conditions of which at most one is True.
var Obstacles = []string{
	ConditionInUse, ConditionShared, ConditionPublic,
	ConditionCopying, ConditionImporting, ConditionExporting, ConditionCreating,
	ConditionNotFound, ConditionDenied, ConditionInvalid,
}

// The reasons that are not ECS error codes.
const (
	// ReasonAvailable is the reason of Ready=True: ECS shows the image.
	ReasonAvailable = "Available"
	// ReasonCleared is the reason of an obstacle that is there no longer.
	ReasonCleared = "Cleared"
	// ReasonPending means that ECS was not asked yet: a fresh object, or one whose other finalizers go first.
	ReasonPending = "Pending"
	// ReasonDeleting means that ECS accepted the deletion and still shows the image.
	ReasonDeleting = "Deleting"
	// ReasonRetrying means that ECS could not be reached or gave no usable answer, and is asked again.
	ReasonRetrying = "Retrying"
	// ReasonInvalidRelease means that AnnotationRelease names another image than the object does. Nothing is
	// deleted until that is put right: somebody meant to keep an image.
	ReasonInvalidRelease = "InvalidRelease"
	// ReasonProtected means that AnnotationProtected holds an object that is being deleted all the same.
	ReasonProtected = "Protected"
	// ReasonConflict means that an older CustomImage has seen the same image, and owns it. Deleting this one
	// leaves the image.
	ReasonConflict = "Conflict"
	// ReasonAccountMismatch means that the access key belongs to another account than the one that the image was
	// seen in. Nothing is asked of ECS until that is put right: "not found" would mean nothing.
	ReasonAccountMismatch = "AccountMismatch"
	// ReasonNoCredentials means that there is no access key: the object names no Secret, and the operator has no
	// identity of its own.
	ReasonNoCredentials = "NoCredentials"
	// ReasonAmbientForbidden means that the namespace of the object may not use the operator's own identity.
	ReasonAmbientForbidden = "AmbientForbidden"
	// ReasonSecretNotFound means that the Secret that the object names is not there.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretForbidden means that the operator may not read the Secret that the object names.
	ReasonSecretForbidden = "SecretForbidden"
	// ReasonSecretInvalid means that the Secret that the object names lacks a key, or has keys that contradict
	// each other.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonClusterForbidden means that the operator lacks a permission in the cluster.
	ReasonClusterForbidden = "ClusterForbidden"
	// ReasonThrottled means that the request quota is used up, and ECS is asked again when it is renewed.
	ReasonThrottled = "Throttled"
)

// The reasons of the events that say how an object went.
const (
	// EventDeleted says that the image was seen, its deletion was asked for, and it is gone.
	EventDeleted = "Deleted"
	// EventNotFound warns that the object went although no image was deleted: there was none.
	EventNotFound = "NotFound"
	// EventRetained says that the object went and the image stays: because its deletionPolicy asked for that,
	// because the namespace or the CustomResourceDefinition is being deleted, or because another object owns the
	// image.
	EventRetained = "Retained"
	// EventReleased says that the object went and the image stays, as AnnotationRelease asked.
	EventReleased = "Released"
)

const (
	// Finalizer keeps a deleted object until its image is proven gone or is to stay.
	Finalizer = "ecs.imagegc.io/delete-image"

	// AnnotationRetryAt makes the operator ask ECS now, whenever its value changes.
	AnnotationRetryAt = "ecs.imagegc.io/retry-at"

	// AnnotationRelease lets a deleted object go and leaves its image, if the value is the object's imageID.
	AnnotationRelease = "ecs.imagegc.io/release"

	// AnnotationProtected keeps an object from being deleted, and its image with it, while its value is "true".
	AnnotationProtected = "ecs.imagegc.io/protected"

	// AnnotationOnNamespaceDeletion of a namespace has the deletion of that namespace delete its images, if the
	// value is "Delete". With any other, and without it, they stay.
	AnnotationOnNamespaceDeletion = "ecs.imagegc.io/on-namespace-deletion"
)
