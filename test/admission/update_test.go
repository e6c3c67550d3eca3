package admission

import (
	"context"
	"encoding/json"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

func specField(name string, value any) edit {
	return func(o *unstructured.Unstructured) { field(name, value)(o.Object["spec"].(map[string]any)) }
}

func specWithout(name string) edit {
	return func(o *unstructured.Unstructured) { without(name)(o.Object["spec"].(map[string]any)) }
}

func specSecret(name any) edit {
	return func(o *unstructured.Unstructured) { secret(name)(o.Object["spec"].(map[string]any)) }
}

var (
	retained = specField("deletionPolicy", "Retain")
	pinned   = specField("accountID", "1234567890123456")
)

func withoutSpec(o *unstructured.Unstructured)   { delete(o.Object, "spec") }
func withNullSpec(o *unstructured.Unstructured)  { o.Object["spec"] = nil }
func withEmptySpec(o *unstructured.Unstructured) { o.Object["spec"] = map[string]any{} }

// waysToEdit send the whole of an object after an edit.
var waysToEdit = map[string]func(context.Context, client.Client, *unstructured.Unstructured, *unstructured.Unstructured) error{
	"replacing": func(ctx context.Context, user client.Client, before, after *unstructured.Unstructured) error {
		after.SetResourceVersion(before.GetResourceVersion())
		return user.Update(ctx, after)
	},
	"applying": func(ctx context.Context, user client.Client, _, after *unstructured.Unstructured) error {
		return apply(ctx, user, after)
	},
	"a merge patch": func(ctx context.Context, user client.Client, before, after *unstructured.Unstructured) error {
		from, _ := before.Object["spec"].(map[string]any)
		to, _ := after.Object["spec"].(map[string]any)
		changes := map[string]any{}
		for name := range from {
			changes[name] = to[name] // null where it is missing
		}
		for name, value := range to {
			changes[name] = value
		}
		body, err := json.Marshal(map[string]any{"spec": changes})
		Expect(err).NotTo(HaveOccurred())
		return user.Patch(ctx, after, client.RawPatch(types.MergePatchType, body))
	},
}

// existing creates an object with an account and a Secret, and returns it as it is stored and as its manifest.
func existing(ctx context.Context, change ...edit) (before, file *unstructured.Unstructured) {
	GinkgoHelper()
	before = live(ctx, append([]edit{pinned, specSecret("alibaba-cloud")}, change...)...)
	file = again(before, pinned)
	specSecret("alibaba-cloud")(file)
	for _, c := range change {
		c(file)
	}
	return &stored(ctx, before)[0], file
}

var _ = Describe("An edit that is not allowed", func() {
	// Tools with a force option answer a 422 or a 409 by deleting the object.
	DescribeTable("is forbidden, and not invalid, and changes nothing", func(ctx SpecContext, change edit, words string) {
		for name, send := range waysToEdit {
			for _, user := range []string{editor, clusterAdmin} {
				before, after := existing(ctx)
				change(after)
				err := send(ctx, as(user), before, after)
				Expect(err).To(And(beForbiddenBy("update"), MatchError(ContainSubstring(words))), name)
				Expect(stored(ctx, before)).To(ConsistOf(*before), name)
			}
		}
	},
		Entry("another region", specField("regionID", "cn-beijing"), "spec.regionID cannot be changed or removed"),
		Entry("a malformed region", specField("regionID", "Hangzhou"), "spec.regionID cannot be changed or removed"),
		Entry("an endless region", specField("regionID", "cn-"+strings.Repeat("a", 1<<20)), "spec.regionID cannot be changed or removed"),
		Entry("no region", specWithout("regionID"), "spec.regionID cannot be changed or removed"),
		Entry("an empty region", specField("regionID", ""), "spec.regionID cannot be changed or removed"),
		Entry("a region of null", specField("regionID", nil), "spec.regionID cannot be changed or removed"),
		Entry("another image", specField("imageID", "m-bp67acfmxazb4p0002"), "spec.imageID cannot be changed or removed"),
		Entry("a malformed image", specField("imageID", "M-F3"), "spec.imageID cannot be changed or removed"),
		Entry("an image of 100 characters", specField("imageID", "m-"+strings.Repeat("a", 98)), "spec.imageID cannot be changed or removed"),
		Entry("an endless image", specField("imageID", "m-"+strings.Repeat("a", 1<<20)), "spec.imageID cannot be changed or removed"),
		Entry("no image", specWithout("imageID"), "spec.imageID cannot be changed or removed"),
		Entry("an empty image", specField("imageID", ""), "spec.imageID cannot be changed or removed"),
		Entry("an image of null", specField("imageID", nil), "spec.imageID cannot be changed or removed"),
		Entry("no spec", edit(withoutSpec), "spec.regionID cannot be changed or removed"),
		Entry("a spec of null", edit(withNullSpec), "spec.regionID cannot be changed or removed"),
		Entry("an empty spec", edit(withEmptySpec), "spec.regionID cannot be changed or removed"),
		Entry("a misspelt policy", specField("deletionPolicy", "Delte"), "spec.deletionPolicy must be Delete or Retain"),
		Entry("another misspelt policy", specField("deletionPolicy", "Retian"), "spec.deletionPolicy must be Delete or Retain"),
		Entry("an empty policy", specField("deletionPolicy", ""), "spec.deletionPolicy must be Delete or Retain"),
		Entry("a policy with a line feed", specField("deletionPolicy", "Retain\n"), "spec.deletionPolicy must be Delete or Retain"),
		Entry("an endless policy", specField("deletionPolicy", strings.Repeat("a", 1<<20)), "spec.deletionPolicy must be Delete or Retain"),
		Entry("another account", specField("accountID", "1098"), "spec.accountID cannot be changed or removed"),
		Entry("no account", specWithout("accountID"), "spec.accountID cannot be changed or removed"),
		Entry("an account of null", specField("accountID", nil), "spec.accountID cannot be changed or removed"),
		Entry("an empty account", specField("accountID", ""), "spec.accountID cannot be changed or removed"),
		Entry("an endless account", specField("accountID", strings.Repeat("1", 1<<20)), "spec.accountID cannot be changed or removed"),
		Entry("a Secret in capitals", specSecret("Alibaba"), "spec.credentialsSecretRef.name must be the name of a Secret"),
		Entry("a Secret with a line feed", specSecret("alibaba\n"), "spec.credentialsSecretRef.name must be the name of a Secret"),
		Entry("a Secret with an empty name", specSecret(""), "spec.credentialsSecretRef.name must be the name of a Secret"),
		Entry("a Secret of 254 characters", specSecret(strings.Repeat("a", 254)), "spec.credentialsSecretRef.name must be the name of a Secret"),
		Entry("a Secret with an endless name", specSecret(strings.Repeat("a", 1<<20)), "spec.credentialsSecretRef.name must be the name of a Secret"),
	)

	DescribeTable("is forbidden when it adds", func(ctx SpecContext, change edit, words string) {
		for _, name := range []string{"replacing", "applying", "a merge patch"} {
			object := live(ctx)
			before, after := &stored(ctx, object)[0], again(object, change)
			err := waysToEdit[name](ctx, as(editor), before, after)
			Expect(err).To(And(beForbiddenBy("update"), MatchError(ContainSubstring(words))), name)
			Expect(stored(ctx, before)).To(ConsistOf(*before), name)
		}
	},
		Entry("an account that is a name", specField("accountID", "web"), "1 to 18 digits"),
		Entry("an empty account", specField("accountID", ""), "1 to 18 digits"),
		Entry("an account of 19 digits", specField("accountID", "1234567890123456789"), "1 to 18 digits"),
		Entry("an account with a line feed", specField("accountID", "1098\n"), "1 to 18 digits"),
		Entry("an endless account", specField("accountID", strings.Repeat("1", 1<<20)), "1 to 18 digits"),
		Entry("a Secret in capitals", specSecret("Alibaba"), "must be the name of a Secret"),
		Entry("a Secret without a name", specSecret(nil), "must be the name of a Secret"),
	)

	DescribeTable("is forbidden when it empties the reference to the Secret, since that would change the identity",
		func(ctx SpecContext, change edit) {
			for _, name := range []string{"replacing", "applying"} {
				before, after := existing(ctx)
				change(after)
				err := waysToEdit[name](ctx, as(editor), before, after)
				Expect(err).To(And(beForbiddenBy("update"), MatchError(ContainSubstring("remove spec.credentialsSecretRef"))), name)
				Expect(stored(ctx, before)).To(ConsistOf(*before), name)
			}
		},
		Entry("no name", specSecret(nil)),
		Entry("a name of null", specField("credentialsSecretRef", map[string]any{"name": nil})),
		Entry("null", specField("credentialsSecretRef", nil)),
	)

	It("is forbidden by whatever policy also for an object on which all brakes are", func(ctx SpecContext) {
		for _, change := range []edit{withoutSpec, withNullSpec, withEmptySpec, specField("imageID", nil), specField("force", nil)} {
			object := doomed(ctx, retained, forced)
			admitted := patch(types.MergePatchType, `{"metadata":{"annotations":{"ecs.imagegc.io/protected":"x","ecs.imagegc.io/release":"x"}}}`)
			Expect(admitted(ctx, as(editor), object)).To(Succeed())
			for _, name := range []string{"replacing", "applying"} {
				before, after := &stored(ctx, object)[0], again(object, change)
				after.SetFinalizers(nil)
				Expect(waysToEdit[name](ctx, as(editor), before, after)).
					To(Or(beForbiddenBy("update"), beForbiddenBy("brakes"), beForbiddenBy("finalizer"), beForbiddenBy("force")))
				Expect(stored(ctx, object)).To(ConsistOf(*before))
			}
		}
	})
})

var _ = Describe("An edit that is allowed", func() {
	DescribeTable("is accepted", func(ctx SpecContext, change edit) {
		for name, send := range waysToEdit {
			before, after := existing(ctx)
			change(after)
			Expect(send(ctx, as(editor), before, after)).To(Succeed(), name)
			Expect(stored(ctx, before)).To(ConsistOf(HaveField("GetUID()", before.GetUID())), name)
		}
	},
		Entry("the same again", edit(func(*unstructured.Unstructured) {})),
		Entry("a label", edit(func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"team": "web"}) })),
		Entry("Retain", edit(retained)),
		Entry("another Secret", specSecret("another")),
		Entry("no Secret", specWithout("credentialsSecretRef")),
		Entry("a policy of null", specField("deletionPolicy", nil)),
	)

	It("adds an account, once", func(ctx SpecContext) {
		for name, send := range waysToEdit {
			object := live(ctx)
			Expect(send(ctx, as(editor), &stored(ctx, object)[0], again(object, pinned))).To(Succeed(), name)
			other := again(object, specField("accountID", "1098"))
			Expect(send(ctx, as(editor), &stored(ctx, object)[0], other)).To(beForbiddenBy("update"), name)
		}
	})

	It("may say null of what it does not set", func(ctx SpecContext) {
		for _, name := range []string{"replacing", "applying"} {
			object := live(ctx)
			for range 2 {
				after := again(object, specField("credentialsSecretRef", nil))
				specField("accountID", nil)(after)
				Expect(waysToEdit[name](ctx, as(editor), &stored(ctx, object)[0], after)).To(Succeed(), name)
			}
		}
	})

	It("gets the default for a policy that is left out", func(ctx SpecContext) {
		before, after := existing(ctx, retained)
		specWithout("deletionPolicy")(after)
		Expect(waysToEdit["replacing"](ctx, as(editor), before, after)).To(Succeed())
		Expect(stored(ctx, before)[0].Object["spec"]).To(HaveKeyWithValue("deletionPolicy", "Delete"))
	})
})

var _ = Describe("An object that was stored before the rules", Ordered, func() {
	var object *unstructured.Unstructured

	BeforeEach(func(ctx SpecContext) {
		file := cluster.Write("install.yaml", []byte(cluster.Build(ctx, "config/default")))
		kubectl(ctx, "patch", "crd", "customimages.ecs.imagegc.io", "--type=json", "-p",
			`[{"op":"remove","path":"/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations"}]`)
		DeferCleanup(func(ctx SpecContext) {
			kubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", file)
			Eventually(admin.Create).WithArguments(ctx, manifest(without("imageID")), client.DryRunAll).ShouldNot(Succeed())
		})
		object = manifest(nil)
		object.SetNamespace(team)
		object.Object["spec"] = map[string]any{"regionID": "HZ", "imageID": "M-F3 ", "deletionPolicy": "Orphan",
			"accountID": "x", "credentialsSecretRef": map[string]any{"name": "A_B"}}
		Eventually(admin.Create).WithArguments(ctx, object).Should(Succeed())
	})

	It("is relabelled, changed where it is wrong, and let go", func(ctx SpecContext) {
		Expect(mergeLabel(ctx, as(editor), object)).To(Succeed())
		Expect(mergeForce(ctx, as(forcer), object)).To(Succeed())
		Expect(patch(types.MergePatchType, `{"spec":{"credentialsSecretRef":{"name":"C_D"}}}`)(ctx, as(editor), object)).To(beForbiddenBy("update"))
		Expect(patch(types.MergePatchType, `{"spec":{"credentialsSecretRef":{"name":"c-d"}}}`)(ctx, as(editor), object)).To(Succeed())
		Expect(patch(types.MergePatchType, `{"spec":{"accountID":"1098"}}`)(ctx, as(editor), object)).To(beForbiddenBy("update"))
		Expect(patch(types.MergePatchType, `{"spec":{"deletionPolicy":"Retain"}}`)(ctx, as(editor), object)).To(Succeed())
		Expect(object.GetFinalizers()).To(ConsistOf(v1alpha1.Finalizer))
		Expect(admin.Delete(ctx, object)).To(Succeed())
		Expect(mergeLabel(ctx, as(editor), object)).To(Succeed())
		Expect(mergeRemove(ctx, as(operator), object)).To(Succeed())
		Expect(stored(ctx, object)).To(BeEmpty())
	})

	It("without a spec is refused nothing but a wrong one", func(ctx SpecContext) {
		object = manifest(nil)
		object.SetNamespace(team)
		delete(object.Object, "spec")
		Expect(admin.Create(ctx, object)).To(Succeed())
		Expect(mergeLabel(ctx, as(editor), object)).To(Succeed())
		Expect(mergeForce(ctx, as(editor), object.DeepCopy())).To(beDeniedBy("force"))
		Expect(mergeRemove(ctx, as(editor), object.DeepCopy())).To(beDeniedBy("finalizer"))
		Expect(protect(ctx, as(editor), object)).To(Succeed())
		Expect(as(administrator).Delete(ctx, object)).To(beDeniedBy("protected"))
		Expect(mergeRemove(ctx, as(operator), object)).To(Succeed())
	})
})
