package controller

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// aSecondLater is when the API server's clock, which counts seconds, has gone on.
func aSecondLater() { time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

var _ = Describe("Two objects for one image", func() {
	// two creates the older object in a namespace of its own, and the younger one in the world's.
	two := func(images ...ecssim.Image) (older, younger *world) {
		GinkgoHelper()
		older = newWorld(images...)
		younger = &world{CustomImageReconciler: older.CustomImageReconciler, clock: older.clock, sim: older.sim,
			namespace: newNamespace(), announced: older.announced}
		return older, younger
	}

	It("let the older one own it: the younger says so, and its deletion leaves the image", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id)
		younger.expectStalled(id, "Conflict", older.namespace+"/"+id)
		Expect(condition(older.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.events()
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring(older.namespace+"/"+id))))
		Expect(older.deletions()).To(BeZero())

		older.delete(id)
		Expect(older.exists(id)).To(BeFalse())
	})

	It("let the older one own it although the younger saw it first", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.createUnseen(id)
		aSecondLater()
		younger.create(id)
		Expect(condition(younger.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.attempt(id)
		Expect(condition(older.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("let the owner's image alone when the younger is deleted before anybody looked for it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("let the owner's image alone when the younger's key may delete it but is not shown it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		Expect(older.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: 1})).To(Succeed())
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("do not let an older one own it whose key never saw it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.inTwoAccounts()
		older.create(id, withSecret("other"))
		Expect(trueObstacles(older.get(id))).To(ConsistOf("NotFound"))
		aSecondLater()
		younger.create(id)
		Expect(condition(younger.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.delete(id)
		Expect(older.gone(id)).To(BeTrue())
		Expect(older.exists(id)).To(BeTrue())
		younger.delete(id)
		Expect(older.exists(id)).To(BeFalse())
	})

	It("leave the image when the younger is deleted as its message advises, although the owner went meanwhile", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id, retained)
		aSecondLater()
		younger.create(id)
		younger.expectStalled(id, "Conflict", "Delete this object: that leaves the image.")
		older.delete(id)
		Expect(older.gone(id)).To(BeTrue())
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("let the older one own it also if its status names no account", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		image := older.get(id)
		image.Status.Image.OwnerID = ""
		Expect(admin.Status().Update(context.Background(), image)).To(Succeed())
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		younger.delete(id)
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("let the older one own it also if the cache does not have it, or it is in a namespace that is not watched", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		younger.Client = interceptor.NewClient(younger.Client.(client.WithWatch), interceptor.Funcs{
			List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil },
		})
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("leave the image also if the younger had to wait for others, or could not be let go, while the owner went", func() {
		for _, hindrance := range []func(younger *world) (end func()){
			func(younger *world) func() {
				younger.change(id, func(image *v1alpha1.CustomImage) {
					image.Finalizers = append(image.Finalizers, "foregroundDeletion")
				})
				return func() {
					younger.change(id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{v1alpha1.Finalizer} })
				}
			},
			func(younger *world) func() {
				able := younger.Client
				younger.Client = interceptor.NewClient(able.(client.WithWatch), interceptor.Funcs{Patch: func(
					context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
					return apierrors.NewForbidden(v1alpha1.GroupVersion.WithResource("customimages").GroupResource(), id, nil)
				}})
				return func() { younger.Client = able }
			},
		} {
			older, younger := two(ecssim.Image{ImageID: id})
			older.create(id, retained)
			aSecondLater()
			younger.create(id)
			end := hindrance(younger)
			younger.delete(id)
			Expect(younger.gone(id)).To(BeFalse())
			Expect(younger.readyReason(id)).NotTo(Equal("Conflict"))
			end()
			older.delete(id)
			Expect(older.gone(id)).To(BeTrue())
			younger.attemptWhenDue(id)
			Expect(younger.gone(id)).To(BeTrue())
			Expect(younger.exists(id)).To(BeTrue())
			emptyNamespace(younger.namespace)
		}
	})

	It("do not say that the image stays when the owner took it along", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id)
		older.delete(id)
		Expect(older.exists(id)).To(BeFalse())
		younger.events()
		younger.delete(id)
		Expect(younger.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring("No image was deleted"),
			Not(ContainSubstring("stays")))))
	})

	It("name the next owner when the first one goes and leaves it", func() {
		older, youngest := two(ecssim.Image{ImageID: id})
		middle := &world{CustomImageReconciler: older.CustomImageReconciler, clock: older.clock, sim: older.sim,
			namespace: newNamespace(), announced: older.announced}
		older.create(id, retained)
		aSecondLater()
		middle.create(id)
		aSecondLater()
		youngest.create(id)
		Expect(youngest.get(id).Status.OwnedBy).To(Equal(older.namespace + "/" + id))
		older.delete(id)
		middle.attempt(id)
		youngest.attempt(id)
		Expect(middle.get(id).Status.OwnedBy).To(BeEmpty())
		youngest.expectStalled(id, "Conflict", middle.namespace+"/"+id)
		Expect(youngest.get(id).Status.OwnedBy).To(Equal(middle.namespace + "/" + id))
	})

	It("let the younger go although its Secret is gone", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id)
		younger.change(id, withSecret("missing"))
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("are in no conflict if their images are in different regions", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = "cn-shanghai" })
		Expect(trueObstacles(younger.get(id))).To(ConsistOf("NotFound"))
		younger.events()
		younger.delete(id)
		Expect(younger.events()).To(ConsistOf(HavePrefix("Warning NotFound ")), "not Retained: it is another image")
		older.delete(id)
		Expect(older.exists(id)).To(BeFalse())
	})

	It("hand the image on when the older one goes and leaves it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id, retained)
		aSecondLater()
		younger.create(id)
		younger.expectStalled(id, "Conflict")
		older.delete(id)
		younger.attemptWhenDue(id)
		Expect(condition(younger.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		younger.delete(id)
		Expect(younger.exists(id)).To(BeFalse())
	})
})

var _ = DescribeTable("Of two objects, the other one owns the image", func(change func(other, this *v1alpha1.CustomImage), want bool) {
	object := func(uid types.UID, created time.Time) *v1alpha1.CustomImage {
		return &v1alpha1.CustomImage{
			ObjectMeta: metav1.ObjectMeta{UID: uid, CreationTimestamp: metav1.NewTime(created)},
			Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: id},
			Status:     v1alpha1.CustomImageStatus{Image: &v1alpha1.ImageStatus{OwnerID: account}},
		}
	}
	now := time.Now()
	other, this := object("b", now), object("a", now.Add(time.Second))
	change(other, this)
	Expect(precedes(other, this, account)).To(Equal(want))
},
	Entry("if it is older", func(_, _ *v1alpha1.CustomImage) {}, true),
	Entry("not if it is younger", func(other, this *v1alpha1.CustomImage) {
		other.CreationTimestamp = metav1.NewTime(this.CreationTimestamp.Add(time.Second))
	}, false),
	Entry("if it is as old and comes first by its uid", func(other, this *v1alpha1.CustomImage) {
		other.CreationTimestamp, this.UID = this.CreationTimestamp, "c"
	}, true),
	Entry("not if it is as old and comes last by its uid", func(other, this *v1alpha1.CustomImage) {
		other.CreationTimestamp = this.CreationTimestamp
	}, false),
	Entry("not if it never saw it", func(other, _ *v1alpha1.CustomImage) { other.Status.Image = nil }, false),
	Entry("if it saw it in an account that is not known", func(other, _ *v1alpha1.CustomImage) { other.Status.Image.OwnerID = "" }, true),
	Entry("not if it saw one in another account", func(other, _ *v1alpha1.CustomImage) { other.Status.Image.OwnerID = otherAccount }, false),
	Entry("not if it is in another region", func(other, _ *v1alpha1.CustomImage) { other.Spec.RegionID = "cn-shanghai" }, false),
	Entry("if this one never saw it, and is older", func(other, this *v1alpha1.CustomImage) {
		this.Status.Image, this.CreationTimestamp = nil, metav1.NewTime(other.CreationTimestamp.Add(-time.Hour))
	}, true),
)
