package admission

import (
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// manifest is an object as a person writes it: what a typed object could not hold can be in it.
func manifest(change func(spec map[string]any)) *unstructured.Unstructured {
	spec := map[string]any{"regionID": "cn-hangzhou", "imageID": "m-bp67acfmxazb4p0001"}
	if change != nil {
		change(spec)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImage"))
	object.SetNamespace(metav1.NamespaceDefault)
	object.SetGenerateName("image-")
	return object
}

func field(name string, value any) func(map[string]any) {
	return func(spec map[string]any) { spec[name] = value }
}

// secret names a Secret, or none with a nil.
func secret(name any) func(map[string]any) {
	reference := map[string]any{"name": name}
	if name == nil {
		reference = map[string]any{}
	}
	return field("credentialsSecretRef", reference)
}

func without(name string) func(map[string]any) {
	return func(spec map[string]any) { delete(spec, name) }
}

// refused checks that a request is refused for being invalid, in words that name the field and the rule.
func refused(err error, fieldName, rule string) {
	GinkgoHelper()
	Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
	Expect(err).To(MatchError(And(ContainSubstring(fieldName), ContainSubstring(rule))))
}

// unseen is the status of an object that the operator has not seen.
var unseen = map[string]any{
	"observedGeneration": int64(-1),
	"conditions": []any{map[string]any{
		"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "Waiting for the first check in ECS.",
		"lastTransitionTime": "1970-01-01T00:00:00Z",
	}},
}

var _ = Describe("A CustomImage", func() {
	It("gets the defaults, and a status that no one takes for a finished one", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		Expect(object.Object["spec"]).To(Equal(map[string]any{
			"regionID": "cn-hangzhou", "imageID": "m-bp67acfmxazb4p0001", "force": false, "deletionPolicy": "Delete"}))
		Expect(object.Object["status"]).To(Equal(unseen))
	})

	DescribeTable("is refused with words that name the field and the rule",
		func(ctx SpecContext, change func(map[string]any), fieldName, rule string) {
			err := admin.Create(ctx, manifest(change))
			refused(err, fieldName, rule)
			Expect(apierrors.ReasonForError(err)).To(Equal(metav1.StatusReasonInvalid))
			Expect(err.(apierrors.APIStatus).Status().Details.Causes).To(ContainElement(HaveField("Field", fieldName)))
		},
		Entry("no region", without("regionID"), "spec.regionID", "Required value: regionID is required"),
		Entry("a region of null", field("regionID", nil), "spec.regionID", "Required value: regionID is required"),
		Entry("an empty region", field("regionID", ""), "spec.regionID", "Required value: regionID is required"),
		Entry("a region in capitals", field("regionID", "CN-Hangzhou"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region that is a host", field("regionID", "cn-hangzhou.evil.example/"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region without a place", field("regionID", "cn"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region with a line feed", field("regionID", "cn-hangzhou\n"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region of 65 characters", field("regionID", "cn-"+strings.Repeat("a", 62)), "spec.regionID", "regionID must have at most 64 characters"),
		Entry("no image", without("imageID"), "spec.imageID", "Required value: imageID is required"),
		Entry("an image of null", field("imageID", nil), "spec.imageID", "Required value: imageID is required"),
		Entry("an empty image", field("imageID", ""), "spec.imageID", "Required value: imageID is required"),
		Entry("a system image", field("imageID", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"), "spec.imageID", "must be the ID of a custom image"),
		Entry("two images", field("imageID", "m-bp1,m-bp2"), "spec.imageID", "must be the ID of a custom image"),
		Entry("an image without an ID", field("imageID", "m-"), "spec.imageID", "must be the ID of a custom image"),
		Entry("an instance", field("imageID", "i-bp1"), "spec.imageID", "must be the ID of a custom image"),
		Entry("an endless image", field("imageID", "m-"+strings.Repeat("a", 1<<20)), "spec.imageID", "imageID must have at most 64 characters"),
		Entry("an image of 65 characters", field("imageID", "m-"+strings.Repeat("a", 63)), "spec.imageID", "imageID must have at most 64 characters"),
		Entry("an unknown policy", field("deletionPolicy", "Orphan"), "spec.deletionPolicy", "deletionPolicy must be Delete or Retain"),
		Entry("an empty policy", field("deletionPolicy", ""), "spec.deletionPolicy", "deletionPolicy must be Delete or Retain"),
		Entry("a policy with a line feed", field("deletionPolicy", "Retain\n"), "spec.deletionPolicy", "deletionPolicy must be Delete or Retain"),
		Entry("a force that is no bool", field("force", "yes"), "spec.force", "boolean"),
		Entry("an account that is a name", field("accountID", "web"), "spec.accountID", "1 to 18 digits"),
		Entry("an empty account", field("accountID", ""), "spec.accountID", "1 to 18 digits"),
		Entry("an account that begins with 0", field("accountID", "012"), "spec.accountID", "1 to 18 digits"),
		Entry("an account of 19 digits", field("accountID", "1234567890123456789"), "spec.accountID", "1 to 18 digits"),
		Entry("an account with a line feed", field("accountID", "1234567890123456\n"), "spec.accountID", "1 to 18 digits"),
		Entry("a Secret without a name", secret(nil), "spec.credentialsSecretRef.name", "Required value: credentialsSecretRef.name is required"),
		Entry("a Secret with an empty name", secret(""), "spec.credentialsSecretRef.name", "must be the name of a Secret"),
		Entry("a Secret in capitals", secret("Alibaba"), "spec.credentialsSecretRef.name", "must be the name of a Secret"),
		Entry("a Secret of another namespace", secret("team/alibaba"), "spec.credentialsSecretRef.name", "must be the name of a Secret"),
		Entry("a Secret with a line feed", secret("alibaba\n"), "spec.credentialsSecretRef.name", "must be the name of a Secret"),
		Entry("a Secret of 254 characters", secret(strings.Repeat("a", 254)), "spec.credentialsSecretRef.name", "must be the name of a Secret"),
	)

	DescribeTable("is told of upper case letters and blanks in its image, and not of system images",
		func(ctx SpecContext, id string) {
			err := admin.Create(ctx, manifest(field("imageID", id)))
			refused(err, "spec.imageID", "imageID must not contain upper case letters or blanks")
			Expect(err).NotTo(MatchError(ContainSubstring("system")))
		},
		Entry("an image with spaces", " m-bp1"),
		Entry("with a blank at the end", "m-bp1 "),
		Entry("with a blank inside", "m-bp 1"),
		Entry("with a line feed", "m-bp1\n"),
		Entry("with a tab", "m-bp1\t"),
		Entry("in capitals", "M-F3"),
		Entry("with one capital", "m-bP1"),
	)

	It("is told of everything that is missing when it has no spec", func(ctx SpecContext) {
		for _, spec := range []any{map[string]any{}, nil, "none"} {
			object := manifest(nil)
			if object.Object["spec"] = spec; spec == "none" {
				delete(object.Object, "spec")
			}
			err := admin.Create(ctx, object)
			refused(err, "spec.regionID", "regionID is required")
			refused(err, "spec.imageID", "imageID is required")
		}
	})

	DescribeTable("is accepted with", func(ctx SpecContext, change func(map[string]any)) {
		Expect(admin.Create(ctx, manifest(change))).To(Succeed())
	},
		Entry("a region of 64 characters", field("regionID", "cn-"+strings.Repeat("a", 61))),
		Entry("a region with many parts", field("regionID", "cn-hangzhou-finance-1")),
		Entry("an image of 64 characters", field("imageID", "m-"+strings.Repeat("a", 62))),
		Entry("an account of 18 digits", field("accountID", "123456789012345678")),
		Entry("a Secret of 253 characters", secret(strings.Repeat("a", 253))),
		Entry("a Secret with dots", secret("alibaba.cloud-1")),
		Entry("null where nothing is required", func(spec map[string]any) {
			spec["accountID"], spec["credentialsSecretRef"], spec["deletionPolicy"], spec["force"] = nil, nil, nil, nil
		}),
	)

	It("can change force and the policy", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		Expect(unstructured.SetNestedField(object.Object, true, "spec", "force")).To(Succeed())
		Expect(unstructured.SetNestedField(object.Object, "Retain", "spec", "deletionPolicy")).To(Succeed())
		Expect(admin.Update(ctx, object)).To(Succeed())
	})

	It("shows in kubectl get what is known of it", func(ctx SpecContext) {
		object := live(ctx, func(o *unstructured.Unstructured) { o.Object["spec"].(map[string]any)["regionID"] = "cn-beijing" })
		columns := func() []string {
			output := k8s.Kubectl(ctx, "get", "cimg", object.GetName(), "-n", team)
			Expect(output.Err).NotTo(HaveOccurred())
			header, row, _ := strings.Cut(output.Stdout, "\n")
			Expect(strings.Fields(header)).To(Equal([]string{"NAME", "IMAGE", "REGION", "READY", "REASON", "DELETING", "AGE"}))
			return strings.Fields(row)
		}
		age := MatchRegexp(`^\d+s$`)
		Expect(columns()).To(HaveExactElements(object.GetName(), imageID(object), "cn-beijing", "Unknown", "Pending", age))
		Expect(admin.Delete(ctx, object)).To(Succeed())
		Expect(columns()).To(HaveExactElements(object.GetName(), imageID(object), "cn-beijing", "Unknown", "Pending", age, age))
	})

	It("is not given another status by one who may only change the spec", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		object.Object["status"] = map[string]any{"image": map[string]any{"ownerID": "1098"}}
		Expect(admin.Update(ctx, object)).To(Succeed())
		Expect(object.Object["status"]).To(Equal(unseen))
	})
})
