package customimage

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// annotateNamespace sets the opt-in annotation of the world's namespace; null removes it.
func (w *world) annotateNamespace(value any) {
	GinkgoHelper()
	text := "null"
	if value != nil {
		text = fmt.Sprintf("%q", value)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, v1alpha1.AnnotationOnNamespaceDeletion, text)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	Expect(admin.Patch(w.ctx, namespace, client.RawPatch("application/merge-patch+json", patch))).To(Succeed())
}

// endNamespace deletes the world's namespace. It is terminating until the suite ends, since no namespace controller
// runs.
func (w *world) endNamespace() {
	GinkgoHelper()
	Expect(admin.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
}

// freezeNamespace has the cache show the world's namespace as it is now.
func (w *world) freezeNamespace() {
	GinkgoHelper()
	frozen := namespaceNamed(w.namespace)
	Expect(admin.Get(w.ctx, client.ObjectKey{Name: w.namespace}, frozen)).To(Succeed())
	w.cache.Get = func(
		ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption,
	) error {
		if namespace, ok := into.(*metav1.PartialObjectMetadata); ok && key.Name == w.namespace {
			frozen.DeepCopyInto(namespace)
			return nil
		}
		return c.Get(ctx, key, into, options...)
	}
}

// The deletions of namespaces and of the CRD by a real kube-controller-manager are in test/cascade.
var _ = Describe("An object in a namespace that is being deleted", func() {
	DescribeTable("keeps its image unless the namespace opts in to its deletion",
		func(ctx SpecContext, annotation any, protected, deletes bool) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id, func(image *v1alpha1.CustomImage) {
				if protected {
					image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
				}
			})
			w.events()
			w.annotateNamespace(annotation)
			w.endNamespace()
			w.delete(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(Equal(!deletes))
			if deletes {
				Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
				return
			}
			Expect(w.deletions()).To(BeZero())
			Expect(w.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring("namespace "+w.namespace))))
		},
		Entry("by default", nil, false, false),
		Entry("by a value that is not Delete", "delete", false, false),
		Entry("by a blank value", " ", false, false),
		Entry("by an empty value", "", false, false),
		Entry("which it does", "Delete", false, true),
		Entry("which it does, and the object is protected", "Delete", true, false),
	)

	It("keeps its image if its namespace was created after it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.live.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			err := c.Get(ctx, key, o, options...)
			if key.Name == w.namespace {
				o.SetCreationTimestamp(metav1.NewTime(time.Now().Add(2 * time.Minute)))
			}
			return err
		}
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("keeps its image if the cache does not show the deletion of the namespace yet", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.freezeNamespace()
		w.endNamespace()
		w.events()
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
	})

	It("keeps its image if the cache still shows an opt-in that was withdrawn", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.annotateNamespace("Delete")
		w.endNamespace()
		w.freezeNamespace()
		w.annotateNamespace(nil)
		w.events()
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
	})

	It("says once how to get out, however often the users of the image cannot be listed", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.annotateNamespace("Delete")
		w.endNamespace()
		w.delete(w.id)
		w.expectStalled(w.id, "ImageUsingByInstance", "i-bp1a", v1alpha1.AnnotationOnNamespaceDeletion)
		version := w.get(w.id).ResourceVersion
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeInstances", Kind: ecssim.FaultGarbage, Times: -1})).To(Succeed())
		for range 5 {
			w.attemptWhenDue(w.id)
		}
		Expect(w.calls("DeleteImage", w.id)).To(Equal(6))
		Expect(w.get(w.id).ResourceVersion).To(Equal(version))
	})

	It("keeps its image also if something else blocked it before", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("InUse"))
		w.endNamespace()
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.deletions()).To(Equal(1))
	})
})
