package v1alpha1

const (
	// Finalizer keeps a deleted object until its image is proven gone or is not to be deleted.
	Finalizer = "ecs.imagegc.io/delete-image"

	// AnnotationRetryAt makes the operator call ECS now, whenever its value changes.
	AnnotationRetryAt = "ecs.imagegc.io/retry-at"

	// AnnotationRelease removes the finalizer of a deleted object and keeps its image, if the value is the object's
	// imageID.
	AnnotationRelease = "ecs.imagegc.io/release"

	// AnnotationProtected keeps an object, and its image, from being deleted. Every value protects but the empty
	// one and "false".
	AnnotationProtected = "ecs.imagegc.io/protected"

	// AnnotationOnNamespaceDeletion of a namespace makes the deletion of that namespace delete its images, if the
	// value is "Delete". With any other, and without it, they are kept.
	AnnotationOnNamespaceDeletion = "ecs.imagegc.io/on-namespace-deletion"
)
