package openapi

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// quota is what Alibaba Cloud counts calls by. Where the account is not known, an access key stands for it.
type quota struct{ account, region, product, action string }

// gate holds back the calls whose quota is known to be used up, so that a thousand callers learn it from one answer, and
// gives each of them a turn. The zero gate is open.
type gate struct {
	mu     sync.Mutex
	quotas map[quota]*allowance
}

// manyQuotas is how many quotas are kept, whether or not their windows have ended. Temporary keys never come back.
const manyQuotas = 1024

func (g *gate) of(q quota, now time.Time) *allowance {
	if g.quotas == nil {
		g.quotas = map[quota]*allowance{}
	}
	if len(g.quotas) >= manyQuotas {
		maps.DeleteFunc(g.quotas, func(_ quota, a *allowance) bool { return !a.ends.After(now) && len(a.turns) == 0 })
	}
	if g.quotas[q] == nil {
		g.quotas[q] = &allowance{remain: -1}
	}
	return g.quotas[q]
}

// take returns nil if a call may be sent now; with keep, the call is sent later, and its turn is kept until the window
// ends. Else it returns how long to wait, and a caller that has a name has its turn then: nobody else takes it.
func (g *gate) take(q quota, caller string, keep bool, now time.Time) *failure.Error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.of(q, now)
	if keep && a.limit == 0 { // nothing to keep, and nothing is sent yet
		return nil
	}
	wait := a.take(caller, now)
	switch {
	case wait > 0:
		return &failure.Error{Code: a.code(), Message: a.text(q.action), Wait: wait}
	case keep:
		a.keepTurn(caller, a.window)
	}
	return nil
}

// learn takes from an answer what it tells about a quota. refusal is set if the call was throttled.
func (g *gate) learn(q quota, sent, received time.Time, limits rateLimit, refusal *failure.Error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.of(q, received).learn(sent, received, limits, refusal)
}

// waiting counts the callers that wait for their turn.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	count := 0
	for _, a := range g.quotas {
		for _, window := range a.turns {
			if window > a.window {
				count++
			}
		}
	}
	return count
}

// allowance is what is known of one quota. Quotas are counted over windows of a fixed length.
type allowance struct {
	limit   int            // calls in a window; 0 if not known
	isGuess bool           // the limit is how many were answered before a refusal, which others may have caused
	calm    int            // windows since the last refusal in which a guessed limit was used up
	length  time.Duration  // of a window; 0 if not known
	cause   *failure.Error // the last refusal

	window      int       // the number of the current window
	began, ends time.Time // zero if not known
	closed      bool      // a call was refused in it
	spent       int       // calls that were sent in it, or have their turn in it
	answered    int       // calls that were not refused in it
	remain      int       // the fewest that an answer in it said are left; -1 if none said so
	others      int       // calls that somebody else is expected to make in each window
	probed      time.Time // when a call was sent beyond the limit, to learn when the window ends
	lastEnd     time.Time // of a window for which an answer told it

	turns    map[string]int // by caller, the window in which it may call
	promised map[int]int    // by window, how many turns
	last     int            // the last window with a turn
}

// calmWindows is after how many windows without a refusal a guessed limit is tried to be more.
const calmWindows = 3

// retryUnknown is how long to wait when nobody knows how long.
const retryUnknown = time.Second

func (a *allowance) take(caller string, now time.Time) (wait time.Duration) {
	a.advance(now)
	window, hasTurn := a.turns[caller]
	switch {
	case hasTurn && window > a.window:
		return a.until(window, now)
	case hasTurn && !a.closed:
		delete(a.turns, caller)
		return 0
	case !a.closed && (a.limit == 0 || a.spent < a.capacity() || a.mayProbe(now)):
		a.spent++
		return 0
	}
	delete(a.turns, caller)
	switch {
	case a.ends.IsZero():
		return retryUnknown
	case caller == "":
		return a.until(a.window+1, now)
	}
	return a.queue(caller, now)
}

// queue gives a caller its turn in the first window that has room, and returns how long it is until then.
func (a *allowance) queue(caller string, now time.Time) time.Duration {
	window := max(a.last, a.window+1)
	if a.promised[window] >= a.capacity() {
		window++
	}
	if window > a.window+1 && a.length == 0 { // it will be known soon after the next one began
		return a.until(a.window+1, now) + retryUnknown
	}
	a.last = window
	if a.promised == nil {
		a.promised = map[int]int{}
	}
	a.promised[window]++
	a.keepTurn(caller, window)
	return a.until(window, now)
}

func (a *allowance) keepTurn(caller string, window int) {
	if a.turns == nil {
		a.turns = map[string]int{}
	}
	if caller != "" {
		a.turns[caller] = window
	}
}

// mayProbe allows one call in a second beyond the limit while it is not known when the window ends: its answer may tell.
func (a *allowance) mayProbe(now time.Time) bool {
	if !a.ends.IsZero() || now.Sub(a.probed) < retryUnknown {
		return false
	}
	a.probed = now
	return true
}

// until returns how long it is until a later window begins.
func (a *allowance) until(window int, now time.Time) time.Duration {
	if a.ends.IsZero() {
		return retryUnknown
	}
	return max(a.ends.Sub(now)+time.Duration(window-a.window-1)*a.length, time.Millisecond)
}

// advance finds the window of a time.
func (a *allowance) advance(now time.Time) {
	if a.ends.IsZero() || now.Before(a.ends) {
		return
	}
	passed, began := 1, a.ends
	a.ends = time.Time{}
	if a.length > 0 {
		passed += int(now.Sub(began) / a.length)
		began = began.Add(time.Duration(passed-1) * a.length)
		a.ends = began.Add(a.length)
	}
	a.enter(a.window+passed, began)
}

// capacity is how many calls there are for us in a window.
func (a *allowance) capacity() int { return max(a.limit-a.others, 1) }

// enter begins a window. Turns in earlier ones that nobody came for have lapsed.
func (a *allowance) enter(window int, began time.Time) {
	if a.isGuess && !a.closed && a.answered >= a.limit {
		if a.calm++; a.calm == calmWindows {
			a.limit, a.calm = a.limit+1, 0
		}
	}
	switch {
	case a.remain >= 0:
		a.others = max(a.limit-a.remain-a.answered, 0)
	case a.others > 0:
		a.others-- // or it would never be found out that they have stopped
	}
	a.window, a.began, a.closed, a.answered, a.remain, a.spent = window, began, false, 0, -1, a.promised[window]
	maps.DeleteFunc(a.promised, func(w, _ int) bool { return w <= window })
	maps.DeleteFunc(a.turns, func(_ string, w int) bool { return w < window })
}

func (a *allowance) learn(sent, received time.Time, limits rateLimit, refusal *failure.Error) {
	a.advance(received)
	if refusal == nil {
		a.answered++
	} else {
		a.cause, limits.left = refusal, refusal.Wait
	}
	if limits.limit > 0 {
		a.limit, a.isGuess = limits.limit, false
	}
	if a.isMore(sent, refusal) {
		a.limit = a.spent + a.others + 1
	}
	if limits.left > 0 && !a.isOfThisWindow(sent, received, limits.left) {
		return
	}
	switch {
	case refusal != nil:
		a.closed, a.remain = true, 0
		a.guess(limits)
	case limits.left > 0:
		if a.remain < 0 || limits.remain < a.remain {
			a.remain = limits.remain
		}
		a.spent = max(a.spent, limits.limit-limits.remain)
	}
}

// guess takes the number of calls that were answered for the limit if nothing tells it.
func (a *allowance) guess(told rateLimit) {
	if told.limit == 0 {
		a.limit, a.isGuess, a.calm = max(a.answered, 1), true, 0
	}
}

// isMore reports whether an answer shows that there are more calls than was guessed: that of a probe.
func (a *allowance) isMore(sent time.Time, refusal *failure.Error) bool {
	return refusal == nil && a.isGuess && a.ends.IsZero() && !sent.Before(a.probed) && a.spent >= a.capacity()
}

// isOfThisWindow takes from an answer when the window ends in which it was given, and reports whether that is the current
// one. The time left was counted between sending and receiving: the end is not before the one and not after the other.
func (a *allowance) isOfThisWindow(sent, received time.Time, left time.Duration) bool {
	earliest, latest := sent.Add(left), received.Add(left)
	switch {
	case sent.Before(a.began):
		return false
	case !a.ends.IsZero() && !earliest.After(a.ends):
		if latest.Before(a.ends) {
			a.ends = latest
		}
		a.lastEnd = a.ends
		return true
	case !a.ends.IsZero(): // a later window than expected
		a.length = 0
		a.enter(a.window+1, sent)
	}
	// An answer early in a window, and the end of the window right before it, tell its length: with another window in
	// between, more time would have passed than is left.
	if !a.lastEnd.IsZero() && sent.Sub(a.lastEnd) < left {
		a.length = latest.Sub(a.lastEnd)
		if a.length > 2*time.Second {
			a.length = a.length.Round(time.Second)
		}
	}
	a.ends, a.lastEnd = latest, latest
	return true
}

func (a *allowance) code() string {
	if a.cause != nil {
		return a.cause.Code
	}
	return "Throttling"
}

// text is in the words of the last refusal, so that nothing looks new.
func (a *allowance) text(action string) string {
	if a.cause != nil {
		return a.cause.Message
	}
	return fmt.Sprintf("The request quota for %s, %d calls in a window, is used up.", action, a.limit)
}

// isThrottle reports whether a code says that a quota is used up.
func isThrottle(code string) bool {
	return code == "Throttling" || strings.HasPrefix(code, "Throttling.") || code == "Rejected.Throttling"
}
