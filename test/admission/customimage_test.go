package admission

import (
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

func without(name string) func(map[string]any) {
	return func(spec map[string]any) { delete(spec, name) }
}

// refused checks that a request is refused for being invalid, in words that name the field and the rule.
func refused(err error, fieldName, rule string) {
	GinkgoHelper()
	Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
	Expect(err).To(MatchError(And(ContainSubstring(fieldName), ContainSubstring(rule))))
}

var _ = Describe("A CustomImage", func() {
	It("gets the defaults, and a status that no one takes for a finished one", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		Expect(object.Object["spec"]).To(Equal(map[string]any{
			"regionID": "cn-hangzhou", "imageID": "m-bp67acfmxazb4p0001", "force": false, "deletionPolicy": "Delete"}))
		Expect(object.Object["status"]).To(Equal(map[string]any{"observedGeneration": int64(-1)}))
	})

	DescribeTable("is refused with words that name the field and the rule",
		func(ctx SpecContext, change func(map[string]any), fieldName, rule string) {
			refused(admin.Create(ctx, manifest(change)), fieldName, rule)
		},
		Entry("no region", without("regionID"), "spec.regionID", "Required"),
		Entry("an empty region", field("regionID", ""), "spec.regionID", "at least 1 char"),
		Entry("a region in capitals", field("regionID", "CN-Hangzhou"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region that is a host", field("regionID", "cn-hangzhou.evil.example/"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region without a place", field("regionID", "cn"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("a region with a line feed", field("regionID", "cn-hangzhou\n"), "spec.regionID", "must be the ID of an Alibaba Cloud region"),
		Entry("no image", without("imageID"), "spec.imageID", "Required"),
		Entry("an empty image", field("imageID", ""), "spec.imageID", "at least 1 char"),
		Entry("a system image", field("imageID", "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"), "spec.imageID", "must be the ID of a custom image"),
		Entry("two images", field("imageID", "m-bp1,m-bp2"), "spec.imageID", "must be the ID of a custom image"),
		Entry("an image with spaces", field("imageID", " m-bp1"), "spec.imageID", "must be the ID of a custom image"),
		Entry("an instance", field("imageID", "i-bp1"), "spec.imageID", "must be the ID of a custom image"),
		Entry("an endless image", field("imageID", "m-"+string(make([]byte, 99))), "spec.imageID", "Too long"),
		Entry("an unknown policy", field("deletionPolicy", "Orphan"), "spec.deletionPolicy", `supported values: "Delete", "Retain"`),
		Entry("a force that is no bool", field("force", "yes"), "spec.force", "boolean"),
	)

	DescribeTable("cannot be made to mean another image",
		func(ctx SpecContext, name, value, rule string) {
			object := manifest(nil)
			Expect(admin.Create(ctx, object)).To(Succeed())
			Expect(unstructured.SetNestedField(object.Object, value, "spec", name)).To(Succeed())
			refused(admin.Update(ctx, object), "spec."+name, rule)
		},
		Entry(nil, "regionID", "cn-beijing", "regionID is immutable"),
		Entry(nil, "imageID", "m-bp67acfmxazb4p0002", "imageID is immutable"),
	)

	It("cannot lose its image or its spec", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		removed := object.DeepCopy()
		unstructured.RemoveNestedField(removed.Object, "spec", "imageID")
		refused(admin.Update(ctx, removed), "spec.imageID", "Required")
		removed = object.DeepCopy()
		unstructured.RemoveNestedField(removed.Object, "spec")
		refused(admin.Update(ctx, removed), "spec", "Required")
	})

	It("can change force and the policy", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		Expect(unstructured.SetNestedField(object.Object, true, "spec", "force")).To(Succeed())
		Expect(unstructured.SetNestedField(object.Object, "Retain", "spec", "deletionPolicy")).To(Succeed())
		Expect(admin.Update(ctx, object)).To(Succeed())
	})

	It("is not given another status by one who may only change the spec", func(ctx SpecContext) {
		object := manifest(nil)
		Expect(admin.Create(ctx, object)).To(Succeed())
		object.Object["status"] = map[string]any{"image": map[string]any{"ownerID": "1098"}}
		Expect(admin.Update(ctx, object)).To(Succeed())
		Expect(object.Object["status"]).To(Equal(map[string]any{"observedGeneration": int64(-1)}))
	})
})
