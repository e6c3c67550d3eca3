package controller

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

func TestAttemptsAreAGeometricSeriesUpToTheLongestWait(t *testing.T) {
	g := NewWithT(t)
	backoff := Backoff{First: 30 * time.Second, Longest: 10 * time.Minute}
	start := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for object := range 50 {
		uid := types.UID(fmt.Sprint("object-", object))
		wait, nominal, at := backoff.First, start, start
		for range 40 {
			nominal = nominal.Add(wait)
			next := backoff.next(start, at, uid)
			g.Expect(next).To(And(BeTemporally(">", at), BeTemporally("<=", nominal)))
			g.Expect(next).To(BeTemporally(">=", nominal.Add(-wait/2)), "an attempt is early by half its wait at most")
			g.Expect(next.Sub(at)).To(BeNumerically("<=", backoff.Longest))
			g.Expect(backoff.next(start, next.Add(-1), uid)).To(Equal(next), "a restart in between changes nothing")
			at, wait = next, min(2*wait, backoff.Longest)
		}
	}
}

func TestTheNextAttemptOfAnOldObstacleIsAheadAndWithinTheLongestWait(t *testing.T) {
	g := NewWithT(t)
	backoff := Backoff{First: time.Second, Longest: 7 * time.Second}
	start := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for days := range 400 {
		now := start.AddDate(0, 0, days)
		g.Expect(backoff.next(start, now, "an-object").Sub(now)).To(And(
			BeNumerically(">", 0), BeNumerically("<=", backoff.Longest)))
	}
}

func TestAClockThatWasAheadDoesNotKeepAnObjectWaiting(t *testing.T) {
	now := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	next := Backoff{First: time.Second, Longest: time.Minute}.next(now.Add(time.Hour), now, "an-object")
	NewWithT(t).Expect(next).To(BeTemporally("<=", now.Add(time.Second)))
}

func TestObjectsThatGotStuckTogetherComeBackSpreadOut(t *testing.T) {
	g := NewWithT(t)
	backoff := Backoff{First: 30 * time.Second, Longest: 10 * time.Minute}
	start := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	now := start.Add(3 * time.Hour) // the manager starts again
	inTheFirstSeconds := 0
	for object := range 200 {
		uid := types.UID(fmt.Sprintf("5f1c2e9a-%04d-4e53-9d6f-0a1b2c3d4e5f", object))
		if backoff.next(start, now, uid).Sub(now) < 5*time.Second {
			inTheFirstSeconds++
		}
	}
	g.Expect(inTheFirstSeconds).To(BeNumerically("<=", 8))
}

func TestABackoffIsReadFromAFlag(t *testing.T) {
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

func TestWhatWakesAnObject(t *testing.T) {
	base := &v1alpha1.CustomImage{ObjectMeta: metav1.ObjectMeta{
		UID: "a", Generation: 1, Finalizers: []string{v1alpha1.Finalizer}, Annotations: map[string]string{"other": "1"}}}
	for name, test := range map[string]struct {
		change func(*v1alpha1.CustomImage)
		wakes  bool
	}{
		"a change of the spec, or a deletion": {func(c *v1alpha1.CustomImage) { c.Generation++ }, true},
		"the retry annotation":                {func(c *v1alpha1.CustomImage) { c.Annotations[v1alpha1.AnnotationRetryAt] = "x" }, true},
		"the release annotation":              {func(c *v1alpha1.CustomImage) { c.Annotations[v1alpha1.AnnotationRelease] = "x" }, true},
		"the finalizers":                      {func(c *v1alpha1.CustomImage) { c.Finalizers = nil }, true},
		"another object of that name":         {func(c *v1alpha1.CustomImage) { c.UID = "b" }, true},
		"another annotation":                  {func(c *v1alpha1.CustomImage) { c.Annotations["other"] = "2" }, false},
		"a label":                             {func(c *v1alpha1.CustomImage) { c.Labels = map[string]string{"a": "b"} }, false},
		"the status":                          {func(c *v1alpha1.CustomImage) { c.Status.LastHandledRetryAt = "x" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			changed := base.DeepCopy()
			test.change(changed)
			got := moreThanStatusChanged().Update(event.UpdateEvent{ObjectOld: base, ObjectNew: changed})
			NewWithT(t).Expect(got).To(Equal(test.wakes))
		})
	}
}

func TestFailedAttemptsAreSpacedFromASecondToFiveMinutes(t *testing.T) {
	g := NewWithT(t)
	limiter := newFailureLimiter()
	nominal := time.Second
	for range 20 {
		g.Expect(limiter.When(ctrl.Request{})).To(And(
			BeNumerically("<=", nominal), BeNumerically(">=", nominal*3/4)))
		nominal = min(2*nominal, 5*time.Minute)
	}
}
