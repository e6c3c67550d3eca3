// Package decision decides what happens to a CustomImage: whether its image may be deleted, whether the object is
// released, held, or has to wait. Decide is a pure function from facts to a verdict. The package reads nothing, writes
// nothing, has no clock, and imports no client; what an error code means is in its one table (obstacles.go).
package decision

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// Facts are all that a decision about one object rests on.
type Facts struct {
	Now time.Time
	// Image is the object.
	Image *v1alpha1.CustomImage
	// Absent means that the object does not exist any more, or another one has its name.
	Absent bool
	// Wait is how long the schedule has the object wait for its next attempt; Waited is how long it has waited for a quota.
	Wait, Waited time.Duration
	// CRD and Namespace are what the object is deleted together with; nil if they do not exist.
	CRD, Namespace *metav1.PartialObjectMetadata
	// Rivals are the other objects for the same image.
	Rivals []*v1alpha1.CustomImage
	// Operator names the operator's identity in the cluster, as a flag of kubectl.
	Operator string

	// Account is the one that the access key belongs to; "" until the key is found.
	Account string
	// Shown is what ECS shows in this attempt; nil before the first look.
	Shown *Showing
	// Unshown means that the last look of an earlier attempt did not show the image, if the status could not be told.
	Unshown bool
	// Call is what became of DeleteImage in this attempt.
	Call Call
	// Accepted is when ECS accepted the deletion, if the status does not say it yet; Unconfirmed is when a call of
	// DeleteImage got no usable answer, and may have been accepted.
	Accepted, Unconfirmed time.Time
	// Failure is what kept the attempt from the next fact or step.
	Failure *failure.Error
	// Blockers names the instances or accounts that block the deletion, as a sentence.
	Blockers string
	// Unnamed means that the blockers could not be listed, for no reason that lasts.
	Unnamed bool
}

// Showing is an answer of DescribeImages.
type Showing struct {
	Image *ecs.Image // nil if it shows no such image
	At    time.Time  // when ECS was asked
}

// Call is the state of DeleteImage in one attempt.
type Call int

// The states of DeleteImage.
const (
	NotCalled Call = iota
	Accepted       // ECS accepted the deletion
	NotThere       // ECS answered that there is no such image
	Refused        // ECS, or the way to it, answered anything else
)

// AcceptedAt returns when ECS accepted the deletion; zero if it did not. An acceptance from before the deletion of the
// object is that of another life, such as the one before a restore.
func (f Facts) AcceptedAt() time.Time {
	deleted, earlier := f.Image.DeletionTimestamp, f.Image.Status.DeletionAcceptedTime
	switch {
	case deleted == nil || f.Call == Refused:
		return time.Time{}
	case earlier != nil && !earlier.Add(clockSkew).Before(deleted.Time):
		return earlier.Time
	case f.Call == Accepted && f.Now.Add(clockSkew).Before(deleted.Time): // by a clock that is behind
		return deleted.Time
	case f.Call == Accepted:
		return f.Now
	}
	return f.Accepted
}

// AccountOf returns the account whose image the object stands for, as far as it is known without the access key.
func AccountOf(f Facts) string { return cmp.Or(seenAs(f.Image).OwnerID, f.Image.Spec.AccountID) }

// CallsDeleteImage reports whether DeleteImage is what ECS will be asked first; else that is a look at the image.
func CallsDeleteImage(f Facts) bool {
	return !f.Image.DeletionTimestamp.IsZero() && f.isSeen() && f.AcceptedAt().IsZero()
}

// isLookedAt reports whether ECS was asked, and isShown whether it shows the image.
func (f Facts) isLookedAt() bool { return f.Shown != nil }
func (f Facts) isShown() bool    { return f.Shown != nil && f.Shown.Image != nil }

// Retains reports whether the deletion of an object keeps its image. A policy that the operator does not know keeps it
// too.
func Retains(image *v1alpha1.CustomImage) bool {
	return cmp.Or(image.Spec.DeletionPolicy, v1alpha1.DeletionPolicyDelete) != v1alpha1.DeletionPolicyDelete
}

// IsProtected reports whether an annotation protects the object. Every value does but the empty one and "false".
func IsProtected(image *v1alpha1.CustomImage) bool {
	return !slices.Contains([]string{"", "false"}, image.Annotations[v1alpha1.AnnotationProtected])
}

// keeps reports whether an object keeps its image, whatever else is deleted.
func keeps(image *v1alpha1.CustomImage) bool { return Retains(image) || IsProtected(image) }

// isSeen reports whether ECS showed the image at the last look of all, whether or not the status says so.
func (f Facts) isSeen() bool { return isSeen(f.Image) && !f.Unshown }

// isSeen reports whether ECS showed the image at the last look that the status tells of, in an account that is known.
func isSeen(image *v1alpha1.CustomImage) bool {
	return image.Status.MissingSince == nil && seenAs(image).OwnerID != ""
}

// seenAs returns the image as it was seen; empty if it was not.
func seenAs(image *v1alpha1.CustomImage) v1alpha1.ImageStatus {
	if image.Status.Image == nil {
		return v1alpha1.ImageStatus{}
	}
	return *image.Status.Image
}

// ObstacleOf returns the obstacle that is True or, if none is, one that is Unknown; nil if there is none.
func ObstacleOf(image *v1alpha1.CustomImage) *metav1.Condition {
	var unknown *metav1.Condition
	for i := range image.Status.Conditions {
		switch c := &image.Status.Conditions[i]; {
		case !slices.Contains(v1alpha1.Obstacles, c.Type):
		case c.Status == metav1.ConditionTrue:
			return c
		case c.Status == metav1.ConditionUnknown:
			unknown = c
		}
	}
	return unknown
}

// IsEnding reports whether an object is being deleted or does not exist any more.
func IsEnding(of *metav1.PartialObjectMetadata) bool {
	return of == nil || !of.DeletionTimestamp.IsZero()
}

// RetryAt returns the value of the retry annotation, as far as the status can hold it.
func RetryAt(image *v1alpha1.CustomImage) string {
	return Clip(image.Annotations[v1alpha1.AnnotationRetryAt], 256)
}
