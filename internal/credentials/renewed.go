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

// pause is how long after a failure the next renewal is tried. Until then all get the same answer.
const pause = 10 * time.Second

// temporary is an access key that ends.
type temporary struct {
	openapi.Credentials
	ends time.Time
}

// renewed is an identity with temporary keys. One renewal runs at a time, and all who need its result share it. As
// long as the last key is valid, nobody waits for a new one, and nobody minds that there is none yet.
type renewed struct {
	renew func(ctx context.Context, regionID string) (temporary, error)
	clock clock.PassiveClock

	running singleflight.Group
	mu      sync.Mutex
	key     temporary
	failed  error     // of the last renewal
	next    time.Time // when a renewal is due
}

func (r *renewed) credentials(ctx context.Context, regionID string) (openapi.Credentials, error) {
	now := r.clock.Now()
	key, due, failed := r.state(now)
	if due {
		renewal := r.running.DoChan("", func() (any, error) {
			r.renewNow(context.WithoutCancel(ctx), regionID)
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
		return key.Credentials, nil
	}
	return openapi.Credentials{}, failed
}

func (r *renewed) state(now time.Time) (key temporary, due bool, failed error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.key, !now.Before(r.next), r.failed
}

func (r *renewed) renewNow(ctx context.Context, regionID string) {
	if _, due, _ := r.state(r.clock.Now()); !due {
		return // somebody was faster
	}
	key, err := r.renew(ctx, regionID)
	r.mu.Lock()
	defer r.mu.Unlock()
	// A node that was suspended has its wall clock alone move on, and that is what the end of a key is told by.
	now := r.clock.Now().Round(0)
	if err == nil && !now.Before(key.ends) {
		err = refuse(failure.CodeUnusableAnswer, "The new access key has ended already: check the clock of the node.")
	}
	r.failed = err
	if err == nil {
		r.key, r.next = key, now.Add(key.ends.Sub(now)*2/3) // well before its end, to have time for failures
		return
	}
	r.next = r.clock.Now().Add(pause) // a clock that is set right meanwhile must not make it days
	if now.Before(r.key.ends) {
		log.FromContext(ctx).Error(err, "Could not renew an access key that is still valid", "validUntil", r.key.ends)
	}
}
