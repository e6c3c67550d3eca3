package openapi

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// quota is what Alibaba Cloud counts calls by: the account (a key stands for it here), the region and the action.
type quota struct{ accessKeyID, region, product, action string }

// longestWait bounds the wait that a header asks for: the longest quotas are counted by the hour.
const longestWait = time.Hour

// gate refuses calls whose quota is known to be used up, so that a thousand callers learn it from one answer.
// The zero gate is open.
type gate struct {
	mu     sync.Mutex
	closed map[quota]closed
}

// closed says until when a gate is closed, and because of which answer.
type closed struct {
	until time.Time
	cause *failure.Error
}

// refuse returns the answer that closed the gate, with the rest of its wait; nil if the gate is open.
func (g *gate) refuse(q quota, now time.Time) *failure.Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, ok := g.closed[q]
	if !ok || !c.until.After(now) {
		return nil
	}
	return &failure.Error{Code: c.cause.Code, Message: c.cause.Message, Wait: c.until.Sub(now)}
}

// close closes the gate for the wait of the answer or, if it has none, until the next minute begins: quotas are
// counted over fixed windows. The wait is then set in the answer too.
func (g *gate) close(q quota, now time.Time, cause *failure.Error) {
	if cause.Wait <= 0 {
		cause.Wait = now.Truncate(time.Minute).Add(time.Minute).Sub(now)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = map[quota]closed{}
	}
	maps.DeleteFunc(g.closed, func(_ quota, c closed) bool { return !c.until.After(now) }) // temporary keys never come back
	g.closed[q] = closed{now.Add(cause.Wait), cause}
}

// isThrottle reports whether a code says that a quota is used up.
func isThrottle(code string) bool {
	return code == "Throttling" || strings.HasPrefix(code, "Throttling.") || code == "Rejected.Throttling"
}
