package customimage

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func unannotated(image *v1alpha1.CustomImage) { image.Annotations = nil }

var _ = Describe("A protected object", func() {
	It("keeps its image although it was deleted past the admission policy, until the protection is removed", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, annotated(v1alpha1.AnnotationProtected, "true"), func(image *v1alpha1.CustomImage) {
			image.Spec.Force = ptr.To(true)
		})
		w.delete(w.id)
		w.expectStalled(w.id, "Protected", v1alpha1.AnnotationProtected)
		Expect(w.deletions()).To(BeZero())
		w.change(w.id, unannotated)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("is held at once also if something else blocked it before", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		w.change(w.id, annotated(v1alpha1.AnnotationProtected, "true"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region})).To(Succeed())
		w.attempt(w.id)
		w.expectStalled(w.id, "Protected")
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("is removed without its image if its policy is Retain", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, annotated(v1alpha1.AnnotationProtected, "true"), retained)
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
	})
})

var _ = DescribeTable("The annotation protected", func(ctx SpecContext, value string, protects bool) {
	w := newWorld(ctx, ecssim.Image{})
	w.create(w.id, annotated(v1alpha1.AnnotationProtected, value))
	w.delete(w.id)
	Expect(w.exists(w.id)).To(Equal(protects))
	Expect(w.gone(w.id)).To(Equal(!protects))
	if protects {
		w.expectStalled(w.id, "Protected", value)
	}
},
	Entry("protects if it is true", "true", true),
	Entry("protects if it is True", "True", true),
	Entry("protects if it is TRUE", "TRUE", true),
	Entry("protects if it is yes", "yes", true),
	Entry("protects if it is 1", "1", true),
	Entry("protects if it is on", "on", true),
	Entry("protects if it is a remark", "until May", true),
	Entry("protects if it is False, which is not false", "False", true),
	Entry("does not protect if it is false", "false", false),
	Entry("does not protect if it is empty", "", false),
)

var _ = DescribeTable("A deletion stops if, while the key is read, it", func(ctx SpecContext, change func(w *world)) {
	w := newWorld(ctx, ecssim.Image{})
	w.inTwoAccounts()
	w.create(w.id, withSecret("own"))
	w.deleteUnseen(w.id)
	reads := 0
	w.secrets.Get = func(
		ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption,
	) error {
		reads++
		change(w)
		return c.Get(ctx, key, into, options...)
	}
	w.attempt(w.id)
	Expect(reads).NotTo(BeZero())
	Expect(w.exists(w.id)).To(BeTrue())
	Expect(w.deletions()).To(BeZero())
},
	Entry("gets the policy Retain", func(w *world) { w.change(w.id, retained) }),
	Entry("gets protected", func(w *world) { w.change(w.id, annotated(v1alpha1.AnnotationProtected, "true")) }),
	Entry("gets the release annotation", func(w *world) { w.change(w.id, annotated(v1alpha1.AnnotationRelease, w.id)) }),
	Entry("becomes part of the deletion of its namespace", func(w *world) {
		Expect(admin.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
	}),
	Entry("gets the key of another account", func(w *world) { w.change(w.id, withSecret("other")) }),
	Entry("gets a keeper in another namespace", func(w *world) {
		w.secrets.Get = nil
		w.beside().create(w.id, retained)
	}),
)
