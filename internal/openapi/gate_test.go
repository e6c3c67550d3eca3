package openapi

import (
	"container/heap"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// quotaWorld is an account with a quota, and callers who do as the gate says, on a clock that jumps from one event to the
// next.
type quotaWorld struct {
	gate    *gate
	now     time.Time
	latency time.Duration
	// The quota of the account. others is how many of the calls in a window somebody else makes, at its beginning.
	limit, others int
	window        time.Duration
	silent        bool // only refusals tell the quota
	headerless    bool // nothing tells it, not even those

	events events
	used   map[time.Time]int

	succeeded, throttled, asked int
	last                        time.Time
}

type event struct {
	at time.Time
	do func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (w *quotaWorld) after(wait time.Duration, do func()) {
	heap.Push(&w.events, event{w.now.Add(wait), do})
}

// run has callers of that name make so many calls, one of them first: until its answer no other is sent.
func (w *quotaWorld) run(name string, calls int) {
	w.gate, w.used = &gate{}, map[time.Time]int{}
	q := quota{"account", "cn-hangzhou", "ecs", "DeleteImage"}
	w.ask(q, name+" 0")
	for n := 1; n < calls; n++ {
		caller := fmt.Sprintf("%s %d", name, n)
		w.after(w.latency+time.Duration(n)*3*time.Millisecond, func() { w.ask(q, caller) })
	}
	for len(w.events) > 0 {
		next := heap.Pop(&w.events).(event)
		w.now = next.at
		next.do()
	}
}

// ask makes a call, or comes back when the gate says so.
func (w *quotaWorld) ask(q quota, caller string) {
	w.asked++
	if refusal := w.gate.take(q, caller, true, w.now); refusal != nil {
		w.after(refusal.Wait, func() { w.ask(q, caller) })
		return
	}
	if refusal := w.gate.take(q, caller, false, w.now); refusal != nil {
		w.after(refusal.Wait, func() { w.ask(q, caller) })
		return
	}
	sent := w.now
	start := sent.Truncate(w.window)
	left := start.Add(w.window).Sub(sent)
	ok := w.used[start]+w.others < w.limit
	if ok {
		w.used[start]++
	}
	limits := rateLimit{w.limit, w.limit - w.others - w.used[start], left}
	if w.headerless || w.silent && ok {
		limits = rateLimit{}
	}
	w.after(w.latency, func() {
		if ok {
			w.succeeded, w.last = w.succeeded+1, w.now
			w.gate.learn(q, sent, w.now, limits, nil)
			return
		}
		w.throttled++
		refusal := &failure.Error{Code: "Throttling", Message: "Slow down.", Wait: left}
		if w.headerless {
			refusal.Wait = w.now.Truncate(time.Minute).Add(time.Minute).Sub(w.now)
		}
		w.gate.learn(q, sent, w.now, limits, refusal)
		w.ask(q, caller)
	})
}

func TestGate_usesTheQuotaAndNoMore(t *testing.T) {
	for name, test := range map[string]struct {
		world    quotaWorld
		calls    int
		throttle float64 // how many of the calls may be throttled
		asks     float64 // how often a caller asks
	}{
		"told by every answer": {quotaWorld{limit: 20, window: 10 * time.Second}, 100, 0, 3},
		"a long queue":         {quotaWorld{limit: 200, window: time.Minute}, 10000, 0, 3},
		// The first answer comes when its window is over.
		"a slow service":           {quotaWorld{limit: 20, window: 10 * time.Second, latency: 3 * time.Second}, 200, .12, 5},
		"used by others too":       {quotaWorld{limit: 50, others: 10, window: 10 * time.Second}, 1000, .01, 3},
		"told by refusals alone":   {quotaWorld{limit: 100, window: 10 * time.Second, silent: true}, 5000, .01, 3},
		"a quota of one":           {quotaWorld{limit: 1, window: time.Second}, 50, .05, 4},
		"told by no header":        {quotaWorld{limit: 100, window: time.Minute, headerless: true}, 5000, .01, 4},
		"more than are called":     {quotaWorld{limit: 1000, window: time.Minute}, 900, 0, 1},
		"by the hour":              {quotaWorld{limit: 300, window: time.Hour}, 3000, 0, 3},
		"no quota but a great one": {quotaWorld{limit: 1 << 30, window: time.Minute, silent: true}, 5000, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			w := test.world
			w.now = time.Date(2024, 1, 2, 3, 4, 7, 0, time.UTC)
			if w.latency == 0 {
				w.latency = 100 * time.Millisecond
			}
			began := w.now.Truncate(w.window)
			w.run("caller", test.calls)
			g.Expect(w.succeeded).To(Equal(test.calls))
			windows := float64(w.last.Sub(began)) / float64(w.window)
			t.Logf("%.2f windows, %d throttled, asked %d times", windows, w.throttled, w.asked)
			g.Expect(windows).To(BeNumerically("<=", max(1, 1.1*float64(test.calls)/float64(w.limit-w.others)+.2)))
			g.Expect(float64(w.throttled)).To(BeNumerically("<=", test.throttle*float64(test.calls)))
			g.Expect(float64(w.asked)).To(BeNumerically("<=", test.asks*float64(test.calls)))
		})
	}
}

// Many ask while the first call is under way, and wait for its answer elsewhere.
func TestGate_countsNoCallThatWasNotSent(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	gate, q := &gate{}, quota{"account", "cn-hangzhou", "ecs", "DeleteImage"}
	for n := range 100 {
		isOpen := gate.take(q, fmt.Sprint(n), true, now) == nil
		g.Expect(isOpen).To(BeTrue())
	}
	isOpen := gate.take(q, "0", false, now) == nil
	g.Expect(isOpen).To(BeTrue())
	gate.learn(q, now, now, rateLimit{limit: 20, remain: 19, left: 10 * time.Second}, nil)
	open := 0
	for n := 1; n < 100; n++ {
		if gate.take(q, fmt.Sprint(n), true, now) == nil {
			open++
		}
	}
	g.Expect(open).To(Equal(19))
}

// A quota that others use has the first call refused, and no header says how many there are. Attempts that make two calls
// get both nevertheless, and not only the first time.
func TestGate_forgetsAGuess(t *testing.T) {
	g := NewWithT(t)
	now := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	gate, q := &gate{}, quota{"account", "cn-hangzhou", "ecs", "DescribeImages"}
	isOpen := gate.take(q, "a", false, now) == nil
	g.Expect(isOpen).To(BeTrue())
	gate.learn(q, now, now, rateLimit{}, &failure.Error{Code: "Throttling", Wait: 300 * time.Millisecond})
	whole := 0
	for end := now.Add(20 * time.Second); now.Before(end); {
		answered := 0
		for range 2 {
			if refusal := gate.take(q, "a", false, now); refusal != nil {
				now = now.Add(refusal.Wait)
				break
			}
			answered++
			gate.learn(q, now, now.Add(time.Millisecond), rateLimit{}, nil)
			now = now.Add(2 * time.Millisecond)
		}
		if answered == 2 {
			whole++
			now = now.Add(time.Second)
		}
	}
	g.Expect(whole).To(BeNumerically(">", 5))
}
