package v1alpha1

// The reasons that are not ECS error codes.
const (
	// ReasonAvailable is the reason of Ready=True: ECS shows the image.
	ReasonAvailable = "Available"
	// ReasonCleared is the reason of an obstacle that ECS no longer reports.
	ReasonCleared = "Cleared"
	// ReasonNotObserved is the reason of an obstacle that was True when ECS could be asked last.
	ReasonNotObserved = "NotObserved"
	// ReasonPending means that the object waits for its first check in ECS, or for finalizers of others.
	ReasonPending = "Pending"
	// ReasonDeleting means that ECS accepted the deletion and still shows the image.
	ReasonDeleting = "Deleting"
	// ReasonRetrying means that ECS could not be reached or gave no usable answer, and the operator retries.
	ReasonRetrying = "Retrying"
	// ReasonThrottled means that the request quota is used up, and the operator retries when it is renewed.
	ReasonThrottled = "Throttled"
	// ReasonInvalidRelease means that AnnotationRelease names another image than the object does. Nothing is
	// deleted until that is fixed: a user wanted to keep an image.
	ReasonInvalidRelease = "InvalidRelease"
	// ReasonProtected means that the object is being deleted although AnnotationProtected protects it. Nothing is
	// deleted until the annotation is removed.
	ReasonProtected = "Protected"
	// ReasonConflict means that another CustomImage has a say in the same image. A live object reports it if an
	// older CustomImage owns the image: deleting the object does not delete the image. A deleted object reports it
	// if another CustomImage keeps the image by its deletionPolicy Retain or by AnnotationProtected.
	ReasonConflict = "Conflict"
	// ReasonAccountMismatch means that the access key belongs to another account than the image. ECS is not called
	// until that is fixed, because "not found" would mean nothing.
	ReasonAccountMismatch = "AccountMismatch"
	// ReasonInvalidSpec means that the spec names no image, or another image than the one that the object has seen.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonNoCredentials means that there is no access key: the object names no Secret, and the operator has no
	// identity of its own.
	ReasonNoCredentials = "NoCredentials"
	// ReasonAmbientForbidden means that the namespace of the object may not use the operator's own identity.
	ReasonAmbientForbidden = "AmbientForbidden"
	// ReasonSecretNotFound means that the Secret that the object names does not exist.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretForbidden means that the operator may not read the Secret that the object names.
	ReasonSecretForbidden = "SecretForbidden"
	// ReasonSecretInvalid means that the Secret that the object names lacks a key, or has keys that contradict
	// each other.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonClusterForbidden means that the operator lacks a permission in the cluster.
	ReasonClusterForbidden = "ClusterForbidden"
	// ReasonClusterRejected means that the API server, a policy or a webhook rejects the operator's request for
	// another reason than a missing permission.
	ReasonClusterRejected = "ClusterRejected"
)

// The reasons of the events that say how an object ended.
const (
	// EventDeleted means that the image was seen, the operator called DeleteImage, and the image is gone.
	EventDeleted = "Deleted"
	// EventNotFound warns that the object is gone although no image was deleted: ECS showed none.
	EventNotFound = "NotFound"
	// EventRetained means that the object is gone and the operator left the image as it is: because of its
	// deletionPolicy, because the namespace or the CustomResourceDefinition is being deleted, or because another
	// object owns the image.
	EventRetained = "Retained"
	// EventReleased means that the object is gone and the operator left the image as it is, as AnnotationRelease
	// requests.
	EventReleased = "Released"
	// EventDeletionAccepted warns that the object is gone after ECS accepted the deletion of its image, and that
	// ECS was not seen to finish it. It takes the place of EventRetained and EventReleased, which come too late then.
	EventDeletionAccepted = "DeletionAccepted"
)
