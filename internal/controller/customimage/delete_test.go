package customimage

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

var _ = Describe("Deleting a CustomImage", func() {
	It("deletes the image, removes the finalizer and says so once", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.events()
		result := w.delete(w.id)
		Expect(result).To(Equal(ctrl.Result{}))
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted Image " + w.id)))
	})

	DescribeTable("explains each documented error, keeps the image, and deletes it when the error ends",
		func(ctx SpecContext, code string, meaning decision.Meaning) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			w.events()
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: code, HTTPStatus: 403, Times: -1})).To(Succeed())
			w.delete(w.id)
			expectObstacle(w.get(w.id), code, meaning)
			Expect(w.exists(w.id)).To(BeTrue())
			Expect(w.events()).To(HaveLen(1))

			w.sim.ClearFaults()
			w.attemptWhenDue(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(BeFalse())
			Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
		},
		documentedErrors(),
	)

	DescribeTable("reports each obstacle that the cloud has, and deletes the image when it is cleared",
		func(ctx SpecContext, obstacle ecssim.Image, kind, code string) {
			w := newWorld(ctx, obstacle)
			w.create(w.id)
			Expect(condition(w.get(w.id), v1alpha1.ConditionReady).Status).To(Equal(metav1.ConditionTrue))
			w.delete(w.id)
			meaning := decision.MeaningOf("ecs:DeleteImage", code)
			Expect(meaning.Condition).To(Equal(kind))
			expectObstacle(w.get(w.id), code, meaning)
			Expect(w.exists(w.id)).To(BeTrue())

			w.putImage(ecssim.Image{})
			w.attemptWhenDue(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(BeFalse())
		},
		Entry("instances", ecssim.Image{UsedBy: []string{"i-bp1a"}}, "InUse", "ImageUsingByInstance"),
		Entry("other accounts", ecssim.Image{SharedWith: []string{"1098"}}, "Shared", "ImageUseShared"),
		Entry("everybody", ecssim.Image{Public: true}, "Public", "ImageIsPublic"),
		Entry("a copy", ecssim.Image{Copying: ecssim.Forever}, "Copying", "OperationDenied.ImageCopying"),
		Entry("an import", ecssim.Image{Importing: ecssim.Forever}, "Importing", "ImageIsImporting"),
		Entry("an export", ecssim.Image{Exporting: ecssim.Forever}, "Exporting", "ImageIsExporting"),
		Entry("its creation", ecssim.Image{Creating: ecssim.Forever}, "Creating", "ImageIsCreating"),
	)

	It("reports an endpoint that does not exist as invalid, and says how to remove the object", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		Expect(w.sim.AddFault(ecssim.Fault{Code: failure.CodeEndpointNotFound, Times: -1})).To(Succeed())
		w.delete(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Invalid"))
		w.expectStalled(w.id, "EndpointNotFound", "Check spec.regionID", `"deletionPolicy":"Retain"`)

		w.change(w.id, retained)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue(), "the advice works")
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("waits until a copy ends, and clears that obstacle when another one is reported", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{Copying: ecssim.Duration(time.Minute), UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Copying"))
		w.clock.Step(time.Minute)
		w.attemptWhenDue(w.id)
		image := w.get(w.id)
		Expect(trueObstacles(image)).To(ConsistOf("InUse"))
		Expect(condition(image, "Copying").Reason).To(Equal("Cleared"))
		Expect(condition(image, "Copying").Status).To(Equal(metav1.ConditionFalse))
	})

	It("sends Force only if spec.force is true, and tries again at once when it becomes true", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		result := w.attempt(w.id)
		Expect(result.RequeueAfter).To(BeNumerically(">", 10*time.Second))
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))

		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Spec.Force = ptr.To(true) })
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		var forced []bool
		for _, call := range w.sim.Calls() {
			if call.Action == "DeleteImage" {
				forced = append(forced, call.Force)
			}
		}
		Expect(forced).To(Equal([]bool{false, true}))
	})

	It("makes no call for an object that retains its image", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, retained)
		w.events()
		calls := len(w.sim.Calls())
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.sim.Calls()).To(HaveLen(calls))
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
	})

	It("removes a blocked object that is changed to retain its image", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{SharedWith: []string{"1098"}})
		w.create(w.id)
		w.delete(w.id)
		w.change(w.id, retained)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("calls ECS only after other finalizers are removed, and names them", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{"example.com/backup"} })
		w.delete(w.id)
		image := w.get(w.id)
		Expect(condition(image, "Ready").Reason).To(Equal("Pending"))
		Expect(condition(image, "Ready").Message).To(ContainSubstring("example.com/backup"))
		Expect(condition(image, "Reconciling").Status).To(Equal(metav1.ConditionTrue))
		Expect(w.calls("DeleteImage", w.id)).To(BeZero())

		w.change(w.id, withFinalizer)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("keeps the image if the release annotation names it, and not if it names another one", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		w.events()
		annotate := func(value string) {
			w.change(w.id, annotated(v1alpha1.AnnotationRelease, value))
			w.attempt(w.id)
		}
		annotate("true")
		Expect(condition(w.get(w.id), "Stalled").Reason).To(Equal("InvalidRelease"))
		Expect(condition(w.get(w.id), "Ready").Message).To(And(ContainSubstring(`is "true"`), ContainSubstring(w.id)))
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("InUse"), "ECS did not say anything else")
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning InvalidRelease ")))
		annotate("false")
		Expect(w.gone(w.id)).To(BeFalse())
		w.events()
		annotate(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Released ")))
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
	})

	It("deletes nothing while the release annotation names another image", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, annotated(v1alpha1.AnnotationRelease, "m-another"))
		w.delete(w.id)
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeFalse())
		Expect(w.calls("DeleteImage", w.id)).To(BeZero())
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Annotations = nil })
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("removes an object that retains its image, whatever its release annotation says", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, retained, annotated(v1alpha1.AnnotationRelease, "m-another"))
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("tries again at once for each new value of the retry annotation, and once for each", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		retryAt := func(value string) int {
			w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, value))
			w.attempt(w.id)
			return w.calls("DeleteImage", w.id)
		}
		long := strings.Repeat("long", 1000)
		Expect(retryAt("a")).To(Equal(2))
		Expect(retryAt("a")).To(Equal(2))
		Expect(retryAt("b")).To(Equal(3))
		Expect(retryAt(long)).To(Equal(4))
		Expect(retryAt(long)).To(Equal(4))
		w.restart()
		w.attempt(w.id)
		Expect(w.calls("DeleteImage", w.id)).To(Equal(4), "a restart must not take an old value for a new one")
	})

	It("deletes an image that was never looked at before", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{Name: "web-1"})
		w.createUnseen(w.id, withFinalizer)
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
	})

	It("deletes a deprecated image, and does not consider it missing", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{Status: "Deprecated", UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(w.get(w.id).Status.Image.State).To(Equal("Deprecated"))
		w.delete(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("InUse"))
		w.putImage(ecssim.Image{Status: "Deprecated"})
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})
})

var _ = Describe("Deleting a CustomImage while the cache lags behind", func() {
	It("keeps the image if the object was deleted and created again", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.deleteUnseen(w.id)
		lagging := w.get(w.id)
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = nil })
		w.createUnseen(w.id)
		w.attemptFrom(lagging)
		Expect(w.calls("DeleteImage", w.id)).To(BeZero())
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("calls ECS once although the cache does not show the result yet", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.deleteUnseen(w.id)
		lagging := w.get(w.id)
		for range 3 {
			w.attemptFrom(lagging)
		}
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
	})

	It("respects a policy that was changed back to Delete", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, retained)
		w.deleteUnseen(w.id)
		lagging := w.get(w.id)
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
		w.attemptFrom(lagging)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("ignores an annotation and a Secret that only the cache still has", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, annotated(v1alpha1.AnnotationRelease, w.id), withSecret("missing"))
		w.deleteUnseen(w.id)
		lagging := w.get(w.id)
		w.change(w.id, func(image *v1alpha1.CustomImage) {
			image.Annotations = nil
			image.Spec.CredentialsSecretRef.Name = ""
		})
		w.attemptFrom(lagging)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
		Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
	})

	It("respects a policy that was changed to Retain", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.deleteUnseen(w.id)
		lagging := w.get(w.id)
		w.change(w.id, retained)
		w.attemptFrom(lagging)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.calls("DeleteImage", w.id)).To(BeZero())
		Expect(w.exists(w.id)).To(BeTrue())
	})
})

// documentedErrors are all errors that ECS can refuse a deletion with until something else changes, as the table has
// them.
func documentedErrors() (entries []TableEntry) {
	for _, meaning := range decision.Meanings {
		if meaning.Condition == "" || meaning.Class == ecs.Gone || meaning.HTTP == "" {
			continue
		}
		code := example(meaning.Pattern)
		entries = append(entries, Entry(code, code, meaning))
	}
	return entries
}

// example makes a code from a pattern of the table.
func example(pattern string) string {
	if strings.HasPrefix(pattern, "*") {
		return "OperationDenied" + strings.TrimPrefix(pattern, "*")
	}
	return strings.Replace(pattern, "*", "Example", 1)
}

// expectObstacle checks all that an obstacle says, in each place where it is said.
func expectObstacle(image *v1alpha1.CustomImage, code string, meaning decision.Meaning) {
	GinkgoHelper()
	summary, other := "Stalled", "Reconciling"
	if meaning.Class == ecs.Waiting {
		summary, other = other, summary
	}
	Expect(image.Finalizers).To(ContainElement(v1alpha1.Finalizer))
	Expect(trueObstacles(image)).To(ConsistOf(meaning.Condition))
	ready := condition(image, "Ready")
	Expect(ready.Status).To(Equal(metav1.ConditionFalse))
	Expect(ready.Reason).To(Equal(strings.ReplaceAll(code, ".", "")))
	advice, _, _ := strings.Cut(meaning.Advice, "{")
	Expect(ready.Message).To(And(HavePrefix(code+": "), ContainSubstring(advice), Not(MatchRegexp(`\{[a-z]`)),
		HaveSuffix(" See "+reasonPages+meaning.Page()+".md")))
	for _, kind := range []string{summary, meaning.Condition} {
		Expect(condition(image, kind).Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(image, kind).Reason).To(Equal(ready.Reason))
		Expect(condition(image, kind).Message).To(Equal(ready.Message))
	}
	Expect(condition(image, other).Type).To(BeEmpty())
	Expect(image.Status.ObservedGeneration).To(Equal(ptr.To(image.Generation)))
	Expect(image.Status.LastError.Code).To(Equal(code))
}
