package v1alpha1

// The conditions that sum up. Ready is always present. Reconciling and Stalled follow kstatus: they are present
// only while they are True, and never both.
const (
	// ConditionReady is True while ECS shows the image and nothing blocks this object. While it is False it
	// repeats reason and message of what blocks it. It is Unknown until the first check in ECS.
	ConditionReady = "Ready"

	// ConditionReconciling means that the operator continues without help.
	ConditionReconciling = "Reconciling"

	// ConditionStalled means that a user has to act. The operator still checks again, at growing intervals: no
	// event tells it when, for example, the instances that use an image are released.
	ConditionStalled = "Stalled"
)

// The obstacles: one condition for each documented error. At most one is True, while ECS reports that error. It
// becomes False with ReasonCleared when ECS reports otherwise, and Unknown with ReasonNotObserved while ECS cannot be
// asked. Its reason is the ECS error code without its dots.
const (
	// ConditionInUse means that instances use the image.
	ConditionInUse = "InUse"
	// ConditionShared means that the image is shared with other accounts.
	ConditionShared = "Shared"
	// ConditionPublic means that the image is public.
	ConditionPublic = "Public"
	// ConditionCopying means that the image is being copied.
	ConditionCopying = "Copying"
	// ConditionImporting means that the image is being imported.
	ConditionImporting = "Importing"
	// ConditionExporting means that the image is being exported.
	ConditionExporting = "Exporting"
	// ConditionCreating means that the image is still being created.
	ConditionCreating = "Creating"
	// ConditionNotFound means that ECS shows no such image in the region and account of the object: the image was
	// deleted elsewhere, or is not visible to the access key.
	ConditionNotFound = "NotFound"
	// ConditionDenied means that there is no access key, or that ECS refuses the key, its signature or its
	// permissions.
	ConditionDenied = "Denied"
	// ConditionInvalid means that the request is invalid, for example because the region does not exist.
	ConditionInvalid = "Invalid"
)

// Obstacles lists the conditions of which at most one is True.
var Obstacles = []string{
	ConditionInUse, ConditionShared, ConditionPublic,
	ConditionCopying, ConditionImporting, ConditionExporting, ConditionCreating,
	ConditionNotFound, ConditionDenied, ConditionInvalid,
}
