package customimage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var _ = Describe("The recorder of events", func() {
	record := func(ctx SpecContext, create func(ctx context.Context, c client.WithWatch, event client.Object) error) (*world, *Recorder) {
		GinkgoHelper()
		w := newWorld(ctx)
		w.createUnseen(w.id)
		r := NewRecorder(interceptor.NewClient(w.client(&interceptor.Funcs{}), interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, event client.Object, _ ...client.CreateOption) error {
				return create(ctx, c, event)
			},
		}))
		r.Eventf(w.get(w.id), &corev1.ObjectReference{Kind: "Image", Name: w.id}, "Normal", "Deleted", "Reconcile", "%s", "100 % gone")
		return w, r
	}

	It("waits for an event that is being written, and no longer than it is told to", func(ctx SpecContext) {
		answer := make(chan struct{})
		w, r := record(ctx, func(ctx context.Context, c client.WithWatch, event client.Object) error {
			<-answer
			return c.Create(ctx, event)
		})
		r.Wait(100 * time.Millisecond)
		Expect(r.Unwritten()).To(Equal(1))
		Expect(w.eventsOf(w.id, "Deleted")).To(BeEmpty())
		close(answer)
		r.Wait(20 * time.Second)
		Expect(r.Unwritten()).To(BeZero())
		events := w.eventsOf(w.id, "Deleted")
		Expect(events).To(HaveLen(1))
		Expect(events[0].Note).To(Equal("100 % gone"))
		Expect(events[0].Regarding.UID).To(Equal(w.get(w.id).UID))
		Expect(events[0].Related.Name).To(Equal(w.id))
	})

	It("writes an event once whose first request got no answer, although it took effect", func(ctx SpecContext) {
		requests := 0
		w, r := record(ctx, func(ctx context.Context, c client.WithWatch, event client.Object) error {
			requests++
			err := c.Create(ctx, event.DeepCopyObject().(client.Object))
			if requests == 1 {
				return errors.New("connection reset by peer")
			}
			return err
		})
		r.Wait(20 * time.Second)
		Expect(r.Unwritten()).To(BeZero())
		Expect(requests).To(Equal(2))
		Expect(w.eventsOf(w.id, "Deleted")).To(HaveLen(1))
	})
})

// storage is an API server to which events are written, and whose answers a test decides.
type storage struct {
	client.Client
	answer func(ctx context.Context, event *eventsv1.Event) error

	mu                       sync.Mutex
	requests, atOnce, atMost int
	written                  []eventsv1.Event
}

func (*storage) Scheme() *runtime.Scheme { return clientgoscheme.Scheme }

func (s *storage) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	s.count(1)
	defer s.count(-1)
	event := o.(*eventsv1.Event)
	err := s.answer(ctx, event)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.written = append(s.written, *event)
	}
	return err
}

func (s *storage) count(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests += max(0, change)
	s.atOnce += change
	s.atMost = max(s.atMost, s.atOnce)
}

// recorderOf returns a recorder, and the lines that it logs.
func recorderOf(s *storage) (*Recorder, func() []string) {
	var mu sync.Mutex
	var lines []string
	r := NewRecorder(s)
	r.log = funcr.New(func(_, line string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	}, funcr.Options{})
	return r, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return lines
	}
}

func announce(r *Recorder, note string) {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID = "team", "web", "u"
	r.Eventf(pod, nil, "Normal", "Deleted", "Reconcile", "%s", note)
}

func TestRecorder_leavesTheAPIServerToOthersWhileEventsCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, began := NewWithT(t), time.Now()
		s := &storage{answer: func(ctx context.Context, _ *eventsv1.Event) error {
			if time.Since(began) >= time.Minute {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		r, logged := recorderOf(s)
		for n := range 100 {
			announce(r, fmt.Sprint(n))
		}
		time.Sleep(time.Minute - time.Second)
		s.mu.Lock()
		g.Expect(s.requests).To(Equal(6*8), "each takes 10 s")
		s.mu.Unlock()
		g.Expect(r.Unwritten()).To(Equal(100))
		r.Wait(5 * time.Minute)
		g.Expect(r.Unwritten()).To(BeZero())
		g.Expect(s.written).To(HaveLen(100))
		g.Expect(s.atMost).To(Equal(8))
		g.Expect(logged()).To(BeEmpty())
	})
}

func TestRecorder_logsTheEventsThatItLosesSinceTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, answer := NewWithT(t), make(chan struct{})
		s := &storage{answer: func(context.Context, *eventsv1.Event) error { <-answer; return nil }}
		r, logged := recorderOf(s)
		for range mostUnwritten {
			announce(r, "kept")
		}
		announce(r, "one too many")
		g.Expect(r.Unwritten()).To(Equal(mostUnwritten))
		close(answer)
		r.Wait(time.Second)
		g.Expect(r.Unwritten()).To(BeZero())
		g.Expect(s.written).To(HaveLen(mostUnwritten))
		g.Expect(logged()).To(ConsistOf(ContainSubstring("one too many")))
		announce(r, "later")
		r.Wait(time.Second)
		g.Expect(r.Unwritten()).To(BeZero())
		g.Expect(s.written).To(HaveLen(mostUnwritten + 1))
	})
}

func TestRecorder_answers(t *testing.T) {
	resource := schema.GroupResource{Group: "events.k8s.io", Resource: "events"}
	var (
		none      = errors.New("connection reset by peer")
		busy      = apierrors.NewTooManyRequests("later", 1)
		broken    = apierrors.NewInternalError(errors.New("etcdserver: request timed out"))
		exists    = apierrors.NewAlreadyExists(resource, "web.1")
		forbidden = apierrors.NewForbidden(resource, "web.1", errors.New("no"))
	)
	for name, test := range map[string]struct {
		answers  []error
		isLogged bool
	}{
		"written":                                {[]error{nil}, false},
		"too many requests":                      {[]error{busy, busy, nil}, false},
		"an error of the API server":             {[]error{broken, nil}, false},
		"refused":                                {[]error{forbidden}, true},
		"another event has the name":             {[]error{exists}, true},
		"another event has the name, found late": {[]error{busy, exists}, true},
		"written without an answer":              {[]error{none, exists}, false},
		"written with an error":                  {[]error{broken, busy, exists}, false},
		"never written":                          {[]error{none, none, none, none, none, none, none, none}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, answers := NewWithT(t), test.answers
				s := &storage{answer: func(context.Context, *eventsv1.Event) error {
					next := answers[0]
					answers = answers[1:]
					return next
				}}
				r, logged := recorderOf(s)
				announce(r, "gone")
				r.Wait(10 * time.Minute)
				g.Expect(r.Unwritten()).To(BeZero())
				g.Expect(answers).To(BeEmpty())
				g.Expect(logged()).To(HaveLen(map[bool]int{true: 1}[test.isLogged]))
			})
		})
	}
}

func TestRecorder_sharesNothingWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, answer := NewWithT(t), make(chan struct{})
		s := &storage{answer: func(context.Context, *eventsv1.Event) error { <-answer; return nil }}
		r, _ := recorderOf(s)
		regarding, related := &corev1.ObjectReference{Name: "web"}, &corev1.ObjectReference{Name: "m-1"}
		r.Eventf(regarding, related, "Normal", "Deleted", "Reconcile", "gone")
		regarding.Name, related.Name = "changed", "changed"
		close(answer)
		r.Wait(time.Second)
		g.Expect(r.Unwritten()).To(BeZero())
		g.Expect(s.written).To(HaveLen(1))
		g.Expect(s.written[0].Regarding.Name).To(Equal("web"))
		g.Expect(s.written[0].Related.Name).To(Equal("m-1"))
	})
}
