package customimage

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func deletes(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete }

var _ = Describe("The deletion of an object that owns its image", func() {
	// ownerAndKeeper are worlds with one image: an older object that owns it, and the place for a younger one.
	ownerAndKeeper := func(ctx context.Context, image ecssim.Image) (owner, keeper *world) {
		GinkgoHelper()
		owner = newWorld(ctx, image)
		owner.createOlder()
		return owner, owner.beside()
	}
	expectHeld := func(owner, keeper *world, why string) {
		GinkgoHelper()
		owner.expectStalled(owner.id, "Conflict", keeper.namespace+"/"+keeper.id+" keeps the image", why)
		Expect(owner.exists(owner.id)).To(BeTrue())
	}
	inOneWatch := func(owner *world) { owner.watches(owner.id) }
	policy, annotation := "spec.deletionPolicy is Retain", v1alpha1.AnnotationProtected

	DescribeTable("is held while another object keeps the image",
		func(ctx SpecContext, keeps func(*v1alpha1.CustomImage), why string, ends func(keeper *world)) {
			owner, keeper := ownerAndKeeper(ctx, ecssim.Image{})
			keeper.create(keeper.id, keeps)
			owner.delete(owner.id)
			expectHeld(owner, keeper, why)
			owner.attemptWhenDue(owner.id)
			expectHeld(owner, keeper, why)
			Expect(owner.deletions()).To(BeZero())

			ends(keeper)
			owner.events()
			owner.attempt(owner.id)
			Expect(owner.gone(owner.id)).To(BeTrue())
			Expect(owner.exists(owner.id)).To(BeFalse())
			Expect(owner.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
		},
		Entry("by its policy, until that becomes Delete", retained, policy, func(keeper *world) { keeper.change(keeper.id, deletes) }),
		Entry("by its policy, until it is deleted", retained, policy, func(keeper *world) {
			keeper.delete(keeper.id)
			Expect(keeper.gone(keeper.id)).To(BeTrue())
		}),
		Entry("by its protection, until that is removed", annotated(v1alpha1.AnnotationProtected, "until May"), annotation,
			func(keeper *world) { keeper.change(keeper.id, unannotated) }),
		Entry("by its protection, until that is false", annotated(v1alpha1.AnnotationProtected, "true"), annotation,
			func(keeper *world) { keeper.change(keeper.id, annotated(v1alpha1.AnnotationProtected, "false")) }),
		Entry("by its protection, until it is deleted", annotated(v1alpha1.AnnotationProtected, "true"), annotation,
			func(keeper *world) {
				keeper.deleteUnseen(keeper.id)
				keeper.attempt(keeper.id)
				Expect(keeper.gone(keeper.id)).To(BeFalse(), "it is protected")
				keeper.change(keeper.id, retained)
				keeper.attempt(keeper.id)
				Expect(keeper.gone(keeper.id)).To(BeTrue())
			}),
	)

	It("is held while a deleted object that is protected keeps the image", func(ctx SpecContext) {
		owner, keeper := ownerAndKeeper(ctx, ecssim.Image{})
		keeper.create(keeper.id, annotated(v1alpha1.AnnotationProtected, "true"))
		keeper.delete(keeper.id)
		keeper.expectStalled(keeper.id, "Protected")
		owner.delete(owner.id)
		expectHeld(owner, keeper, annotation)
		Expect(owner.deletions()).To(BeZero())
	})

	DescribeTable("is not held by an object that", func(ctx SpecContext, prepare func(keeper *world)) {
		owner, keeper := ownerAndKeeper(ctx, ecssim.Image{})
		prepare(keeper)
		Expect(keeper.get(keeper.id).Spec.DeletionPolicy).To(Equal(v1alpha1.DeletionPolicyRetain))
		owner.delete(owner.id)
		Expect(owner.gone(owner.id)).To(BeTrue())
		Expect(owner.exists(owner.id)).To(BeFalse())
	},
		Entry("never saw the image", func(keeper *world) { keeper.createUnseen(keeper.id, retained) }),
		Entry("has a key that does not see the image", func(keeper *world) {
			keeper.inTwoAccounts()
			keeper.create(keeper.id, retained, withSecret("other"))
			Expect(trueObstacles(keeper.get(keeper.id))).To(ConsistOf("NotFound"))
		}),
		Entry("saw it in another account", func(keeper *world) {
			keeper.create(keeper.id, retained)
			image := keeper.get(keeper.id)
			image.Status.Image.OwnerID = thatAccount
			Expect(admin.Status().Update(keeper.ctx, image)).To(Succeed())
		}),
		Entry("saw one of this ID in another region", func(keeper *world) {
			keeper.createUnseen(keeper.id, retained, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = "cn-shanghai" })
			image := keeper.get(keeper.id)
			image.Status.Image = &v1alpha1.ImageStatus{ImageID: keeper.id, RegionID: "cn-shanghai", OwnerID: thisAccount}
			Expect(admin.Status().Update(keeper.ctx, image)).To(Succeed())
		}),
	)

	It("ends without the image if the release annotation names it", func(ctx SpecContext) {
		owner, keeper := ownerAndKeeper(ctx, ecssim.Image{})
		keeper.create(keeper.id, retained)
		owner.delete(owner.id)
		expectHeld(owner, keeper, policy)
		Expect(condition(owner.get(owner.id), "Ready").Message).To(ContainSubstring(
			"`kubectl annotate cimg %s -n %s --overwrite ecs.imagegc.io/release=%s`", owner.id, owner.namespace, owner.id))
		owner.events()
		owner.change(owner.id, annotated(v1alpha1.AnnotationRelease, owner.id))
		owner.attempt(owner.id)
		Expect(owner.gone(owner.id)).To(BeTrue())
		Expect(owner.deletions()).To(BeZero())
		Expect(owner.events()).To(ConsistOf(HavePrefix("Normal Released ")))
	})

	DescribeTable("is held also if the cache does not show yet that another object keeps the image now",
		func(ctx SpecContext, prove func(owner *world), liveLists int) {
			owner, keeper := ownerAndKeeper(ctx, ecssim.Image{})
			keeper.create(keeper.id)
			owner.freeze(owner.id)
			prove(owner)
			keeper.change(keeper.id, retained)
			owner.clock.SetTime(time.Now())
			reads := owner.liveReads()
			owner.delete(owner.id)
			expectHeld(owner, keeper, policy)
			Expect(owner.deletions()).To(BeZero())
			Expect(reads["list"]).To(Equal(liveLists))

			keeper.change(keeper.id, deletes)
			owner.attempt(owner.id)
			Expect(owner.exists(owner.id)).To(BeFalse())
		},
		Entry("with a cache whose age cannot be proven", func(*world) {}, 1),
		Entry("with a cache that is proven to name that object", inOneWatch, 0),
	)

	DescribeTable("is held also if an object that the cache does not have keeps the image, after a long time in use",
		func(ctx SpecContext, prove func(owner *world)) {
			owner, keeper := ownerAndKeeper(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
			owner.delete(owner.id)
			Expect(trueObstacles(owner.get(owner.id))).To(ConsistOf("InUse"))
			Expect(owner.deletions()).To(Equal(1))
			prove(owner)
			owner.freeze(owner.id)
			keeper.create(keeper.id, retained)
			Expect(meta.IsStatusConditionTrue(keeper.get(keeper.id).Status.Conditions, "Stalled")).To(BeTrue(), "it is the younger one")
			Expect(owner.sim.PutImage(ecssim.Image{ImageID: owner.id, RegionID: region})).To(Succeed())
			owner.clock.Step(time.Hour)
			owner.attempt(owner.id)
			expectHeld(owner, keeper, policy)
			Expect(owner.deletions()).To(Equal(1))
		},
		Entry("with a cache whose age cannot be proven", func(*world) {}),
		Entry("with a cache that was proven when the object was deleted", inOneWatch),
	)
})

var _ = DescribeTable("An object that does not own its image is released without a call", func(ctx SpecContext, keepers ...func(*v1alpha1.CustomImage)) {
	owner := newWorld(ctx, ecssim.Image{})
	owner.createOlder(keepers[0])
	youngest := owner.beside()
	youngest.create(youngest.id, keepers[1])
	w := owner.beside()
	w.create(w.id)
	w.events()
	w.delete(w.id)
	Expect(w.gone(w.id)).To(BeTrue())
	Expect(w.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring(owner.namespace+"/"+owner.id))))
	Expect(w.deletions()).To(BeZero())
	Expect(w.exists(w.id)).To(BeTrue())
},
	Entry("if the owner keeps the image", retained, deletes),
	Entry("if the owner is protected", annotated(v1alpha1.AnnotationProtected, "true"), deletes),
	Entry("if another one keeps the image", deletes, retained),
	Entry("if none keeps it", deletes, deletes),
)
