package decision

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// A Verdict is what Decide concludes from the facts: one of the types below.
type Verdict interface{ isVerdict() }

// The verdicts that require another fact, or another step, before the next decision.
type (
	// FindKey requires the access key of the object, and its account.
	FindKey struct{}
	// Look requires what ECS shows now.
	Look struct{}
	// Note requires that the status records the image before it is deleted: the end can then tell a deletion from an
	// image that never existed, also after a crash.
	Note struct{ Report }
	// DeleteImage requires a call of DeleteImage.
	DeleteImage struct{}
)

// The verdicts that end an attempt.
type (
	// Nothing means that the object is not, or no longer, the operator's business.
	Nothing struct{}
	// WaitFor means that the next attempt is not due yet. The status is not changed.
	WaitFor time.Duration
	// LetGo removes the finalizer, and announces it with an event.
	LetGo struct{ Event, Message string }
	// Report tells the user in the status how things stand.
	Report struct {
		Summary  string         // ConditionReconciling or ConditionStalled; "" if the object is Ready
		Reason   string         // of Ready, of Summary and of the obstacle
		Message  string         // likewise
		Page     string         // in docs/reasons; "" if there is nothing to understand or to do
		Obstacle string         // the condition that becomes True; "" for none
		Others   Fate           // what becomes of the other obstacles
		Err      *failure.Error // behind the obstacle
		Owner    *v1alpha1.OwnerReference
		Keep     bool // the message of the obstacle is kept if it is True already with the same reason
	}
	// Retry reports from the second attempt on, and tries again: when the quota is renewed if the call was throttled,
	// else with the backoff of the work queue.
	Retry struct {
		Report
		Throttled bool
	}
)

func (FindKey) isVerdict()     {}
func (Look) isVerdict()        {}
func (Note) isVerdict()        {}
func (DeleteImage) isVerdict() {}
func (Nothing) isVerdict()     {}
func (WaitFor) isVerdict()     {}
func (LetGo) isVerdict()       {}
func (Report) isVerdict()      {}
func (Retry) isVerdict()       {}

// Fate is what becomes of an obstacle that was True or Unknown when another report is made.
type Fate int

// The fates of an obstacle.
const (
	Kept       Fate = iota // ECS was not asked, because the object itself ends the attempt
	Unobserved             // ECS could not be asked: Unknown
	Cleared                // ECS answered, and does not report it: False
)

// EventType returns Warning if a user should look at the object.
func (r Report) EventType() string {
	if r.Summary == v1alpha1.ConditionStalled || r.Others == Unobserved {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// EventType returns Warning if no image was seen to be deleted or kept.
func (l LetGo) EventType() string {
	if l.Event == v1alpha1.EventNotFound || l.Event == v1alpha1.EventDeletionAccepted {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}

// Clip cuts a text to so many bytes, which the API allows for it.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
