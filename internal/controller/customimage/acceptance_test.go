package customimage

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("A deletion that ECS accepted", func() {
	It("is waited for while ECS still shows the image", func(ctx SpecContext) {
		w := newWorldAccepted(ctx, ecssim.Duration(20*time.Second))
		image := w.get(w.id)
		Expect(condition(image, "Ready").Reason).To(Equal("Deleting"))
		Expect(condition(image, "Reconciling").Reason).To(Equal("Deleting"))
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeFalse())
		w.clock.Step(20 * time.Second)
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
	})

	It("is Stalled while ECS shows the image for more than ten minutes", func(ctx SpecContext) {
		w := newWorldAccepted(ctx, ecssim.Forever)
		w.events()
		w.clock.Step(11 * time.Minute)
		w.attempt(w.id)
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning Deleting ")))
		for range 3 {
			w.expectStalled(w.id, "Deleting", "release="+w.id)
			w.attemptWhenDue(w.id)
		}
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("is Stalled after ten minutes, also if ECS fails twice every two minutes in between", func(ctx SpecContext) {
		w := newWorldAccepted(ctx, ecssim.Forever)
		for n := range 5 {
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "ServiceUnavailable", HTTPStatus: 503, Times: 2})).To(Succeed())
			w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, fmt.Sprint(n)))
			w.pass(w.id, 2*time.Minute)
			Expect(w.events()).To(ContainElement(HavePrefix("Warning Retrying ")))
		}
		Expect(w.get(w.id).Status.DeletionAcceptedTime.Time).To(BeTemporally("==", w.clock.Now().Add(-10*time.Minute)))
		Expect(condition(w.get(w.id), "Stalled").Type).To(BeEmpty())
		w.pass(w.id, 10*time.Second)
		w.expectStalled(w.id, "Deleting", "more than 10 minutes")
	})

	DescribeTable("is called for once while ECS shows the image for some time longer",
		func(ctx SpecContext, delay time.Duration) {
			w := newWorldAccepted(ctx, ecssim.Duration(delay))
			w.pass(w.id, delay)
			Expect(w.gone(w.id)).To(BeFalse())
			w.restart()
			w.pass(w.id, 5*time.Minute)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
			Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
		},
		Entry("5 seconds", 5*time.Second),
		Entry("9 minutes", 9*time.Minute),
	)

	It("is called for again after ten minutes, and is over when ECS refuses it then", func(ctx SpecContext) {
		w := newWorldAccepted(ctx, ecssim.Forever)
		w.putImage(ecssim.Image{UsedBy: []string{"i-bp1a"}}) // it is back
		w.pass(w.id, 10*time.Minute-time.Second)
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		w.pass(w.id, 10*time.Second)
		Expect(w.calls("DeleteImage", w.id)).To(Equal(2))
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("InUse"))
		Expect(w.get(w.id).Status.DeletionAcceptedTime).To(BeNil())

		w.events()
		w.change(w.id, retained)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
	})

	DescribeTable("is announced as accepted if a user keeps the image afterwards, and ECS still shows it",
		func(ctx SpecContext, keep func(*world)) {
			w := newWorldAccepted(ctx, ecssim.Forever)
			w.events()
			before := countReleases("DeletionAccepted", "Retained", "Released")
			keep(w)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(And(HavePrefix("Warning DeletionAccepted "),
				ContainSubstring("Expect the image to be deleted"), ContainSubstring("before that"))))
			Expect(countReleases("DeletionAccepted", "Retained", "Released")).To(
				Equal([]float64{before[0], before[1] + 1, before[2], before[3]}))
			Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		},
		keepers,
	)

	DescribeTable("is announced as Deleted if a user keeps the image afterwards, and ECS does not show it",
		func(ctx SpecContext, keep func(*world)) {
			w := newWorldAccepted(ctx, ecssim.Duration(time.Second))
			w.events()
			keep(w)
			w.clock.Step(time.Second)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
			Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		},
		keepers,
	)

	DescribeTable("keeps the object until a look confirms that the image is gone",
		func(ctx SpecContext, fault ecssim.Fault) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			w.events()
			fault.Action, fault.Times = "DescribeImages", -1
			Expect(w.sim.AddFault(fault)).To(Succeed())
			w.deleteUnseen(w.id)
			w.turn(w.id)
			Expect(w.exists(w.id)).To(BeFalse(), "DeleteImage took effect")
			Expect(w.gone(w.id)).To(BeFalse())
			Expect(w.get(w.id).Finalizers).To(ContainElement(v1alpha1.Finalizer))
			Expect(w.events()).NotTo(ContainElement(HavePrefix("Normal Deleted ")))
			w.sim.ClearFaults()
			w.clock.Step(10 * time.Minute)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
		},
		hiccups, refusedLooks,
	)

	DescribeTable("is recorded although the look after it fails",
		func(ctx SpecContext, fault ecssim.Fault) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			w.events()
			fault.Action, fault.Times = "DescribeImages", -1
			Expect(w.sim.AddFault(fault)).To(Succeed())
			w.deleteUnseen(w.id)
			w.turn(w.id)
			Expect(w.get(w.id).Status.DeletionAcceptedTime.Time).To(BeTemporally("==", w.clock.Now()))

			w.change(w.id, retained)
			w.restart()
			w.turn(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(And(ContainElement(HavePrefix("Warning DeletionAccepted ")),
				Not(ContainElement(ContainSubstring(" Retained ")))))
			Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		},
		hiccups, refusedLooks,
	)

	DescribeTable("is recorded although a user changes the object to Retain while DeleteImage is in flight",
		func(ctx SpecContext, delay ecssim.Duration, fault *ecssim.Fault, event string) {
			w := newWorld(ctx, ecssim.Image{})
			w.delayDeletion(delay)
			w.create(w.id)
			w.deleteUnseen(w.id)
			w.events()
			w.once("DeleteImage", func() {
				defer GinkgoRecover()
				w.change(w.id, retained)
				if fault != nil {
					Expect(w.sim.AddFault(*fault)).To(Succeed())
				}
			})
			w.turn(w.id)
			Expect(w.gone(w.id)).To(BeFalse())
			Expect(w.get(w.id).Status.DeletionAcceptedTime.Time).To(BeTemporally("==", w.clock.Now()))
			w.restart()
			w.turn(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(HavePrefix(event)))
			Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		},
		Entry("and ECS still shows the image", ecssim.Forever, nil, "Warning DeletionAccepted "),
		Entry("and the image is gone at once", ecssim.Duration(0), nil, "Normal Deleted "),
		Entry("and the look fails", ecssim.Forever, &ecssim.Fault{Action: "DescribeImages", Times: -1}, "Warning DeletionAccepted "),
	)

	It("is found out by the next attempt if its reply is lost", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.events()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Kind: ecssim.FaultAfter})).To(Succeed())
		w.deleteUnseen(w.id)
		_, err := w.reconcile(w.id)
		Expect(err).To(HaveOccurred())
		Expect(w.gone(w.id)).To(BeFalse())
		w.restart()
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
	})
})

// keepers are what a user can do to keep the image of a deleted object.
var keepers = []TableEntry{
	Entry("by the policy Retain", func(w *world) { w.change(w.id, retained) }),
	Entry("by the release annotation", func(w *world) { w.change(w.id, annotated(v1alpha1.AnnotationRelease, w.id)) }),
	Entry("by deleting the namespace", func(w *world) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
		Expect(admin.Delete(w.ctx, namespace)).To(Succeed())
	}),
}

// refusedLooks are failures of a look that say nothing about the deletion before it.
var refusedLooks = []TableEntry{
	Entry("a refused permission", ecssim.Fault{Kind: ecssim.FaultBefore, Code: "Forbidden.RAM", HTTPStatus: 403}),
	Entry("a throttled call", ecssim.Fault{Kind: ecssim.FaultBefore, Code: "Throttling", HTTPStatus: 400}),
}

// newWorldAccepted makes a world in which ECS has accepted the deletion of the image, and shows it for some time
// longer.
func newWorldAccepted(ctx context.Context, delay ecssim.Duration) *world {
	GinkgoHelper()
	w := newWorld(ctx, ecssim.Image{})
	w.delayDeletion(delay)
	w.create(w.id)
	w.delete(w.id)
	Expect(w.get(w.id).Status.DeletionAcceptedTime.Time).To(BeTemporally("==", w.clock.Now()))
	return w
}

func (w *world) delayDeletion(delay ecssim.Duration) {
	GinkgoHelper()
	Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.DeletionDelay = delay })).To(Succeed())
}
