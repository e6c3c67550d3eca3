package customimage

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// olderByAMoment is long enough to tell the ages of two objects, and not so long that the namespace seems to have been
// created after the older one.
const olderByAMoment = 30 * time.Second

// createOlder makes an object that is older than those that were created in the same second, and a first attempt.
func (w *world) createOlder(change ...func(*v1alpha1.CustomImage)) {
	GinkgoHelper()
	w.createUnseen(w.id, change...)
	w.bornEarlier(w.id, olderByAMoment)
	w.attempt(w.id)
}

// reference is how a status names the world's object as the owner.
func (w *world) reference() v1alpha1.OwnerReference {
	GinkgoHelper()
	return v1alpha1.OwnerReference{Namespace: w.namespace, Name: w.id, UID: w.get(w.id).UID}
}

var _ = Describe("Of two objects for one image", func() {
	// two are worlds with one image, each for an object.
	two := func(ctx context.Context) (older, younger *world) {
		GinkgoHelper()
		older = newWorld(ctx, ecssim.Image{})
		return older, older.beside()
	}

	It("the older one owns it: the younger one says so, and its deletion keeps the image", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.create(younger.id)
		younger.expectStalled(younger.id, "Conflict", older.namespace+"/"+older.id)
		Expect(condition(older.get(older.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.events()
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(younger.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring(older.namespace+"/"+older.id))))
		Expect(older.deletions()).To(BeZero())

		older.delete(older.id)
		Expect(older.exists(older.id)).To(BeFalse())
	})

	It("the older one owns it although the younger one saw it first", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createUnseen(older.id)
		older.bornEarlier(older.id, olderByAMoment)
		younger.create(younger.id)
		Expect(condition(younger.get(younger.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.attempt(older.id)
		Expect(condition(older.get(older.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("the older one owns it when the younger one is deleted before its first check", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.createUnseen(younger.id, withFinalizer)
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("the older one owns it when the key of the younger one may delete it but does not see it", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.createUnseen(younger.id, withFinalizer)
		Expect(older.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: 1})).To(Succeed())
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("the older one does not own it if its key never saw it", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.inTwoAccounts()
		older.createOlder(withSecret("other"))
		Expect(trueObstacles(older.get(older.id))).To(ConsistOf("NotFound"))
		younger.create(younger.id)
		Expect(condition(younger.get(younger.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.clock.Step(decision.Agreement)
		older.delete(older.id)
		Expect(older.gone(older.id)).To(BeTrue())
		Expect(older.exists(older.id)).To(BeTrue())
		younger.delete(younger.id)
		Expect(older.exists(older.id)).To(BeFalse())
	})

	It("the younger one keeps the image when it is deleted as its message advises, also if the owner is deleted first", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder(retained)
		younger.create(younger.id)
		younger.expectStalled(younger.id, "Conflict", "Delete this object: that does not delete the image.")
		older.delete(older.id)
		Expect(older.gone(older.id)).To(BeTrue())
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(younger.exists(younger.id)).To(BeTrue())
	})

	It("the older one owns it also if its status names no account", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		image := older.get(older.id)
		image.Status.Image.OwnerID = ""
		Expect(admin.Status().Update(ctx, image)).To(Succeed())
		younger.createUnseen(younger.id, withFinalizer)
		younger.delete(younger.id)
		Expect(younger.exists(younger.id)).To(BeTrue())
		Expect(younger.gone(younger.id)).To(BeTrue())
	})

	It("the older one owns it also if the cache does not have it, as in a namespace that is not watched", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.createUnseen(younger.id, withFinalizer)
		younger.cache.List = func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil }
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(younger.exists(younger.id)).To(BeTrue())
	})

	DescribeTable("the younger one keeps the image also if the owner is deleted while the younger one",
		func(ctx SpecContext, hinder, unhinder func(younger *world)) {
			older, younger := two(ctx)
			older.createOlder(retained)
			younger.create(younger.id)
			hinder(younger)
			younger.delete(younger.id)
			Expect(younger.gone(younger.id)).To(BeFalse())
			Expect(younger.readyReason(younger.id)).NotTo(Equal("Conflict"))
			unhinder(younger)
			older.delete(older.id)
			Expect(older.gone(older.id)).To(BeTrue())
			younger.attemptWhenDue(younger.id)
			Expect(younger.gone(younger.id)).To(BeTrue())
			Expect(younger.exists(younger.id)).To(BeTrue())
		},
		Entry("waits for another finalizer",
			func(younger *world) {
				younger.change(younger.id, func(image *v1alpha1.CustomImage) {
					image.Finalizers = append(image.Finalizers, "foregroundDeletion")
				})
			},
			func(younger *world) { younger.change(younger.id, withFinalizer) }),
		Entry("cannot be released",
			func(younger *world) {
				younger.cache.Patch = func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
					return apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("customimages").GroupResource(), younger.id, nil)
				}
			},
			func(younger *world) { younger.undisturbed() }),
	)

	It("the younger one does not say that the image is kept if the deletion of the owner deleted it", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.create(younger.id)
		older.delete(older.id)
		Expect(older.exists(older.id)).To(BeFalse())
		younger.events()
		younger.delete(younger.id)
		Expect(younger.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring("No image was deleted"),
			Not(ContainSubstring("stays")), Not(ContainSubstring("kept")), Not(ContainSubstring("leaves")))))
	})

	It("the next one becomes the owner when the first one is deleted and keeps the image", func(ctx SpecContext) {
		oldest, youngest := two(ctx)
		middle := oldest.beside()
		oldest.createUnseen(oldest.id, retained)
		oldest.bornEarlier(oldest.id, 2*olderByAMoment-5*time.Second)
		oldest.attempt(oldest.id)
		middle.createOlder()
		youngest.create(youngest.id)
		Expect(youngest.get(youngest.id).Status.OwnedBy).To(Equal(oldest.reference()))
		oldest.delete(oldest.id)
		middle.attempt(middle.id)
		youngest.attempt(youngest.id)
		Expect(middle.get(middle.id).Status.OwnedBy).To(BeZero())
		youngest.expectStalled(youngest.id, "Conflict", middle.namespace+"/"+middle.id)
		Expect(youngest.get(youngest.id).Status.OwnedBy).To(Equal(middle.reference()))
	})

	It("the younger one is released although its Secret is deleted", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.create(younger.id)
		younger.change(younger.id, withSecret("missing"))
		younger.delete(younger.id)
		Expect(younger.gone(younger.id)).To(BeTrue())
		Expect(younger.exists(younger.id)).To(BeTrue())
	})

	It("each owns its own if the images are in different regions", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder()
		younger.create(younger.id, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = "cn-shanghai" })
		Expect(trueObstacles(younger.get(younger.id))).To(ConsistOf("NotFound"))
		younger.clock.Step(decision.Agreement)
		younger.events()
		younger.delete(younger.id)
		Expect(younger.events()).To(ConsistOf(HavePrefix("Warning NotFound ")), "not Retained: it is another image")
		older.delete(older.id)
		Expect(older.exists(older.id)).To(BeFalse())
	})

	It("the younger one becomes the owner when the older one is deleted and keeps the image", func(ctx SpecContext) {
		older, younger := two(ctx)
		older.createOlder(retained)
		younger.create(younger.id)
		younger.expectStalled(younger.id, "Conflict")
		older.delete(older.id)
		younger.attemptWhenDue(younger.id)
		Expect(condition(younger.get(younger.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		younger.delete(younger.id)
		Expect(younger.exists(younger.id)).To(BeFalse())
	})
})
