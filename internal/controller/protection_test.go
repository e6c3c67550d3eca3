package controller

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("A protected object", func() {
	It("keeps its image although its deletion came past the admission policy, until it is protected no more", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) {
			image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
			image.Spec.Force = ptr.To(true)
		})
		w.delete(id)
		w.expectStalled(id, "Protected", v1alpha1.AnnotationProtected)
		Expect(w.deletions()).To(BeZero())
		w.change(id, func(image *v1alpha1.CustomImage) { image.Annotations = nil })
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("is held at once also if it was blocked by something else before", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		w.change(id, annotated(v1alpha1.AnnotationProtected, "true"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
		w.attempt(id)
		w.expectStalled(id, "Protected")
		Expect(w.exists(id)).To(BeTrue())
	})

	It("goes without its image when that is what its policy says", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) {
			image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
			image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		})
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
	})
})

var _ = Describe("Second thoughts, while the key is being found", func() {
	// meanwhile has something happen while the operator reads the Secret.
	meanwhile := func(w *world, happens func()) {
		w.Credentials.Secrets = interceptor.NewClient(w.Live.(client.WithWatch), interceptor.Funcs{Get: func(
			ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption,
		) error {
			happens()
			return c.Get(ctx, key, into, options...)
		}})
	}

	DescribeTable("are heeded", func(think func(w *world)) {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id, withSecret("own"))
		w.deleteUnseen(id)
		meanwhile(w, func() { think(w) })
		w.attempt(id)
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
	},
		Entry("by the policy", func(w *world) {
			w.change(id, retained)
		}),
		Entry("by the protection", func(w *world) {
			w.change(id, annotated(v1alpha1.AnnotationProtected, "true"))
		}),
		Entry("by the release annotation", func(w *world) {
			w.change(id, annotated(v1alpha1.AnnotationRelease, id))
		}),
		Entry("by the deletion of the namespace", func(w *world) {
			Expect(admin.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
		}),
		Entry("by another key", func(w *world) { w.change(id, withSecret("other")) }),
	)
})
