package customimage

import (
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

// Backoff is a schedule of attempts: the waits between them double from First to Longest. As a flag it is
// written "5s,5m".
type Backoff struct{ First, Longest time.Duration }

var (
	// DefaultWaiting is the backoff while ECS works on an image, unless a flag sets another.
	DefaultWaiting = Backoff{5 * time.Second, 5 * time.Minute}
	// DefaultBlocked is the backoff while a user has to act, unless a flag sets another.
	DefaultBlocked = Backoff{30 * time.Second, 10 * time.Minute}
	// Failing is the backoff of attempts that end with an error.
	Failing = Backoff{time.Second, 5 * time.Minute}
)

// String returns the backoff as it is written in a flag.
func (b Backoff) String() string { return b.First.String() + "," + b.Longest.String() }

// Set reads the backoff from a flag.
func (b *Backoff) Set(text string) error {
	first, longest, _ := strings.Cut(text, ",")
	f, errFirst := time.ParseDuration(first)
	l, errLongest := time.ParseDuration(longest)
	if errors.Join(errFirst, errLongest) != nil || f <= 0 || l < f {
		return errors.New("want the first and the longest wait, such as 5s,5m")
	}
	b.First, b.Longest = f, l
	return nil
}

// next returns the first time after now at which an attempt is due, in the series that began at start. It is
// computed from these alone, so it survives a restart. Each attempt is early by up to half its wait, by a part that
// depends on the object: objects that got stuck together do not come back together.
func (b Backoff) next(start, now time.Time, uid types.UID) time.Time {
	if start.After(now) { // by the clock of another node
		start = now
	}
	early := fraction(uid) / 2
	wait := b.First
	for nominal := start.Add(wait); ; nominal = nominal.Add(wait) {
		at := nominal.Add(-time.Duration(early * float64(wait)))
		if at.After(now) {
			return at
		}
		if wait == b.Longest {
			return at.Add((now.Sub(at)/wait + 1) * wait)
		}
		wait = min(2*wait, b.Longest)
	}
}

// fraction maps an object to a number from 0 to 1, always the same one.
func fraction(uid types.UID) float64 {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(uid))
	return float64(hash.Sum32()) / (1 << 32)
}

// schedule knows when each object is due next: by its status, which survives a restart, and by what only this process
// knows, such as a quota that is used up.
type schedule struct {
	// waiting is for obstacles that end without help, blocked for those that a user has to clear, resync for live
	// objects without any.
	waiting, blocked Backoff
	resync           time.Duration
	clock            clock.PassiveClock

	mu    sync.Mutex
	known map[types.NamespacedName]due
}

// due is what this process remembers of one object.
type due struct {
	uid            types.UID
	next           time.Time // zero if it is not planned yet
	imposed        bool      // next follows from a quota or from a failure, and not from the status
	throttledSince time.Time
	behind         time.Time // when the clock was first seen to be behind the status

	// What the status could not be told of DeleteImage: when it was accepted, and when it got no usable answer.
	accepted, unconfirmed time.Time
	// unshown means that the last look did not show the image, and the status does not say that.
	unshown bool
}

// until returns how long to wait before an object may be attempted again. Only a change of the spec (a deletion counts
// as one) and a new value of the retry annotation make it due early, and the start of an operator if the last one had no
// identity for it. A deleted object that does not wait for ECS is always due.
func (s *schedule) until(image *v1alpha1.CustomImage) time.Duration {
	status := image.Status
	if ptr.Deref(status.ObservedGeneration, -1) != image.Generation || status.LastHandledRetryAt != decision.RetryAt(image) {
		return 0
	}
	planned, free := s.fromStatus(image), !waitsForECS(image)
	var wait time.Duration
	s.remember(image, func(d *due) {
		if !d.imposed {
			if free || d.next.IsZero() && hadNoIdentity(image) {
				return
			}
			d.next = earliest(d.next, planned) // what is remembered is later if the clock was set back since
		}
		wait = max(0, d.next.Sub(s.clock.Now()))
	})
	return wait
}

// waitsForECS reports whether only an answer of ECS can change what an object waits for: not if Ready says something
// else than the obstacle, because the object itself holds the deletion.
func waitsForECS(image *v1alpha1.CustomImage) bool {
	status := image.Status
	if image.DeletionTimestamp.IsZero() || status.DeletionAcceptedTime != nil || status.MissingSince != nil {
		return true
	}
	obstacle, ready := decision.ObstacleOf(image), meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	return obstacle != nil && ready != nil && obstacle.Message == ready.Message
}

// hadNoIdentity reports whether an object waits for the operator to have an identity, and to be allowed to use it. Most
// often, that changes when an operator starts.
func hadNoIdentity(image *v1alpha1.CustomImage) bool {
	obstacle := decision.ObstacleOf(image)
	return obstacle != nil && (obstacle.Reason == v1alpha1.ReasonNoCredentials || obstacle.Reason == v1alpha1.ReasonAmbientForbidden)
}

// found returns what only this process knows of the calls: when DeleteImage was accepted, when it got no usable answer, and
// whether the last look did not show the image.
func (s *schedule) found(image *v1alpha1.CustomImage) (accepted, unconfirmed time.Time, unshown bool) {
	s.remember(image, func(d *due) { accepted, unconfirmed, unshown = d.accepted, d.unconfirmed, d.unshown })
	return accepted, unconfirmed, unshown
}

// earliest returns the earlier of two times; a zero one does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// plan computes the next attempt after a report, and returns how long it is until then.
func (s *schedule) plan(image *v1alpha1.CustomImage) time.Duration {
	next := s.fromStatus(image)
	s.remember(image, func(d *due) { d.next, d.imposed, d.throttledSince = next, false, time.Time{} })
	// 0 would mean never, and time passes between two looks at the clock.
	return max(next.Sub(s.clock.Now()), time.Millisecond)
}

// throttled plans the next attempt for the turn that the object has in the quota, so long from now. It returns how long
// the object will have waited.
func (s *schedule) throttled(image *v1alpha1.CustomImage, wait time.Duration) (waited time.Duration) {
	now := s.clock.Now()
	s.remember(image, func(d *due) {
		if d.throttledSince.IsZero() {
			d.throttledSince = now
		}
		d.next, d.imposed = now.Add(wait), true
		waited = d.next.Sub(d.throttledSince)
	})
	return waited
}

// waited returns how long an object has waited for a quota.
func (s *schedule) waited(image *v1alpha1.CustomImage) (waited time.Duration) {
	s.remember(image, func(d *due) {
		if !d.throttledSince.IsZero() {
			waited = max(0, s.clock.Since(d.throttledSince))
		}
	})
	return waited
}

// failed leaves the next attempt to the work queue.
func (s *schedule) failed(image *v1alpha1.CustomImage) {
	s.remember(image, func(d *due) { d.next, d.imposed, d.throttledSince = s.clock.Now(), true, time.Time{} })
}

// fromStatus computes the next attempt from the status.
func (s *schedule) fromStatus(image *v1alpha1.CustomImage) time.Time {
	now := s.clock.Now()
	backoff, start := s.series(image)
	if start.After(now) { // the clock was set back: one series from then on, and not the first wait again and again
		s.remember(image, func(d *due) {
			if d.behind.IsZero() || d.behind.After(now) {
				d.behind = now
			}
			start = d.behind
		})
	}
	next := backoff.next(start, now, image.UID)
	switch end := deadline(image); {
	case !end.After(now):
		return next
	case image.Status.DeletionAcceptedTime == nil: // an earlier look would not count
		return end
	default:
		return earliest(next, end)
	}
}

// deadline returns when the status leads to another decision although ECS says nothing new; zero if it does not.
func deadline(image *v1alpha1.CustomImage) time.Time {
	accepted, missing := image.Status.DeletionAcceptedTime, image.Status.MissingSince
	switch {
	case image.DeletionTimestamp.IsZero():
		return time.Time{}
	case accepted != nil:
		return accepted.Add(decision.Patience)
	case missing != nil:
		return missing.Add(decision.Agreement)
	}
	return time.Time{}
}

// series returns the series of attempts that the status is part of.
func (s *schedule) series(image *v1alpha1.CustomImage) (Backoff, time.Time) {
	status := image.Status
	stalled := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionStalled)
	since := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReconciling)
	backoff := s.waiting
	if stalled != nil {
		backoff, since = s.blocked, stalled
	}
	if since == nil {
		return Backoff{s.resync, s.resync}, ptr.Deref(status.LastSyncTime, image.CreationTimestamp).Time
	}
	if obstacle := decision.ObstacleOf(image); obstacle != nil {
		since = obstacle
	}
	if stalled == nil && status.DeletionAcceptedTime != nil {
		return backoff, status.DeletionAcceptedTime.Time
	}
	return backoff, since.LastTransitionTime.Time
}

// remember changes what is remembered of an object.
func (s *schedule) remember(image *v1alpha1.CustomImage, change func(*due)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := client.ObjectKeyFromObject(image)
	known := s.known[key]
	if known.uid != image.UID {
		known = due{uid: image.UID}
	}
	change(&known)
	known.uid = image.UID
	s.known[key] = known
}

// forget drops an object that is gone.
func (s *schedule) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, key)
}

// failureLimiter spaces attempts that end with an error, by the backoff Failing and with jitter.
type failureLimiter struct {
	workqueue.TypedRateLimiter[reconcile.Request]
}

func newFailureLimiter() failureLimiter {
	return failureLimiter{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](Failing.First, Failing.Longest)}
}

// When returns the next wait, shortened by up to a quarter.
func (l failureLimiter) When(request reconcile.Request) time.Duration {
	wait := l.TypedRateLimiter.When(request)
	return wait - time.Duration(rand.Float64()*float64(wait)/4) // #nosec G404: jitter is no secret
}
