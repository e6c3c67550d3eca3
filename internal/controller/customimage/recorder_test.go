package customimage

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
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
		Expect(r.Wait(100 * time.Millisecond)).To(BeFalse())
		Expect(w.eventsOf(w.id, "Deleted")).To(BeEmpty())
		close(answer)
		Expect(r.Wait(20 * time.Second)).To(BeTrue())
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
		Expect(r.Wait(20 * time.Second)).To(BeTrue())
		Expect(requests).To(Equal(2))
		Expect(w.eventsOf(w.id, "Deleted")).To(HaveLen(1))
	})
})
