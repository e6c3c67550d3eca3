package customimage

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var someTime = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBackoff_isAGeometricSeriesUpToTheLongestWait(t *testing.T) {
	g := NewWithT(t)
	backoff := Backoff{First: 30 * time.Second, Longest: 10 * time.Minute}
	for object := range 50 {
		uid := types.UID(fmt.Sprint("object-", object))
		wait, nominal, at := backoff.First, someTime, someTime
		for range 40 {
			nominal = nominal.Add(wait)
			next := backoff.next(someTime, at, uid)
			g.Expect(next).To(And(BeTemporally(">", at), BeTemporally("<=", nominal)))
			g.Expect(next).To(BeTemporally(">=", nominal.Add(-wait/2)), "an attempt is early by half its wait at most")
			g.Expect(next.Sub(at)).To(BeNumerically("<=", backoff.Longest))
			g.Expect(backoff.next(someTime, next.Add(-1), uid)).To(Equal(next), "a restart in between changes nothing")
			at, wait = next, min(2*wait, backoff.Longest)
		}
	}
}

func TestBackoff_plansTheNextAttemptOfAnOldObstacleWithinTheLongestWait(t *testing.T) {
	g := NewWithT(t)
	backoff := Backoff{First: time.Second, Longest: 7 * time.Second}
	for days := range 400 {
		now := someTime.AddDate(0, 0, days)
		g.Expect(backoff.next(someTime, now, "an-object").Sub(now)).To(And(
			BeNumerically(">", 0), BeNumerically("<=", backoff.Longest)))
	}
}

func TestBackoff_doesNotWaitLongerAfterAClockThatWasAhead(t *testing.T) {
	next := Backoff{First: time.Second, Longest: time.Minute}.next(someTime.Add(time.Hour), someTime, "an-object")
	NewWithT(t).Expect(next).To(BeTemporally("<=", someTime.Add(time.Second)))
}

func TestBackoff_spreadsObjectsThatGotStuckTogether(t *testing.T) {
	g := NewWithT(t)
	backoff := Backoff{First: 30 * time.Second, Longest: 10 * time.Minute}
	now := someTime.Add(3 * time.Hour) // the manager starts again
	inTheFirstSeconds := 0
	for object := range 200 {
		uid := types.UID(fmt.Sprintf("5f1c2e9a-%04d-4e53-9d6f-0a1b2c3d4e5f", object))
		if backoff.next(someTime, now, uid).Sub(now) < 5*time.Second {
			inTheFirstSeconds++
		}
	}
	g.Expect(inTheFirstSeconds).To(BeNumerically("<=", 8))
}

func TestBackoff_isReadFromAFlag(t *testing.T) {
	for text, want := range map[string]any{
		"5s,5m":   Backoff{5 * time.Second, 5 * time.Minute},
		"1s,1s":   Backoff{time.Second, time.Second},
		"":        nil,
		"5s":      nil,
		"5m,5s":   nil,
		"0s,5s":   nil,
		"-1s,5s":  nil,
		"5s,soon": nil,
	} {
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			var backoff Backoff
			err := backoff.Set(text)
			if want == nil {
				g.Expect(err).To(HaveOccurred())
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(backoff).To(Equal(want))
			again := Backoff{}
			g.Expect(again.Set(backoff.String())).To(Succeed())
			g.Expect(again).To(Equal(backoff))
		})
	}
}

func TestFailureLimiter_spacesAttemptsFromASecondToFiveMinutes(t *testing.T) {
	g := NewWithT(t)
	limiter := newFailureLimiter()
	nominal := time.Second
	for range 20 {
		g.Expect(limiter.When(ctrl.Request{})).To(And(
			BeNumerically("<=", nominal), BeNumerically(">=", nominal*3/4)))
		nominal = min(2*nominal, 5*time.Minute)
	}
}

var _ = Describe("The schedule", func() {
	It("makes at most a handful of calls after a restart with two hundred stuck objects", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.calm()
		var ids []string
		for n := range 200 {
			ids = append(ids, fmt.Sprint(w.id, n))
			Expect(w.sim.PutImage(ecssim.Image{ImageID: ids[n], RegionID: region, UsedBy: []string{"i-bp1a"}})).To(Succeed())
			w.create(ids[n])
			w.delete(ids[n])
		}
		w.clock.Step(3 * time.Hour)
		w.restart()
		before := len(w.sim.Calls())
		for range 5 { // seconds
			for _, id := range ids {
				w.attempt(id)
			}
			w.clock.Step(time.Second)
		}
		Expect(len(w.sim.Calls()) - before).To(BeNumerically("<=", 10))
	})

	It("holds also while another client changes the object during each call", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.deleteUnseen(w.id)
		n := 0
		w.ecs.answer = func(_ http.ResponseWriter, action string, _ *http.Request) bool {
			if action == "DeleteImage" {
				n++
				w.change(w.id, func(image *v1alpha1.CustomImage) { image.Labels = map[string]string{"n": fmt.Sprint(n)} })
			}
			return false
		}
		w.pass(w.id, 5*time.Minute)
		Expect(w.deletions()).To(BeNumerically("<=", 10))
	})

	DescribeTable("makes no more attempts in the hour after the clock was set back by an hour",
		func(ctx SpecContext, code string) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: code, Times: -1})).To(Succeed())
			w.delete(w.id)
			w.pass(w.id, time.Hour)
			first := w.deletions()
			Expect(first).To(BeNumerically(">=", 6))

			w.clock.SetTime(w.clock.Now().Add(-2 * time.Hour)) // an hour before the first attempt
			w.pass(w.id, time.Hour)
			Expect(w.deletions() - first).To(And(BeNumerically(">=", 6), BeNumerically("<=", first+1)))
		},
		Entry("of a deletion that is blocked", "ImageUseShared"),
		Entry("of a deletion that waits", "ImageIsExporting"),
	)

	It("checks a live image at most once in the hour after the clock was set back by an hour", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.clock.SetTime(w.clock.Now().Add(-time.Hour))
		w.pass(w.id, time.Hour)
		Expect(w.calls("DescribeImages", w.id)).To(BeNumerically("<=", 2))
	})
})
