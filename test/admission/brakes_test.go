package admission

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// A brake is one thing that keeps the image of an object that is being deleted.
type brake struct {
	pull    func(context.Context, client.Client, *unstructured.Unstructured) error
	release func(context.Context, client.Client, *unstructured.Unstructured) error
	name    string // in the message
}

var brakes = map[string]brake{
	"the policy Retain": {merge(`{"spec":{"deletionPolicy":"Retain"}}`), merge(`{"spec":{"deletionPolicy":"Delete"}}`), "spec.deletionPolicy"},
	"the policy Retain by leaving it out": {merge(`{"spec":{"deletionPolicy":"Retain"}}`), merge(`{"spec":{"deletionPolicy":null}}`),
		"spec.deletionPolicy"},
	"the protection":                    {protect, merge(`{"metadata":{"annotations":{"ecs.imagegc.io/protected":null}}}`), v1alpha1.AnnotationProtected},
	"the protection by all annotations": {protect, merge(`{"metadata":{"annotations":null}}`), v1alpha1.AnnotationProtected},
	"the protection by saying false": {merge(`{"metadata":{"annotations":{"ecs.imagegc.io/protected":"until May"}}}`),
		merge(`{"metadata":{"annotations":{"ecs.imagegc.io/protected":"false"}}}`), v1alpha1.AnnotationProtected},
	"the protection by emptying it": {protect, merge(`{"metadata":{"annotations":{"ecs.imagegc.io/protected":""}}}`), v1alpha1.AnnotationProtected},
	"the release": {merge(`{"metadata":{"annotations":{"ecs.imagegc.io/release":"m-other"}}}`),
		merge(`{"metadata":{"annotations":{"ecs.imagegc.io/release":null}}}`), v1alpha1.AnnotationRelease},
	"an empty release": {merge(`{"metadata":{"annotations":{"ecs.imagegc.io/release":""}}}`),
		merge(`{"metadata":{"annotations":{"ecs.imagegc.io/release":null}}}`), v1alpha1.AnnotationRelease},
}

var _ = Describe("A brake on an object that is being deleted", func() {
	for name, brake := range brakes {
		It("is released with the verb delete, and not without: "+name, func(ctx SpecContext) {
			object := doomed(ctx)
			Expect(brake.pull(ctx, as(editor), object)).To(Succeed())
			before := stored(ctx, object)
			for _, user := range []string{editor, forcer, releaser, operator} {
				Expect(brake.release(ctx, as(user), object.DeepCopy())).
					To(And(beDeniedBy("brakes"), MatchError(ContainSubstring(brake.name))), user)
			}
			Expect(stored(ctx, object)).To(Equal(before))
			Expect(brake.release(ctx, as(administrator), object)).To(Succeed())
			Expect(stored(ctx, object)).NotTo(Equal(before))
		})

		It("is released by an editor on an object that is not being deleted: "+name, func(ctx SpecContext) {
			object := live(ctx)
			Expect(brake.pull(ctx, as(editor), object)).To(Succeed())
			Expect(brake.release(ctx, as(editor), object)).To(Succeed())
		})
	}

	It("is released together with others in one request only if it is allowed for all", func(ctx SpecContext) {
		object := doomed(ctx, retained, annotated(v1alpha1.AnnotationRelease, "m-other"))
		both := merge(`{"spec":{"deletionPolicy":"Delete"},"metadata":{"annotations":{"ecs.imagegc.io/release":null}}}`)
		Expect(both(ctx, as(editor), object)).To(And(beDeniedBy("brakes"),
			MatchError(ContainSubstring("set spec.deletionPolicy to Delete or remove the annotation ecs.imagegc.io/release"))))
	})

	It("does not prevent what keeps the image or says nothing of it", func(ctx SpecContext) {
		object := doomed(ctx, retained, annotated(v1alpha1.AnnotationRelease, "m-other"))
		for _, change := range []string{
			`{"metadata":{"labels":{"team":"web"}}}`,
			`{"metadata":{"annotations":{"ecs.imagegc.io/retry-at":"now"}}}`,
			`{"metadata":{"annotations":{"ecs.imagegc.io/protected":"true"}}}`,
			`{"metadata":{"annotations":{"ecs.imagegc.io/protected":"until May"}}}`,
			`{"metadata":{"annotations":{"ecs.imagegc.io/release":"` + imageID(object) + `"}}}`,
			`{"spec":{"credentialsSecretRef":{"name":"another"}}}`,
		} {
			Expect(merge(change)(ctx, as(editor), object)).To(Succeed(), change)
		}
		Expect(mergeRemove(ctx, as(operator), object)).To(Succeed())
		Expect(stored(ctx, object)).To(BeEmpty())
	})

	It("tells a newcomer the command that helps", func(ctx SpecContext) {
		object, newcomer := doomed(ctx, retained), newcomer(ctx)
		loosen := brakes["the policy Retain"].release
		refusal := loosen(ctx, as(newcomer), object.DeepCopy())
		Expect(refusal).To(beDeniedBy("brakes"))
		follow(ctx, refusal, 0)
		Eventually(loosen).WithArguments(ctx, as(newcomer), object).Should(Succeed())
	})
})
