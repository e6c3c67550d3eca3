package admission

import (
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// declared is a manifest as it is in Git: without a finalizer.
func declared(change ...edit) *unstructured.Unstructured {
	object := manifest(nil)
	object.SetNamespace(team)
	for _, c := range change {
		c(object)
	}
	return object
}

func named(name string) edit { return func(o *unstructured.Unstructured) { o.SetName(name) } }

func finalizers(names ...string) edit {
	return func(o *unstructured.Unstructured) { o.SetFinalizers(names) }
}

var _ = Describe("A new CustomImage", func() {
	DescribeTable("has the finalizer from the first moment, once", func(ctx SpecContext, change edit, expected ...string) {
		for _, user := range []string{editor, administrator, clusterAdmin} {
			object := declared(change)
			Expect(as(user).Create(ctx, object)).To(Succeed())
			Expect(object.GetFinalizers()).To(Equal(expected))
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
			Expect(object.GetFinalizers()).To(Equal(expected))
			Expect(object.GetGeneration()).To(Equal(int64(1)))
			Expect(mergeRemove(ctx, admin, object)).To(Succeed())
			Expect(admin.Delete(ctx, object)).To(Succeed())
		}
	},
		Entry("with a name of its own", named("named"), v1alpha1.Finalizer),
		Entry("with a generated name", named(""), v1alpha1.Finalizer),
		Entry("with the finalizer in its manifest", finalizers(v1alpha1.Finalizer), v1alpha1.Finalizer),
		Entry("with a finalizer of another controller", finalizers("example.com/backup"), "example.com/backup", v1alpha1.Finalizer),
		Entry("with both", finalizers(v1alpha1.Finalizer, "example.com/backup"), v1alpha1.Finalizer, "example.com/backup"),
		Entry("with one that differs in case", finalizers("ecs.imagegc.io/Delete-Image"), "ecs.imagegc.io/Delete-Image", v1alpha1.Finalizer),
		Entry("with an empty list", finalizers(), v1alpha1.Finalizer),
	)

	It("is held when it is deleted before the operator has seen it", func(ctx SpecContext) {
		object := declared()
		Expect(as(editor).Create(ctx, object)).To(Succeed())
		Expect(as(administrator).Delete(ctx, object)).To(Succeed())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		Expect(object.GetDeletionTimestamp()).NotTo(BeNil())
	})

	It("keeps the finalizer when the same manifest is applied again, and nothing is written", func(ctx SpecContext) {
		versions := []string{}
		for range 4 {
			object := declared(named("applied"))
			Expect(apply(ctx, as(editor), object)).To(Succeed())
			Expect(object.GetFinalizers()).To(Equal([]string{v1alpha1.Finalizer}))
			versions = append(versions, object.GetResourceVersion())
		}
		// The API server writes once more for the first of them, with the policy and without.
		Expect(versions[1:]).To(HaveEach(versions[1]))
	})

	for name, flags := range map[string][]string{"client-side": nil, "server-side": {"--server-side"}} {
		It("does not differ from its manifest for kubectl diff, and apply says unchanged: "+name, func(ctx SpecContext) {
			content, err := yaml.Marshal(declared(named("diff-" + name)).Object)
			Expect(err).NotTo(HaveOccurred())
			file, err := filepath.Abs(cluster.Write("image.yaml", content))
			Expect(err).NotTo(HaveOccurred())
			run := func(verb string) cluster.Output {
				return k8s.Kubectl(ctx, append([]string{verb, "--as=" + editor, "-f", file}, flags...)...)
			}
			Expect(run("apply").Err).NotTo(HaveOccurred())
			again := run("apply")
			Expect(again.Err).NotTo(HaveOccurred())
			Expect(again.Stdout).To(Or(ContainSubstring("unchanged"), ContainSubstring("serverside-applied")))
			Expect(run("diff")).To(And(HaveField("Err", BeNil()), HaveField("Stdout", BeEmpty())))
			object := declared(named("diff-" + name))
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
			Expect(object.GetFinalizers()).To(Equal([]string{v1alpha1.Finalizer}))
		})
	}
})
