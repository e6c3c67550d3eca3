package faults

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// plan is a scenario and what goes wrong in it.
type plan struct {
	name, class string
	scenario    scenario
	fault       fault // none without a name of a call
	lens        lens
	operators   int // how many run at once; 0 stands for 1
}

// reference is a scenario without a fault: the calls, and the end.
type reference struct {
	counts map[string]int
	order  []string
	events int // of objects
	digest string
}

// TestPlans records each scenario once, makes the plans from the calls in it, and runs them all.
func TestPlans(t *testing.T) {
	if *seed != 0 {
		t.Skip("-seed is for TestSequences")
	}
	t.Parallel()
	table := &summary{rows: map[string]*row{}}
	t.Cleanup(func() {
		fmt.Print("\n" + table.String() + "\n")
		switch missed, all := table.missed(); {
		case missed*10 > all:
			t.Errorf("%d of %d plans did not strike: the calls are not those that were recorded", missed, all)
		case all == 0 || *onlyPlan == "" && all < 700:
			t.Errorf("there are %d plans", all)
		}
	})
	for _, s := range scenarios {
		if !wanted(s.name + "/") {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			recorded := record(t, s)
			if t.Failed() {
				return
			}
			for _, p := range plansOf(s, recorded) {
				if !wanted(p.name) {
					continue
				}
				t.Run(strings.TrimPrefix(p.name, s.name+"/"), func(t *testing.T) {
					t.Parallel()
					p.run(t, recorded, table)
				})
			}
		})
	}
}

// wanted reports whether a plan, or all that begin with a prefix, may be asked for.
func wanted(name string) bool {
	return *onlyPlan == "" || strings.HasPrefix(name, *onlyPlan) || strings.HasSuffix(name, "/") && strings.HasPrefix(*onlyPlan, name)
}

// record plays a scenario without faults.
func record(t *testing.T, s scenario) reference {
	t.Helper()
	w := newWorld(t, s, &wire{}, lens{})
	w.startOperator()
	s.play(w)
	w.settle("")
	w.checkEnd()
	w.checkEffects(1 + int(w.late.Load()))
	r := reference{digest: w.digest()}
	r.counts, r.order = w.wire.calls()
	for what, most := range s.most {
		if r.counts[what] > most {
			w.violatedf("%d calls %s, and there may be %d", r.counts[what], what, most)
		}
	}
	w.report(false)
	w.mu.Lock()
	defer w.mu.Unlock()
	r.events = len(w.history)
	return r
}

func (p plan) run(t *testing.T, recorded reference, table *summary) {
	w := newWorld(t, p.scenario, &wire{choose: p.choose}, p.lens)
	began := time.Now()
	w.startOperators(max(p.operators, 1))
	p.scenario.play(w)
	w.settle(recorded.digest)
	w.checkEnd()
	table.add(p, w, time.Since(began))
	w.report(*onlyPlan != "")
}

// choose has the fault strike its call, once. The deaths that show an old list leave it to the lens what comes then.
func (p plan) choose(what string, n int) (fault, bool) {
	return p.fault, p.fault.what == what && p.fault.n == n
}

// settle waits until everything is as it was in the reference, if there is one, and checks that it stays so. A fault that
// strikes only then may still have its consequences.
func (w *world) settle(digest string) {
	w.t.Helper()
	for {
		now := w.digest()
		for end := time.Now().Add(20 * time.Second); digest != "" && now != digest && time.Now().Before(end); now = w.digest() {
			time.Sleep(100 * time.Millisecond)
		}
		if digest != "" && now != digest {
			w.violatedf("the end is\n%s\nand without a fault it is\n%s", now, digest)
			return
		}
		time.Sleep(longestBackoff + 200*time.Millisecond)
		later := w.digest()
		if later != now && w.wire.sinceFault() > echo {
			w.violatedf("the end was\n%s\nand became\n%s", now, later)
		}
		if later == now || w.wire.sinceFault() > echo {
			return
		}
	}
}

// report fails the test with what was violated, and prints the calls.
func (w *world) report(always bool) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for ; w.reported < len(w.violations); w.reported++ {
		w.t.Error("violated: " + w.violations[w.reported])
	}
	if always || w.t.Failed() {
		w.t.Log("\n" + strings.Join(w.trace, "\n"))
	}
}

// answersOf are the wrong answers that a call can get: before an effect, and after one.
func answersOf(what string) (before, after []string) {
	switch {
	case isECS(what):
		return []string{"500", "throttled", "html", "truncated", "403", "reset"}, []string{"reset", "html"}
	case strings.HasPrefix(what, "patch-"), strings.HasPrefix(what, "create-"):
		return []string{"404", "409", "422", "429", "500", "504", "reset", "403"}, []string{"reset", "504"}
	case what == "discovery":
		return []string{"500", "reset"}, nil
	}
	return []string{"404", "429", "500", "504", "reset", "403"}, nil
}

func isECS(what string) bool { return what[0] >= 'A' && what[0] <= 'Z' }

func isRead(what string) bool {
	return !isECS(what) && !strings.HasPrefix(what, "patch-") && !strings.HasPrefix(what, "create-")
}

// plansOf makes the plans of a scenario from its calls.
func plansOf(s scenario, r reference) []plan {
	if *everyCall && s.depth != thorough {
		s.depth = complete
	}
	var plans []plan
	add := func(class, name string, p plan) {
		p.class, p.name, p.scenario = class, s.name+"/"+name, s
		plans = append(plans, p)
	}
	for _, what := range r.order {
		for n := 1; n <= min(r.counts[what], s.depth.calls(what)); n++ {
			for _, f := range s.depth.faults(what, n) {
				add(string(f.way), f.String(), plan{fault: f})
			}
			death := fault{what: what, n: n, way: diesAfter}
			if isRead(what) || what == "GetCallerIdentity" || what == "create-events" {
				continue
			}
			for _, after := range s.depth.oldLists(what, r.events) {
				add("old list after a death", fmt.Sprintf("%s/old-list.%d", death, after), plan{fault: death, lens: lens{oldList, after}})
			}
			if what == "DeleteImage" {
				add("two operators", "two-operators/"+death.String(), plan{fault: death, operators: 2})
			}
		}
	}
	for after := 1; after <= min(r.events, s.depth.events()); after++ {
		for _, kind := range []string{frozen, coalesced, expired} {
			if kind != expired || s.depth >= thorough {
				add(kind+" cache", fmt.Sprintf("%s.%d", kind, after), plan{lens: lens{kind, after}})
			}
		}
		if after%2 == 1 {
			add("two operators", fmt.Sprintf("two-operators/frozen.%d", after), plan{lens: lens{frozen, after}, operators: 2})
		}
	}
	add("two operators", "two-operators", plan{operators: 2})
	if *inPairs {
		return pairs(plans)
	}
	return plans
}

// pairs are the plans of one operator, with two of them.
func pairs(plans []plan) (twice []plan) {
	for _, p := range plans {
		if p.operators == 0 {
			p.class, p.name, p.operators = "two operators, "+p.class, p.scenario.name+"/two-operators"+strings.TrimPrefix(p.name, p.scenario.name), 2
			twice = append(twice, p)
		}
	}
	return twice
}

// calls is how many calls of a kind go wrong: later ones are repetitions.
func (d depth) calls(what string) int {
	switch {
	case d == thorough:
		return 3
	case d == complete && !isStart(what):
		return math.MaxInt
	case isRead(what), what == "create-events", what == "GetCallerIdentity":
		return 0
	case d == brief && what == "DescribeImages":
		return 0
	case d == usual && what == "DeleteImage":
		return 2
	}
	return 1
}

// events is after how many events a view may be old.
func (d depth) events() int {
	switch d {
	case brief:
		return 0
	case complete:
		return math.MaxInt
	case thorough:
		return 8
	}
	return 4
}

// faults are the ways in which one call goes wrong.
func (d depth) faults(what string, n int) (faults []fault) {
	before, after := answersOf(what)
	turn := fnv.New32a()
	_, _ = fmt.Fprint(turn, what, n)
	one := func(answers []string) []string {
		if d >= thorough || len(answers) == 0 {
			return answers
		}
		return answers[int(turn.Sum32())%len(answers):][:1]
	}
	for _, answer := range one(before) {
		faults = append(faults, fault{what, n, refused, answer})
	}
	for _, answer := range one(after) {
		faults = append(faults, fault{what, n, lost, answer})
	}
	faults = append(faults, fault{what: what, n: n, way: diesAfter}, fault{what: what, n: n, way: hung})
	if d >= thorough {
		faults = append(faults, fault{what: what, n: n, way: diesBefore})
	}
	return faults
}

// oldLists are after how many of the events the list is that an operator starts from after a death: the first one and the last
// but one, or all.
func (d depth) oldLists(what string, events int) (after []int) {
	for n := 1; n < events; n++ {
		if n == 1 || n == events-1 || d == complete && what == "DeleteImage" {
			after = append(after, n)
		}
	}
	return after
}

// isStart reports whether a kind of call belongs to the start of the operator.
func isStart(what string) bool {
	return what == "discovery" || strings.HasPrefix(what, "watch-") || strings.HasPrefix(what, "list-") && what != "list-customimages"
}

// summary is the table of all plans by class.
type summary struct {
	mu   sync.Mutex
	rows map[string]*row
}

type row struct {
	plans, struck, violated int
	longest                 time.Duration
}

func (s *summary) add(p plan, w *world, took time.Duration) {
	struck := (w.wire.faults() > 0 || p.fault.what == "") && (w.shown.Load() || p.lens.kind == "")
	w.mu.Lock()
	violated := len(w.violations) > 0
	w.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rows[p.class]
	if r == nil {
		r = &row{}
		s.rows[p.class] = r
	}
	r.plans++
	if struck {
		r.struck++
	}
	if violated {
		r.violated++
	}
	r.longest = max(r.longest, took)
}

// missed counts the plans whose fault or old view did not come about, for example because a racing call was not repeated.
func (s *summary) missed() (missed, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rows {
		missed, all = missed+r.plans-r.struck, all+r.plans
	}
	return missed, all
}

func (s *summary) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(class string, r row) {
		_, _ = fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%.1f s\n", class, r.plans, r.struck, r.violated, r.longest.Seconds())
	}
	_, _ = fmt.Fprintln(out, "class\tplans\tstruck\tviolated\tlongest")
	all := row{}
	for _, class := range slices.SortedFunc(maps.Keys(s.rows), cmp.Compare[string]) {
		r := *s.rows[class]
		line(class, r)
		all = row{all.plans + r.plans, all.struck + r.struck, all.violated + r.violated, max(all.longest, r.longest)}
	}
	line("all", all)
	_ = out.Flush()
	return text.String()
}
