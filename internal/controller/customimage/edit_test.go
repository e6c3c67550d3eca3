package customimage

import (
	"context"
	"encoding/json"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// The suite has no admission policies, so an edit that they refuse reaches the operator.
var _ = Describe("An edit that admission refuses", func() {
	otherImage := func(w *world) func(*v1alpha1.CustomImage) {
		return func(image *v1alpha1.CustomImage) { image.Spec.ImageID = w.id + "other" }
	}
	otherRegion := func(*world) func(*v1alpha1.CustomImage) {
		return func(image *v1alpha1.CustomImage) { image.Spec.RegionID = "cn-shanghai" }
	}
	restored := func(w *world) func(*v1alpha1.CustomImage) {
		return func(image *v1alpha1.CustomImage) { image.Spec.ImageID, image.Spec.RegionID = w.id, region }
	}
	// edited is a world whose object has seen its image, and then names another one that exists too.
	edited := func(ctx SpecContext, edit func(w *world) func(*v1alpha1.CustomImage)) *world {
		GinkgoHelper()
		w := newWorld(ctx, ecssim.Image{})
		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id + "other", RegionID: region})).To(Succeed())
		w.create(w.id)
		w.change(w.id, edit(w))
		return w
	}
	expectNothingDeleted := func(w *world) {
		GinkgoHelper()
		Expect(w.deletions()).To(BeZero())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.exists(w.id + "other")).To(BeTrue())
	}

	DescribeTable("to another image or region than the one seen makes the object Invalid and deletes nothing",
		func(ctx SpecContext, edit func(w *world) func(*v1alpha1.CustomImage), named string) {
			w := edited(ctx, edit)
			before := len(w.sim.Calls())
			w.attempt(w.id)
			w.expectStalled(w.id, "InvalidSpec", named, "stands for image "+w.id+" in "+region)
			Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Invalid"))
			w.delete(w.id)
			w.expectStalled(w.id, "InvalidSpec", named, "stands for image "+w.id+" in "+region)
			w.attemptWhenDue(w.id)
			w.expectStalled(w.id, "InvalidSpec")
			Expect(w.sim.Calls()).To(HaveLen(before))
			expectNothingDeleted(w)

			w.change(w.id, restored(w))
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(BeFalse())
			Expect(w.exists(w.id + "other")).To(BeTrue())
		},
		Entry("for spec.imageID", otherImage, "other in "+region),
		Entry("for spec.regionID", otherRegion, " in cn-shanghai"),
	)

	DescribeTable("to another image or region after ECS accepted the deletion deletes no other image, and reports nothing as deleted",
		func(ctx SpecContext, edit func(w *world) func(*v1alpha1.CustomImage)) {
			w := newWorld(ctx, ecssim.Image{})
			Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id + "other", RegionID: region})).To(Succeed())
			Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.DeletionDelay = ecssim.Forever })).To(Succeed())
			w.create(w.id)
			w.delete(w.id)
			Expect(readyReason(w.get(w.id))).To(Equal("Deleting"))
			w.change(w.id, edit(w))
			calls := len(w.sim.Calls())
			for range 3 {
				w.attempt(w.id)
				w.expectStalled(w.id, "InvalidSpec")
				w.clock.Step(11 * time.Minute)
			}
			Expect(w.sim.Calls()).To(HaveLen(calls))
			Expect(w.get(w.id).Status.Image.ImageID).To(Equal(w.id))
			w.events()
			w.change(w.id, retained)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(HavePrefix("Warning DeletionAccepted ")))
			Expect(w.deletions()).To(Equal(1))
		},
		Entry("for spec.imageID", otherImage),
		Entry("for spec.regionID", otherRegion),
	)

	It("that is taken back is not reported any more, although something else holds the object", func(ctx SpecContext) {
		w := edited(ctx, otherImage)
		w.delete(w.id)
		w.expectStalled(w.id, "InvalidSpec")
		w.change(w.id, func(image *v1alpha1.CustomImage) {
			image.Spec.ImageID = w.id
			annotated(v1alpha1.AnnotationProtected, "true")(image)
		})
		w.attempt(w.id)
		w.expectStalled(w.id, "Protected")
		Expect(trueObstacles(w.get(w.id))).To(BeEmpty())
	})

	It("is reported until it is taken back, although something else holds the object", func(ctx SpecContext) {
		w := edited(ctx, otherImage)
		w.delete(w.id)
		w.change(w.id, annotated(v1alpha1.AnnotationProtected, "true"))
		w.attempt(w.id)
		w.expectStalled(w.id, "Protected")
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Invalid"))
	})

	DescribeTable("of the object that keeps an image does not end that", func(ctx SpecContext, after time.Duration) {
		w := newWorld(ctx, ecssim.Image{})
		other := w.beside()
		w.create(w.id)
		w.outlive(w.id)
		other.create(w.id, retained)
		other.change(w.id, otherImage(other))
		w.cache.List = func(ctx context.Context, c client.WithWatch, l client.ObjectList, _ ...client.ListOption) error {
			// as the index of the cache finds what an object has seen
			for _, in := range []string{w.namespace, other.namespace} {
				found := &v1alpha1.CustomImageList{}
				if err := c.List(ctx, found, client.InNamespace(in)); err != nil {
					return err
				}
				l.(*v1alpha1.CustomImageList).Items = append(l.(*v1alpha1.CustomImageList).Items, found.Items...)
			}
			return nil
		}
		w.watches(w.id)
		w.deleteUnseen(w.id)
		w.clock.Step(after)
		w.attempt(w.id)
		w.expectStalled(w.id, "Conflict")
		Expect(w.exists(w.id)).To(BeTrue())
	},
		Entry("while the cache is known to be new", time.Duration(0)),
		Entry("while it is not", time.Hour),
	)

	DescribeTable("to another image or region than the one seen is settled by the policy Retain",
		func(ctx SpecContext, edit func(w *world) func(*v1alpha1.CustomImage)) {
			w := edited(ctx, edit)
			w.delete(w.id)
			w.expectStalled(w.id, "InvalidSpec")
			w.events()
			w.change(w.id, retained)
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
			expectNothingDeleted(w)
		},
		Entry("for spec.imageID", otherImage),
		Entry("for spec.regionID", otherRegion),
	)

	It("to another image has a live object available again when the old value is restored", func(ctx SpecContext) {
		w := edited(ctx, otherImage)
		w.attempt(w.id)
		w.expectStalled(w.id, "InvalidSpec")
		w.change(w.id, restored(w))
		w.attempt(w.id)
		Expect(w.readyReason(w.id)).To(Equal("Available"))
		Expect(trueObstacles(w.get(w.id))).To(BeEmpty())
	})

	It("to another image after the deletion deletes neither", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id + "other", RegionID: region})).To(Succeed())
		w.create(w.id)
		w.delete(w.id)
		Expect(w.deletions()).To(Equal(1))
		w.change(w.id, otherImage(w))
		w.attempt(w.id)
		w.expectStalled(w.id, "InvalidSpec")
		Expect(w.deletions()).To(Equal(1))
		Expect(w.exists(w.id + "other")).To(BeTrue())
	})

	DescribeTable("to an unknown deletion policy keeps the image", func(ctx SpecContext, steps func(w *world, edit func()), deletions int) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		steps(w, func() {
			Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region})).To(Succeed())
			w.change(w.id, func(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = "Delte" })
			w.events()
		})
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.deletions()).To(Equal(deletions))
		Expect(w.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring(`"Delte"`))))
	},
		Entry("of an object before its deletion", func(w *world, edit func()) {
			edit()
			w.deleteUnseen(w.id)
		}, 0),
		Entry("of a deleted object", func(w *world, edit func()) {
			w.deleteUnseen(w.id)
			edit()
		}, 0),
		Entry("of a deleted object whose image was in use", func(w *world, edit func()) {
			w.delete(w.id)
			edit()
		}, 1),
	)

	DescribeTable("to an ID that is none makes the object Invalid without a call to ECS",
		func(ctx SpecContext, regionID, imageID any, fault string) {
			w := newWorld(ctx, ecssim.Image{})
			w.createUnseen(w.id, withFinalizer)
			w.patchSpec(map[string]any{"regionID": regionID, "imageID": imageID})
			w.attempt(w.id)
			w.expectStalled(w.id, "InvalidSpec", fault)
			Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Invalid"))
			w.delete(w.id)
			w.expectStalled(w.id, "InvalidSpec", fault)
			w.attemptWhenDue(w.id)
			w.expectStalled(w.id, "InvalidSpec", fault)
			Expect(w.sim.Calls()).To(BeEmpty())
			Expect(w.exists(w.id)).To(BeTrue())
		},
		Entry("for a missing region", nil, "m-1", `spec.regionID is ""`),
		Entry("for a region that is a host", "evil.example/", "m-1", `spec.regionID is "evil.example/"`),
		Entry("for a region in upper case", "CN-Hangzhou", "m-1", `spec.regionID is "CN-Hangzhou"`),
		Entry("for a missing image", region, nil, `spec.imageID is ""`),
		Entry("for an image in upper case", region, "M-1", `spec.imageID is "M-1"`),
		Entry("for an image with a blank", region, " m-1", `spec.imageID is " m-1"`),
		Entry("for an image of the system", region, "aliyun_3_x64_20G.vhd", `spec.imageID is "aliyun_3_x64_20G.vhd"`),
	)
})

// patchSpec edits the spec of the world's object as JSON, in which null removes a field.
func (w *world) patchSpec(fields map[string]any) {
	GinkgoHelper()
	patch, err := json.Marshal(map[string]any{"spec": fields})
	Expect(err).NotTo(HaveOccurred())
	Expect(admin.Patch(w.ctx, w.get(w.id), client.RawPatch(types.MergePatchType, patch))).To(Succeed())
}
