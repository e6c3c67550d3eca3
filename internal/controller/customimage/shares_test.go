package customimage

import (
	"fmt"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// office is a work queue with as many workers as it takes, and shares of them.
type office struct {
	*shares
	clock *clocktesting.FakeClock
	queue []reconcile.Request
}

func newOffice(concurrent int) *office {
	c := clocktesting.NewFakeClock(time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC))
	o := &office{shares: newShares(concurrent, c), clock: c}
	o.wake = func(request reconcile.Request) { o.queue = append(o.queue, request) }
	return o
}

// in is a claim in a region whose first call was answered.
func (o *office) in(region string) claim {
	c := o.unknown(region)
	if o.by[c.region] == nil {
		o.by[c.region], o.by[c.key], o.by[c.quota] = &share{}, &share{}, &share{}
	}
	return c
}

func (o *office) unknown(region string) claim {
	return claim{region: "region " + region, key: "key " + region, quota: "quota " + region, account: "account " + region}
}

func visitor(kind string, n int) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: kind, Name: fmt.Sprint(n)}}
}

// enterMany has so many objects try, and returns how many got a worker.
func (o *office) enterMany(region string, count int, c claim) (entered int) {
	for n := range count {
		if _, ok := o.enter(visitor(region, n), c, false); ok {
			entered++
		} else {
			o.finish(visitor(region, n), nil)
		}
	}
	return entered
}

func TestShares_leaveSomeForOthers(t *testing.T) {
	for _, concurrent := range []int{1, 2, 3, 4, 7, 8, 16, 64, 100} {
		for _, order := range [][]string{{"same key", "another", "third"}, {"another", "same key", "third"}} {
			g := NewWithT(t)
			o := newOffice(concurrent)
			hung := o.in("hung")
			g.Expect(o.enterMany("hung", 1000, hung)).To(Equal(concurrent), "all that there are, for one alone")
			for _, region := range order {
				c := o.in(region)
				if region == "same key" {
					c.key, c.account = hung.key, hung.account
				}
				g.Expect(o.enterMany(region, 1000, c)).To(BeNumerically(">=", 1), "%s with %d, %v", region, concurrent, order)
			}
			g.Expect(o.busy).To(BeNumerically("<=", Calls(concurrent)))
		}
	}
}

func TestShares_wakeOneForEachThatEnds(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(4)
	c := o.in("busy")
	g.Expect(o.enterMany("busy", 10, c)).To(Equal(4))
	done := 4
	for working := []int{0, 1, 2, 3}; len(working) > 0; done++ {
		o.finish(visitor("busy", working[0]), &c)
		working = working[1:]
		g.Expect(len(o.queue)).To(BeNumerically("<=", 1))
		for _, request := range o.queue {
			g.Expect(request).To(Equal(visitor("busy", done)), "first come, first served")
			_, entered := o.enter(request, c, false)
			g.Expect(entered).To(BeTrue())
			working = append(working, done)
		}
		o.queue = nil
	}
	g.Expect(done).To(Equal(14), "10 have come, and the last 4 woke nobody")
	g.Expect(o.busy).To(BeZero())
	forWorker, _ := o.waiting()
	g.Expect(forWorker).To(BeZero())
}

func TestShares_wakeAnotherIfTheOneThatWasWokenIsGone(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(1)
	c := o.in("busy")
	g.Expect(o.enterMany("busy", 3, c)).To(Equal(1))
	o.finish(visitor("busy", 0), &c)
	g.Expect(o.queue).To(Equal([]reconcile.Request{visitor("busy", 1)}))
	o.finish(visitor("busy", 1), nil) // its object is gone
	g.Expect(o.queue).To(Equal([]reconcile.Request{visitor("busy", 1), visitor("busy", 2)}))
}

func TestShares_takeOldAndNewObjectsInTurns(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(1)
	c := o.in("busy")
	_, entered := o.enter(visitor("first", 0), c, false)
	g.Expect(entered).To(BeTrue())
	for n := range 100 {
		_, entered := o.enter(visitor("old", n), c, true)
		g.Expect(entered).To(BeFalse())
	}
	for n := range 100 {
		_, entered := o.enter(visitor("new", n), c, false)
		g.Expect(entered).To(BeFalse())
	}
	last := visitor("first", 0)
	for range 100 {
		o.finish(last, &c)
		last = o.queue[len(o.queue)-1]
		_, entered := o.enter(last, c, last.Namespace == "old")
		g.Expect(entered).To(BeTrue())
	}
	for _, kind := range []string{"old", "new"} {
		g.Expect(o.queue).To(ContainElement(visitor(kind, 49)))
		g.Expect(o.queue).NotTo(ContainElement(visitor(kind, 50)))
	}
	o.finish(visitor("elsewhere", 0), nil)
	_, entered = o.enter(visitor("late", 0), c, false)
	g.Expect(entered).To(BeFalse(), "nobody passes those in line")
}

// work has those who were woken try again, until nobody is, and returns how many got a worker.
func (o *office) work(c claim) (entered int) {
	for {
		o.mu.Lock()
		queue := o.queue
		o.queue = nil
		o.mu.Unlock()
		if len(queue) == 0 {
			return entered
		}
		for _, request := range queue {
			if _, ok := o.enter(request, c, false); ok {
				entered++
			} else {
				o.finish(request, nil)
			}
		}
	}
}

func TestShares_sendFewCallsUntilTheFirstIsAnswered(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(64)
	c := o.unknown("fresh")
	g.Expect(o.enterMany("fresh", 100, c)).To(Equal(1), "one for a quota")
	o.heard(c.quota, nil)
	g.Expect(o.work(c)).To(Equal(firstCalls - 1))
	o.heard(c.region, nil)
	o.heard(c.key, nil)
	g.Expect(o.work(c)).To(Equal(64 - firstCalls))
}

// Objects went from the line of one share to that of another, and back.
func TestShares_haveEachObjectTryTwiceAtMost(t *testing.T) {
	const count = 2000
	g := NewWithT(t)
	o := newOffice(64)
	c := o.unknown("fresh")
	tries, working := 0, []reconcile.Request{}
	try := func(request reconcile.Request) {
		tries++
		if _, entered := o.enter(request, c, false); entered {
			working = append(working, request)
		} else {
			o.finish(request, nil)
		}
	}
	tryQueued := func() {
		for len(o.queue) > 0 {
			next := o.queue[0]
			o.queue = o.queue[1:]
			try(next)
		}
	}
	for n := range count {
		if n == count/2 { // no answer yet, and the second call under the quota need not wait for it any more
			o.clock.Step(firstWait)
			g.Eventually(func() bool {
				o.mu.Lock()
				defer o.mu.Unlock()
				return len(o.queue) > 0
			}).Should(BeTrue())
		}
		try(visitor("fresh", n))
		tryQueued()
	}
	for done := 0; done < count; done++ {
		g.Expect(working).NotTo(BeEmpty(), "somebody is forgotten")
		for _, name := range []string{c.region, c.key, c.quota} {
			o.heard(name, nil)
		}
		o.finish(working[0], &c)
		working = working[1:]
		tryQueued()
	}
	g.Expect(tries).To(BeNumerically("<=", 2*count))
}

func TestShares_doNotWaitForTheFirstAnswerUnderAQuotaForLong(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(64)
	c := o.unknown("fresh")
	g.Expect(o.enterMany("fresh", 100, c)).To(Equal(1))
	o.clock.Step(firstWait)
	g.Eventually(func() int { return o.work(c) }).Should(Equal(firstCalls - 1))
}

func TestShares_probeWhatDoesNotAnswerByOneCallAtATime(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(16)
	c := o.in("hung")
	noAnswer := &failure.Error{Code: failure.CodeNoAnswer, Message: "No answer within 45s."}
	g.Expect(o.enterMany("hung", 200, c)).To(Equal(16))
	for n := range 16 {
		o.heard(c.region, noAnswer)
		o.finish(visitor("hung", n), &c)
	}
	told := 0
	for _, request := range o.queue { // all are woken, to say why they wait
		refusal, entered := o.enter(request, c, false)
		g.Expect(entered).To(BeFalse())
		if refusal != nil {
			g.Expect(refusal).To(And(HaveField("Message", "No answer within 45s."), HaveField("Wait", longestLine)))
			told++
		}
		o.finish(request, nil)
	}
	g.Expect(told).To(BeNumerically(">=", 184))
	queued := func() []reconcile.Request {
		o.mu.Lock()
		defer o.mu.Unlock()
		return slices.Clone(o.queue)
	}
	calls, started := 0, o.clock.Now()
	for range 20 {
		o.queue = nil
		o.clock.Step(time.Minute)
		g.Eventually(queued).Should(HaveLen(1), "one at a time")
		_, entered := o.enter(o.queue[0], c, false)
		g.Expect(entered).To(BeTrue())
		calls++
		o.heard(c.region, noAnswer)
		o.finish(o.queue[0], &c)
	}
	g.Expect(calls).To(Equal(20))
	g.Expect(o.clock.Since(started)).To(Equal(20 * time.Minute))

	o.queue = nil
	o.clock.Step(time.Minute)
	g.Eventually(queued).Should(HaveLen(1))
	_, entered := o.enter(o.queue[0], c, false)
	g.Expect(entered).To(BeTrue())
	o.heard(c.region, nil)
	g.Expect(queued()).To(HaveLen(16), "all that there is room for, at the first answer")
}

func TestShares_knowAllSharesOfThoseInLine(t *testing.T) {
	g := NewWithT(t)
	o := newOffice(1)
	c := o.in("busy")
	g.Expect(o.enterMany("busy", 1, c)).To(Equal(1))
	c.key, c.account, c.quota = "key another", "account another", "quota another"
	_, entered := o.enter(visitor("late", 0), c, false)
	g.Expect(entered).To(BeFalse())
	forWorker, forAnswer := o.waiting()
	g.Expect([]int{forWorker, forAnswer}).To(Equal([]int{1, 0}))
}
