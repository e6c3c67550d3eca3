package cascade

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

var _ = Describe("The deletion", Ordered, ContinueOnFailure, func() {
	It("of a namespace lets an object go at once that was deleted before and is held up, and leaves its image",
		func(ctx SpecContext) {
			createNamespace(ctx, "blocked", "")
			createImage(ctx, "blocked", "m-blocked", inUse)
			block(ctx, "blocked", "m-blocked")
			remove(ctx, "namespace", "blocked")
			Eventually(imageGone).WithArguments(ctx, "blocked", "m-blocked").Should(BeTrue())
			expectKept("m-blocked", 1)
		})

	Describe("of a namespace", func() {
		BeforeAll(func(ctx SpecContext) {
			createNamespace(ctx, "plain", "")
			createImage(ctx, "plain", "m-plain1")
			createImage(ctx, "plain", "m-plain2")
			createImage(ctx, "plain", "m-plain3", protected)
			createNamespace(ctx, "opted-in", "Delete")
			createImage(ctx, "opted-in", "m-optedin1")
			createImage(ctx, "opted-in", "m-optedin2", protected)
			createNamespace(ctx, "lower-case", "delete")
			createImage(ctx, "lower-case", "m-lowercase")
			createNamespace(ctx, "yes", "true")
			createImage(ctx, "yes", "m-yes")
			for namespace, onDeletion := range map[string]string{"late": "", "keyless": "Delete"} {
				createNamespace(ctx, namespace, onDeletion)
				createSecret(ctx, namespace)
				createImage(ctx, namespace, "m-"+namespace, withSecret)
			}
			remove(ctx, "secret", "-n", "keyless", secret)

			// A namespace takes some ten seconds to go, so they go together.
			operator.stop()
			remove(ctx, "namespace", "late")
			Eventually(gone).WithArguments(ctx, &corev1.Secret{}, "late", secret).Should(BeTrue())
			Eventually(deleted).WithArguments(ctx, "late", "m-late").Should(BeTrue())
			operator.start("Starting workers")
			remove(ctx, "namespace", "plain", "opted-in", "lower-case", "yes", "keyless")
		})

		It("holds an object that is to delete its image and has lost its Secret, until the namespace says otherwise",
			func(ctx SpecContext) {
				Eventually(message).WithArguments(ctx, "keyless", "m-keyless", v1alpha1.ConditionDenied).
					Should(And(ContainSubstring(secret), ContainSubstring(v1alpha1.AnnotationOnNamespaceDeletion)))
				expectKept("m-keyless", 0)
				kubectl(ctx, "annotate", "namespace", "keyless", v1alpha1.AnnotationOnNamespaceDeletion+"-")
				Eventually(namespaceGone).WithArguments(ctx, "keyless").Should(BeTrue())
				expectKept("m-keyless", 0)
			})

		It("leaves all images, those of protected objects too, and is not held up", func(ctx SpecContext) {
			Eventually(namespaceGone).WithArguments(ctx, "plain").Should(BeTrue())
			expectKept("m-plain1", 0)
			expectKept("m-plain2", 0)
			expectKept("m-plain3", 0)
		})

		It("leaves the image when the operator comes to it after the Secret is gone", func(ctx SpecContext) {
			Eventually(namespaceGone).WithArguments(ctx, "late").Should(BeTrue())
			expectKept("m-late", 0)
		})

		It("deletes the images of a namespace that opts in", func(ctx SpecContext) {
			Eventually(namespaceGone).WithArguments(ctx, "opted-in").Should(BeTrue())
			Expect(imageInCloud("m-optedin1")).To(BeFalse())
			Expect(deletions("m-optedin1")).To(Equal(1))
		})

		It("leaves the images of protected objects also in a namespace that opts in", func(ctx SpecContext) {
			Eventually(namespaceGone).WithArguments(ctx, "opted-in").Should(BeTrue())
			expectKept("m-optedin2", 0)
		})

		DescribeTable("leaves the images of a namespace whose annotation is", func(ctx SpecContext, namespace, id string) {
			Eventually(namespaceGone).WithArguments(ctx, namespace).Should(BeTrue())
			expectKept(id, 0)
		},
			Entry("misspelt", "lower-case", "m-lowercase"),
			Entry("true", "yes", "m-yes"),
		)

		// Nothing can be created in a namespace that is being deleted, so these are events about the namespace, which
		// are somewhere else.
		DescribeTable("is told as the cause, in an event and in the log", func(ctx SpecContext, namespace, id string) {
			cause := And(ContainSubstring(id), ContainSubstring("namespace "+namespace+" is being deleted"))
			Eventually(notes).WithArguments(ctx, metav1.NamespaceDefault).Should(ContainElement(cause))
			Eventually(logLines).WithArguments(id).Should(ContainElement(And(ContainSubstring(v1alpha1.EventRetained), cause)))
			Expect(string(operator.Err.Contents())).NotTo(ContainSubstring("Server rejected event"))
		},
			Entry("of an object that was live", "plain", "m-plain1"),
			Entry("of a protected object where others are deleted", "opted-in", "m-optedin2"),
		)
	})

	It("of an object deletes the image while namespace and CustomResourceDefinition stay", func(ctx SpecContext) {
		createNamespace(ctx, "staying", "")
		createImage(ctx, "staying", "m-single")
		remove(ctx, "customimage", "-n", "staying", "m-single")
		Eventually(imageGone).WithArguments(ctx, "staying", "m-single").Should(BeTrue())
		Expect(imageInCloud("m-single")).To(BeFalse())
	})

	// Last, because nothing can be done without it.
	Describe("of the CustomResourceDefinition", func() {
		BeforeAll(func(ctx SpecContext) {
			createNamespace(ctx, "here", "")
			createImage(ctx, "here", "m-here1")
			createImage(ctx, "here", "m-here2", protected)
			createImage(ctx, "here", "m-here3", inUse)
			block(ctx, "here", "m-here3")
			createNamespace(ctx, "there", "Delete")
			createImage(ctx, "there", "m-there")
			remove(ctx, "crd", crd)
			Eventually(resourceGone).WithArguments(ctx).Should(BeTrue())
		})

		It("leaves all images, in namespaces that opt in too", func() {
			expectKept("m-here1", 0)
			expectKept("m-here2", 0)
			expectKept("m-here3", 1)
			expectKept("m-there", 0)
		})

		It("is told as the cause", func(ctx SpecContext) {
			for namespace, id := range map[string]string{"here": "m-here3", "there": "m-there"} {
				Eventually(notes).WithArguments(ctx, namespace).
					Should(ContainElement(And(ContainSubstring(id), ContainSubstring("CustomResourceDefinition"))))
			}
		})

		It("does not end the operator", func() {
			operator.stop()
		})
	})
})
