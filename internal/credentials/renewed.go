package credentials

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// pause is the time between a failed renewal and the next. Until then all callers get the same error.
const pause = 10 * time.Second

// temporary is an access key that expires.
type temporary struct {
	credentials openapi.Credentials
	ends        time.Time
}

// renewed is an identity with temporary keys. One renewal runs at a time, and all callers share its result. As long
// as the last key is valid, callers get it at once, even if a renewal fails.
type renewed struct {
	renew func(ctx context.Context) (temporary, error)
	clock clock.PassiveClock

	running singleflight.Group
	mu      sync.Mutex
	key     temporary
	failed  error     // of the last renewal
	next    time.Time // when a renewal is due
}

func (r *renewed) credentials(ctx context.Context) (openapi.Credentials, error) {
	now := r.clock.Now()
	key, due, failed := r.state(now)
	if due {
		renewal := r.running.DoChan("", func() (any, error) {
			r.renewNow(context.WithoutCancel(ctx))
			return nil, nil
		})
		if !now.Before(key.ends) {
			select {
			case <-ctx.Done():
				return openapi.Credentials{}, ctx.Err()
			case <-renewal:
				key, _, failed = r.state(now)
			}
		}
	}
	if now.Before(key.ends) {
		return key.credentials, nil
	}
	return openapi.Credentials{}, failed
}

func (r *renewed) state(now time.Time) (key temporary, due bool, failed error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.key, !now.Before(r.next), r.failed
}

func (r *renewed) renewNow(ctx context.Context) {
	if _, due, _ := r.state(r.clock.Now()); !due {
		return // another caller has renewed it
	}
	key, err := r.renew(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	// While a node is suspended, only its wall clock moves on, and a key expires by the wall clock.
	now := r.clock.Now().Round(0)
	if err == nil && !now.Before(key.ends) {
		err = refuse(failure.CodeUnusableAnswer, "The new access key has expired already: check the clock of the node.")
	}
	r.failed = err
	if err == nil {
		r.key, r.next = key, now.Add(key.ends.Sub(now)*2/3) // well before its end, to have time for failures
		return
	}
	r.next = r.clock.Now().Add(pause) // by the monotonic clock: setting the wall clock must not make it days
	if now.Before(r.key.ends) {
		log.FromContext(ctx).Error(err, "Could not renew an access key that is still valid", "validUntil", r.key.ends)
	}
}
