package customimage

import (
	"context"
	"errors"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// blindfold takes the permission to look from the key, which ECS then answers with empty lists, but not in dry runs.
func (w *world) blindfold() {
	GinkgoHelper()
	Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Blind, s.AccessKeys[0].HonestDryRun = true, true })).To(Succeed())
}

// acceptedBefore gives the live object an acceptance of another life, as a restore from a backup does.
func (w *world) acceptedBefore() {
	GinkgoHelper()
	image := w.get(w.id)
	image.Status.DeletionAcceptedTime = &metav1.Time{Time: w.clock.Now().Add(-24 * time.Hour)}
	Expect(admin.Status().Update(w.ctx, image)).To(Succeed())
}

var _ = Describe("What the operator cannot know of a deletion", func() {
	It("is no reason to say that the image is kept: a reply was lost", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Kind: ecssim.FaultAfter})).To(Succeed())
		w.deleteUnseen(w.id)
		w.turn(w.id)
		Expect(w.exists(w.id)).To(BeFalse())
		w.events()
		w.change(w.id, retained)
		w.turn(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(And(HavePrefix("Warning DeletionAccepted "), ContainSubstring("may have accepted"))))
	})

	DescribeTable("is no reason to say that the image is kept: a reply was lost, and a later answer says nothing about it",
		func(ctx SpecContext, later ecssim.Fault) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Kind: ecssim.FaultAfter})).To(Succeed())
			w.deleteUnseen(w.id)
			w.clock.Step(w.turn(w.id))
			later.Action = "DeleteImage"
			Expect(w.sim.AddFault(later)).To(Succeed())
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "ServiceUnavailable", HTTPStatus: 503, Times: -1})).To(Succeed())
			w.turn(w.id)
			w.sim.ClearFaults()
			w.events()
			w.change(w.id, retained)
			w.turn(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(HavePrefix("Warning DeletionAccepted ")))
		},
		Entry("a used-up quota", ecssim.Fault{Code: "Throttling", HTTPStatus: 400}),
		Entry("a failure of ECS", ecssim.Fault{Code: "ServiceUnavailable", HTTPStatus: 503}),
		Entry("a missing permission", ecssim.Fault{Code: "Forbidden.RAM", HTTPStatus: 403}),
		Entry("no such image", ecssim.Fault{Code: "InvalidImageId.NotFound", HTTPStatus: 404}),
	)

	It("is no reason to say that the image is kept: the status has an acceptance of another life", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.acceptedBefore()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Times: -1})).To(Succeed())
		w.deleteUnseen(w.id)
		w.turn(w.id)
		Expect(w.exists(w.id)).To(BeFalse())
		w.events()
		w.change(w.id, retained)
		w.turn(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning DeletionAccepted ")))
	})

	It("is no reason to call DeleteImage again: the clock is behind that of the API server", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.delayDeletion(ecssim.Forever)
		w.clock.SetTime(time.Now().Add(-10 * time.Minute).Truncate(time.Second))
		w.putImage(ecssim.Image{})
		w.create(w.id)
		w.delete(w.id)
		w.pass(w.id, 8*time.Minute)
		Expect(w.deletions()).To(Equal(1))
	})

	It("is no acceptance: another object has one of another life", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		other := w.beside()
		w.create(w.id)
		w.outlive(w.id)
		other.create(w.id)
		w.acceptedBefore()
		w.events()
		other.delete(w.id)
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
	})

	DescribeTable("makes no message promise that the image is kept", func(ctx SpecContext, happen func(*world)) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		happen(w)
		Expect(condition(w.get(w.id), "Stalled").Message).To(And(ContainSubstring("To remove"), Not(ContainSubstring("keep the image"))))
	},
		Entry("when the second call is refused as invalid", func(w *world) {
			w.delayDeletion(ecssim.Forever)
			w.delete(w.id)
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: "InvalidParameter", HTTPStatus: 400, Times: -1})).To(Succeed())
			w.pass(w.id, 10*time.Minute+10*time.Second)
		}),
		Entry("when the object is protected after a reply was lost", func(w *world) {
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Kind: ecssim.FaultAfter})).To(Succeed())
			w.deleteUnseen(w.id)
			w.turn(w.id)
			w.change(w.id, annotated(v1alpha1.AnnotationProtected, "true"))
			w.turn(w.id)
		}),
	)

	It("is no reason to say that the image is kept: the acceptance could not be written", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.delayDeletion(ecssim.Forever)
		w.create(w.id)
		w.deleteUnseen(w.id)
		w.cache.SubResourcePatch = func(
			context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return apierrors.NewInternalError(errors.New("no leader"))
		}
		w.turn(w.id)
		w.cache.SubResourcePatch = nil
		w.events()
		w.change(w.id, retained)
		w.turn(w.id)
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning DeletionAccepted ")))
		Expect(w.deletions()).To(Equal(1))
	})

	It("is no reason to say that the image is kept: ECS accepted the deletion for another object", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.delayDeletion(ecssim.Duration(time.Minute))
		other := w.beside()
		w.create(w.id)
		w.outlive(w.id)
		other.create(w.id)
		w.delete(w.id)
		Expect(readyReason(w.get(w.id))).To(Equal("Deleting"))
		other.change(w.id, retained)
		w.events()
		other.delete(w.id)
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning DeletionAccepted ")))
	})

	It("is no deletion: the key went blind after ECS accepted it", func(ctx SpecContext) {
		w := newWorldAccepted(ctx, ecssim.Forever)
		w.events()
		w.blindfold()
		w.pass(w.id, time.Minute)
		Expect(w.events()).NotTo(ContainElement(HavePrefix("Normal Deleted ")))
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Denied"))
	})

	It("is no deletion: the key went blind, and DeleteImage answers that there is no such image", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.blindfold()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: -1})).To(Succeed())
		w.events()
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeFalse())
		Expect(w.events()).NotTo(ContainElement(HavePrefix("Normal Deleted ")))
	})

	It("is no acceptance: DeleteImage answers that there is no such image, and ECS shows it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: 1})).To(Succeed())
		w.deleteUnseen(w.id)
		w.turn(w.id)
		Expect(w.get(w.id).Status.DeletionAcceptedTime).To(BeNil())
		w.turn(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("is no acceptance: one that is older than the deletion of the object, when it is kept", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, retained)
		w.acceptedBefore()
		w.events()
		w.delete(w.id)
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("is no acceptance: one that is older than the deletion of the object, when the key is blind", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.acceptedBefore()
		w.blindfold()
		w.events()
		w.delete(w.id)
		Expect(w.deletions()).To(Equal(1))
		w.clock.Step(time.Minute)
	})
})

var _ = Describe("A change of mind", func() {
	DescribeTable("is respected up to the read of the object, which is the last one before DeleteImage",
		func(ctx SpecContext, while func(w *world, change func())) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			w.outlive(w.id)
			w.deleteUnseen(w.id)
			changed := false
			while(w, func() {
				if !changed {
					changed = true
					w.change(w.id, retained)
				}
			})
			w.attempt(w.id)
			Expect(changed).To(BeTrue())
			Expect(w.exists(w.id)).To(BeTrue())
			Expect(w.deletions()).To(BeZero())
		},
		Entry("while the namespace is read", func(w *world, change func()) {
			w.live.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if _, ok := o.(*metav1.PartialObjectMetadata); ok {
					change()
				}
				return c.Get(ctx, key, o, opts...)
			}
		}),
		Entry("while the rivals are listed", func(w *world, change func()) {
			w.live.List = func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
				change()
				return c.List(ctx, l, opts...)
			}
		}),
	)

	It("is respected by the deletion of a namespace that the cache does not show for hours", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.outlive(w.id)
		w.delete(w.id)
		w.clock.Step(5 * time.Minute)
		w.attempt(w.id)
		w.freezeNamespace()
		w.endNamespace()
		w.putImage(ecssim.Image{})
		w.clock.Step(3 * time.Hour)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
	})

	DescribeTable("is acted on at once when a hold ends, although an obstacle was reported before",
		func(ctx SpecContext, hold, end func(w, other *world), reason string) {
			w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
			other := w.beside()
			w.create(w.id)
			w.outlive(w.id)
			other.create(w.id)
			w.delete(w.id)
			w.pass(w.id, time.Hour)
			hold(w, other)
			w.attempt(w.id)
			w.expectStalled(w.id, reason)
			w.putImage(ecssim.Image{})
			end(w, other)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(BeFalse())
		},
		Entry("by the protection",
			func(w, _ *world) { w.change(w.id, annotated(v1alpha1.AnnotationProtected, "true")) },
			func(w, _ *world) { w.change(w.id, func(image *v1alpha1.CustomImage) { image.Annotations = nil }) }, "Protected"),
		Entry("by another object that keeps the image",
			func(w, other *world) { other.change(w.id, retained) },
			func(w, other *world) {
				other.change(w.id, func(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
			}, "Conflict"),
	)
})
