package gitops

import (
	"context"
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/rand"
)

// edit is a commit to the manifest.
type edit func(*unstructured.Unstructured) *unstructured.Unstructured

func with(field string, value any) edit {
	return func(o *unstructured.Unstructured) *unstructured.Unstructured {
		o.Object["spec"].(map[string]any)[field] = value
		return o
	}
}

func without(field string) edit {
	return func(o *unstructured.Unstructured) *unstructured.Unstructured {
		delete(o.Object["spec"].(map[string]any), field)
		return o
	}
}

func withSpec(spec any) edit {
	return func(o *unstructured.Unstructured) *unstructured.Unstructured {
		if o.Object["spec"] = spec; spec == nil {
			delete(o.Object, "spec")
		}
		return o
	}
}

func label(value string) edit {
	return func(o *unstructured.Unstructured) *unstructured.Unstructured {
		o.SetLabels(map[string]string{"team": value})
		return o
	}
}

func secret(name any) edit { return with("credentialsSecretRef", map[string]any{"name": name}) }

// committed has a tool create an object, and returns its manifest.
func committed(ctx context.Context, apply tool, spec string) *unstructured.Unstructured {
	GinkgoHelper()
	object := parse(manifest("image-"+rand.String(8), spec))
	Expect(apply(ctx, object)).To(Succeed())
	return object
}

var _ = Describe("A bad or dangerous edit in Git", func() {
	for name, apply := range tools {
		Context("by "+name, func() {
			DescribeTable("fails and leaves the object as it is", func(ctx SpecContext, change edit) {
				object := committed(ctx, apply, "")
				before := stored(ctx, object)
				err := apply(ctx, change(object.DeepCopy()))
				after := stored(ctx, object)
				Expect(after.GetDeletionTimestamp()).To(BeNil(), "%v", err)
				Expect(after.GetUID()).To(Equal(before.GetUID()), "%v", err)
				Expect(after.Object["spec"]).To(Equal(before.Object["spec"]))
				Expect(err).To(MatchError(ContainSubstring("ValidatingAdmissionPolicy 'imagegc-customimage-update'")))
				Expect(err).NotTo(MatchError(ContainSubstring("immutable")))
			},
				Entry("another image", with("imageID", "m-bp67acfmxazb4p0002")),
				Entry("another region", with("regionID", "cn-beijing")),
				Entry("a policy of Delte", with("deletionPolicy", "Delte")),
				Entry("a policy of Retian", with("deletionPolicy", "Retian")),
				Entry("an image in capitals", with("imageID", "M-F3")),
				Entry("an image of 100 characters", with("imageID", "m-"+strings.Repeat("a", 98))),
				Entry("no region", without("regionID")),
				Entry("no image", without("imageID")),
				Entry("a key without a value in place of the region", with("regionID", nil)),
				Entry("a key without a value in place of the image", with("imageID", nil)),
				Entry("no spec", withSpec(nil)),
				Entry("an empty spec", withSpec(map[string]any{})),
				Entry("a Secret that cannot be", secret("Alibaba_Cloud")),
				Entry("a Secret without a name", with("credentialsSecretRef", map[string]any{})),
				Entry("a Secret with a key without a value", secret(nil)),
				Entry("another account", with("accountID", "1098765432109876")),
				Entry("a malformed account", with("accountID", "web")),
				Entry("no account", without("accountID")),
			)
		})
	}
})

var _ = Describe("A good edit in Git", func() {
	for name, apply := range tools {
		Context("by "+name, func() {
			DescribeTable("is applied to the same object", func(ctx SpecContext, change edit, field string, value any) {
				object := committed(ctx, apply, "  force: true")
				before := stored(ctx, object)
				Expect(apply(ctx, change(object.DeepCopy()))).To(Succeed())
				after := stored(ctx, object)
				Expect(after.GetUID()).To(Equal(before.GetUID()))
				Expect(after.GetDeletionTimestamp()).To(BeNil())
				found, _, err := unstructured.NestedFieldNoCopy(after.Object, strings.Split(field, ".")...)
				Expect(err).NotTo(HaveOccurred())
				Expect(found).To(Equal(value))
			},
				Entry("force turned off", with("force", false), "spec.force", false),
				Entry("force left out", without("force"), "spec.force", false),
				Entry("a label", label("db"), "metadata.labels.team", "db"),
				Entry("Retain", with("deletionPolicy", "Retain"), "spec.deletionPolicy", "Retain"),
				Entry("another Secret", secret("another"), "spec.credentialsSecretRef.name", "another"),
				Entry("nothing", label("web"), "metadata.labels.team", "web"),
			)
		})
	}
})

// The API server itself answers these with 422, before any policy is evaluated.
var _ = Describe("An edit that the API server itself finds invalid", func() {
	DescribeTable("deletes an object with the force option, but not a protected one",
		func(ctx SpecContext, name string, change edit) {
			apply := tools[name]
			object := committed(ctx, apply, "")
			Expect(apply(ctx, change(object.DeepCopy()))).NotTo(Succeed())
			Expect(stored(ctx, object).GetDeletionTimestamp()).NotTo(BeNil())

			object = parse(manifest("image-"+rand.String(8), ""))
			object.SetAnnotations(map[string]string{"ecs.imagegc.io/protected": "true"})
			Expect(apply(ctx, object)).To(Succeed())
			err := apply(ctx, change(object.DeepCopy()))
			Expect(err).To(MatchError(ContainSubstring("ValidatingAdmissionPolicy 'imagegc-customimage-protected'")))
			Expect(stored(ctx, object).GetDeletionTimestamp()).To(BeNil())
		},
		Entry("a malformed label, by Flux", "Flux with force", label("web team")),
		Entry("a malformed label, by kubectl", "kubectl apply --force", label("web team")),
		Entry("a field of a wrong type, by kubectl", "kubectl apply --force", with("force", "yes")),
		Entry("a field that does not exist, by kubectl", "kubectl apply --force", with("deletionPolcy", "Retain")),
	)

	It("is only reported by Flux where it is a wrong type or an unknown field", func(ctx SpecContext) {
		for field, value := range map[string]any{"force": "yes", "imageID": int64(5), "deletionPolcy": "Retain"} {
			object := committed(ctx, flux, "")
			Expect(flux(ctx, with(field, value)(object.DeepCopy()))).NotTo(Succeed(), fmt.Sprint(field))
			Expect(stored(ctx, object).GetDeletionTimestamp()).To(BeNil(), field)
		}
	})
})

var _ = Describe("An object", func() {
	It("is replaced with force, unless it is protected", func(ctx SpecContext) {
		replace := kubectl("replace", "--force", "--timeout=1s")
		object := committed(ctx, flux, "")
		_ = replace(ctx, label("db")(object.DeepCopy())) // the finalizer keeps it from being created again
		Expect(stored(ctx, object).GetDeletionTimestamp()).NotTo(BeNil())

		object = parse(manifest("image-"+rand.String(8), ""))
		object.SetAnnotations(map[string]string{"ecs.imagegc.io/protected": "true"})
		Expect(flux(ctx, object)).To(Succeed())
		Expect(replace(ctx, label("db")(object.DeepCopy()))).To(
			MatchError(ContainSubstring("ValidatingAdmissionPolicy 'imagegc-customimage-protected'")))
		Expect(stored(ctx, object).GetDeletionTimestamp()).To(BeNil())
	})
})
