package controller

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// Backoff is a schedule of attempts: the waits between them double from First to Longest. As a flag it is
// written "5s,5m".
type Backoff struct{ First, Longest time.Duration }

// String returns the backoff as it is written in a flag.
func (b Backoff) String() string { return b.First.String() + "," + b.Longest.String() }

// Set reads the backoff from a flag.
func (b *Backoff) Set(text string) error {
	first, longest, ok := strings.Cut(text, ",")
	f, errFirst := time.ParseDuration(first)
	l, errLongest := time.ParseDuration(longest)
	if !ok || errFirst != nil || errLongest != nil || f <= 0 || l < f {
		return fmt.Errorf("want the first and the longest wait, such as 5s,5m")
	}
	b.First, b.Longest = f, l
	return nil
}

// next returns the first time after now at which an attempt is due, in the series that began at start. It is
// computed from these alone, so it survives a restart, and nobody counts. Each attempt is early by up to half
// its wait, by a part that depends on the object: objects that got stuck together do not come back together.
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

// nextAttempt returns when an object is due next by what its status says.
func (r *CustomImageReconciler) nextAttempt(image *v1alpha1.CustomImage) time.Time {
	conditions, now := image.Status.Conditions, r.Clock.Now()
	stalled := meta.FindStatusCondition(conditions, v1alpha1.ConditionStalled)
	going := meta.FindStatusCondition(conditions, v1alpha1.ConditionReconciling)
	if stalled == nil && going == nil {
		resync := Backoff{r.Resync, r.Resync}
		return resync.next(ptr.Deref(image.Status.LastSyncTime, image.CreationTimestamp).Time, now, image.UID)
	}
	backoff, since := r.Waiting, going
	if stalled != nil {
		backoff, since = r.Blocked, stalled
	}
	for _, obstacle := range v1alpha1.Obstacles {
		if meta.IsStatusConditionTrue(conditions, obstacle) {
			since = meta.FindStatusCondition(conditions, obstacle)
		}
	}
	return backoff.next(since.LastTransitionTime.Time, now, image.UID)
}

// untilDue returns how long to wait before ECS is asked about an object again. Only a change of the spec (a
// deletion counts as one) and a new value of the retry annotation make it due early. An object that is held by
// itself, and not by ECS, is always due.
func (r *CustomImageReconciler) untilDue(image *v1alpha1.CustomImage) time.Duration {
	status := image.Status
	heldBy := []string{v1alpha1.ReasonPending, v1alpha1.ReasonInvalidRelease, v1alpha1.ReasonProtected}
	if ptr.Deref(status.ObservedGeneration, -1) != image.Generation ||
		status.LastHandledRetryAt != retryAt(image) ||
		slices.Contains(heldBy, readyReason(image)) {
		return 0
	}
	known := r.attempts.get(image)
	// What is remembered is later than what is computed if the clock was set back since.
	if next := r.nextAttempt(image); known.next.IsZero() || known.throttledSince.IsZero() && known.next.After(next) {
		known.next = next
		r.attempts.set(image, known)
	}
	return max(0, known.next.Sub(r.Clock.Now()))
}

// retryAt returns the value of the retry annotation, as far as the status can hold it.
func retryAt(image *v1alpha1.CustomImage) string {
	return clip(image.Annotations[v1alpha1.AnnotationRetryAt], 256)
}

// attempts remembers when each object is due next. After a restart it is empty, and the schedule fills it.
type attempts struct {
	mu    sync.Mutex
	known map[types.NamespacedName]due
}

type due struct {
	uid            types.UID
	next           time.Time
	throttledSince time.Time
}

func (a *attempts) get(image *v1alpha1.CustomImage) due {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[client.ObjectKeyFromObject(image)]; known.uid == image.UID {
		return known
	}
	return due{}
}

func (a *attempts) set(image *v1alpha1.CustomImage, known due) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = map[types.NamespacedName]due{}
	}
	known.uid = image.UID
	a.known[client.ObjectKeyFromObject(image)] = known
}

func (a *attempts) forget(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.known, key)
}

// failureLimiter spaces attempts that end with an error: 1 s, doubling to 5 min, jittered.
type failureLimiter struct {
	workqueue.TypedRateLimiter[reconcile.Request]
}

func newFailureLimiter() failureLimiter {
	return failureLimiter{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, 5*time.Minute)}
}

// When returns the next wait, shortened by up to a quarter.
func (l failureLimiter) When(request reconcile.Request) time.Duration {
	wait := l.TypedRateLimiter.When(request)
	return wait - time.Duration(rand.Float64()*float64(wait)/4) // #nosec G404: jitter is no secret
}
