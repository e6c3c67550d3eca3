package credentials

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// pause is how long after a failure the next renewal is tried. Until then all get the same answer.
const pause = 10 * time.Second

// temporary is an access key that ends.
type temporary struct {
	openapi.Credentials
	issued, ends time.Time
}

// due is when a new key should be fetched: well before the end of this one, to have time for failures.
func (t temporary) due() time.Time { return t.issued.Add(t.ends.Sub(t.issued) * 2 / 3) }

// renewed is an identity with temporary keys. One renewal runs at a time, and all who need its result share it. As
// long as the last key is valid, nobody waits for a new one, and nobody minds that there is none yet.
type renewed struct {
	renew func(ctx context.Context, regionID string) (temporary, error)
	clock clock.PassiveClock

	running singleflight.Group
	mu      sync.Mutex
	key     temporary
	failed  error // of the last renewal
	next    time.Time
}

func (r *renewed) credentials(ctx context.Context, regionID string) (openapi.Credentials, error) {
	now := r.clock.Now()
	key, paused, failed := r.state(now)
	if !paused && !now.Before(key.due()) {
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

func (r *renewed) state(now time.Time) (key temporary, paused bool, failed error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.key, r.failed != nil && now.Before(r.next), r.failed
}

func (r *renewed) renewNow(ctx context.Context, regionID string) {
	if key, _, _ := r.state(r.clock.Now()); r.clock.Now().Before(key.due()) {
		return // somebody was faster
	}
	key, err := r.renew(ctx, regionID)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	if err == nil && !now.Before(key.ends) {
		err = refuse(openapi.CodeUnusableAnswer, "The new access key has ended already: check the clock of the node.")
	}
	// A node that was suspended has its wall clock alone move on, and that is what the end of a key is told by.
	r.failed, r.next, key.issued = err, now.Add(pause), now.Round(0)
	if err == nil {
		r.key = key
	} else if now.Before(r.key.ends) {
		log.FromContext(ctx).Error(err, "Could not renew an access key that is still valid", "validUntil", r.key.ends)
	}
}
