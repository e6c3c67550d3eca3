package controller

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// The deletions of namespaces and of the CRD by a real kube-controller-manager are in test/cascade.
var _ = Describe("An object in a namespace that is being deleted", func() {
	endNamespace := func(w *world, annotation string) {
		GinkgoHelper()
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
		if annotation != "" {
			patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationOnNamespaceDeletion, annotation)
			Expect(admin.Patch(context.Background(), namespace, client.RawPatch("application/merge-patch+json", patch))).To(Succeed())
		}
		Expect(admin.Delete(context.Background(), namespace)).To(Succeed())
	}

	DescribeTable("leaves its image unless the namespace asks for its deletion",
		func(annotation string, protected, deletes bool) {
			w := newWorld(ecssim.Image{ImageID: id})
			w.create(id, func(image *v1alpha1.CustomImage) {
				if protected {
					image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
				}
			})
			w.events()
			endNamespace(w, annotation)
			w.delete(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(Equal(!deletes))
			if deletes {
				Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
				return
			}
			Expect(w.deletions()).To(BeZero())
			Expect(w.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring("namespace "+w.namespace))))
		},
		Entry("by default", "", false, false),
		Entry("by a value that is not Delete", "delete", false, false),
		Entry("by an empty value", " ", false, false),
		Entry("which asks for it", "Delete", false, true),
		Entry("which asks for it, and the object is protected", "Delete", true, false),
	)

	It("leaves its image if it has outlived its namespace, which was created anew", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.Live = interceptor.NewClient(w.Live.(client.WithWatch), interceptor.Funcs{Get: func(
			ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption,
		) error {
			err := c.Get(ctx, key, o, options...)
			if key.Name == w.namespace {
				o.SetCreationTimestamp(metav1.NewTime(time.Now().Add(2 * time.Minute)))
			}
			return err
		}})
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
	})

	It("says once which way out there is, however often it cannot be told who uses the image", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		endNamespace(w, "Delete")
		w.delete(id)
		w.expectStalled(id, "ImageUsingByInstance", "i-bp1a", v1alpha1.AnnotationOnNamespaceDeletion)
		version := w.get(id).ResourceVersion
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeInstances", Kind: ecssim.FaultGarbage, Times: -1})).To(Succeed())
		for range 5 {
			w.attemptWhenDue(id)
		}
		Expect(w.calls("DeleteImage", id)).To(Equal(6))
		Expect(w.get(id).ResourceVersion).To(Equal(version))
	})

	It("leaves its image also if it waited for something else before", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("InUse"))
		endNamespace(w, "")
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.deletions()).To(Equal(1))
	})
})
