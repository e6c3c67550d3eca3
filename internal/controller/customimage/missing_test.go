package customimage

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("An image that ECS does not show", func() {
	DescribeTable("is never announced as deleted, whatever ECS would answer to its deletion",
		func(ctx SpecContext, answer ecssim.UnknownImage, seenBefore bool) {
			w := newWorld(ctx)
			Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.UnknownImage = answer })).To(Succeed())
			if seenBefore {
				w.putImage(ecssim.Image{})
			}
			w.create(w.id)
			if seenBefore { // the image is deleted elsewhere, and the object says so
				w.sim.DeleteImage(w.id)
				w.clock.Step(7 * time.Hour)
				w.attempt(w.id)
			}
			image := w.get(w.id)
			expectObstacle(image, ecs.CodeImageNotFound, decision.MeaningOf("", ecs.CodeImageNotFound))
			w.events()
			w.delete(w.id)
			w.clock.Step(30 * time.Second)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.calls("DeleteImage", w.id)).To(BeZero())
			Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")))
		},
		Entry("404, for an image that was never shown", ecssim.UnknownNotFound, false),
		Entry("200, for an image that was never shown", ecssim.UnknownIgnored, false),
		Entry("404, for an image that was deleted elsewhere", ecssim.UnknownNotFound, true),
		Entry("200, for an image that was deleted elsewhere", ecssim.UnknownIgnored, true),
	)

	It("is not deleted on the word of an older look when the status could not be told of the last one", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.setBlind(true, false)
		w.clock.Step(7 * time.Hour)
		w.cache.SubResourcePatch = func(
			_ context.Context, _ client.Client, _ string, o client.Object, _ client.Patch, _ ...client.SubResourcePatchOption,
		) error {
			return apierrors.NewConflict(schema.GroupResource{}, o.GetName(), errors.New("changed"))
		}
		w.attempt(w.id)
		w.cache.SubResourcePatch = nil
		Expect(w.get(w.id).Status.MissingSince).To(BeNil())
		w.delete(w.id)
		w.clock.Step(30 * time.Second)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.calls("DeleteImage", w.id)).To(BeZero())
		Expect(w.exists(w.id)).To(BeTrue())
	})

	DescribeTable("is never deleted while the key cannot see it, and its object is removed after two looks",
		func(ctx SpecContext, seenBefore bool) {
			w := newWorld(ctx, ecssim.Image{})
			if seenBefore {
				w.create(w.id)
				Expect(w.get(w.id).Status.Image).NotTo(BeNil())
				w.setBlind(true, false)
				w.clock.Step(7 * time.Hour)
				w.attempt(w.id)
			} else {
				w.setBlind(true, false)
				w.create(w.id)
			}
			Expect(trueObstacles(w.get(w.id))).To(ConsistOf("NotFound"))
			w.events()

			w.delete(w.id)
			Expect(w.gone(w.id)).To(BeFalse(), "one look is not enough")
			image := w.get(w.id)
			Expect(trueObstacles(image)).To(ConsistOf("NotFound"))
			Expect(condition(image, "Reconciling").Status).To(Equal(metav1.ConditionTrue))
			w.clock.Step(29 * time.Second)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeFalse(), "29 seconds are not enough")
			w.clock.Step(time.Second)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(BeTrue())
			Expect(w.deletions()).To(BeZero())
			Expect(w.events()).To(ConsistOf(And(HavePrefix("Warning NotFound "), ContainSubstring("No image was deleted"),
				ContainSubstring("deleted elsewhere"), ContainSubstring("not visible to the access key"))))
		},
		Entry("from the beginning", false),
		Entry("any more", true),
	)

	It("is looked at twice if its object is deleted before the first look", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.setBlind(true, false)
		w.createUnseen(w.id, withFinalizer)
		Expect(w.delete(w.id).RequeueAfter).To(Equal(30 * time.Second))
		w.clock.Step(29 * time.Second)
		w.restart()
		Expect(w.attempt(w.id).RequeueAfter).To(Equal(time.Second), "the first look is on record")
		w.clock.Step(time.Second)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
	})

	It("is looked at once more if a look at the live object did not show it half a minute before", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.setBlind(true, false)
		w.create(w.id)
		w.clock.Step(30 * time.Second)
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
	})

	It("is deleted, and recorded before, if the key can see it at the second look", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.setBlind(true, false)
		w.create(w.id)
		w.delete(w.id)
		w.events()
		w.setBlind(false, false)
		w.once("DeleteImage", func() {
			defer GinkgoRecover()
			status := w.get(w.id).Status
			Expect(status.Image).NotTo(BeNil())
			Expect(status.MissingSince).To(BeNil())
		})
		w.clock.Step(30 * time.Second)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
	})

	It("is held as Denied if a dry run says that the key may not look", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.setBlind(true, true)
		w.create(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Denied"))
		w.delete(w.id)
		w.pass(w.id, 2*time.Hour)
		Expect(w.gone(w.id)).To(BeFalse())
		Expect(condition(w.get(w.id), "Stalled").Reason).To(Equal("ForbiddenRAM"))
		Expect(condition(w.get(w.id), "Stalled").Message).To(ContainSubstring("Grant ecs:DescribeImages "))
		Expect(w.get(w.id).Status.MissingSince).To(BeNil())
		Expect(w.deletions()).To(BeZero())

		w.setBlind(false, false)
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})
})

// setBlind takes the permission to look from the key, and ECS answers its looks with an empty list. An honest dry run
// says that it has no permission.
func (w *world) setBlind(blind, honest bool) {
	GinkgoHelper()
	Expect(w.sim.Configure(func(s *ecssim.Scenario) {
		s.AccessKeys[0].Blind, s.AccessKeys[0].HonestDryRun = blind, honest
	})).To(Succeed())
}
