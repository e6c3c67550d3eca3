package customimage

import (
	"strings"
	"time"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// A verdict is what decide concludes from the facts: one of the types below.
type verdict interface{ isVerdict() }

// The verdicts that require another fact, or another step, before the next decision.
type (
	// findKey requires the access key of the object, and its account.
	findKey struct{}
	// look requires what ECS shows now.
	look struct{}
	// note requires that the status records the image before it is deleted: the end can then tell a deletion from
	// an image that never existed, also after a crash.
	note struct{ report }
	// deleteImage calls DeleteImage.
	deleteImage struct{}
)

// The verdicts that end an attempt.
type (
	// nothing means that the object is not, or no longer, the operator's business.
	nothing struct{}
	// waitFor means that the next attempt is not due yet. The status stays as it is.
	waitFor time.Duration
	// letGo removes the finalizer, and announces it with an event.
	letGo struct{ event, message string }
	// report tells the user in the status how things stand.
	report struct {
		summary  string         // ConditionReconciling or ConditionStalled; "" if the object is Ready
		reason   string         // of Ready, of summary and of the obstacle
		message  string         // likewise
		page     string         // in docs/reasons; "" if there is nothing to understand or to do
		obstacle string         // the condition that becomes True; "" for none
		others   fate           // what becomes of the other obstacles
		err      *failure.Error // behind the obstacle
		owner    *v1alpha1.OwnerReference
		keep     bool // the message of the obstacle stays if it is True already with the same reason
	}
	// retry reports from the second attempt on, and tries again: when the quota is renewed if the call was throttled,
	// else with the backoff of the work queue.
	retry struct {
		report
		throttled bool
	}
)

func (findKey) isVerdict()     {}
func (look) isVerdict()        {}
func (note) isVerdict()        {}
func (deleteImage) isVerdict() {}
func (nothing) isVerdict()     {}
func (waitFor) isVerdict()     {}
func (letGo) isVerdict()       {}
func (report) isVerdict()      {}
func (retry) isVerdict()       {}

// fate is what becomes of an obstacle that was True, or was not observed, when another report is made.
type fate int

const (
	kept       fate = iota // ECS was not asked, because the object itself ends the attempt
	unobserved             // ECS could not be asked: Unknown
	cleared                // ECS answered, and does not report it: False
)

// clip cuts a text to so many bytes, which the API allows for it.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}
