package openapi

import (
	"strings"
	"sync"
	"time"
)

// quota is what Alibaba Cloud counts calls by: the account (of which a key is the nearest that is known here),
// the region and the action.
type quota struct{ accessKeyID, region, product, action string }

// gate keeps calls back whose quota is known to be used up, so that a thousand callers learn it from one
// answer. The zero gate is open.
type gate struct {
	mu    sync.Mutex
	opens map[quota]time.Time
}

// closedFor returns how long the gate stays closed, 0 if it is open.
func (g *gate) closedFor(q quota, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.opens[q].Sub(now))
}

// close keeps the gate closed for the given wait, or, if that is 0, until the next minute begins: quotas are
// counted over fixed windows. It returns how long it is closed now.
func (g *gate) close(q quota, now time.Time, wait time.Duration) time.Duration {
	if wait <= 0 {
		wait = now.Truncate(time.Minute).Add(time.Minute).Sub(now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opens == nil {
		g.opens = map[quota]time.Time{}
	}
	g.opens[q] = now.Add(wait)
	return wait
}

// isThrottle reports whether a code says that a quota is used up.
func isThrottle(code string) bool {
	return code == codeThrottled || strings.HasPrefix(code, "Throttling.") || code == "Rejected.Throttling"
}
