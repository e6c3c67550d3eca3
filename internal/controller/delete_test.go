package controller

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// id is the image of the specs that have but one.
const id = "m-bp1test"

// example makes a code from a pattern of the table.
func example(pattern string) string {
	if strings.HasPrefix(pattern, "*") {
		return "OperationDenied" + strings.TrimPrefix(pattern, "*")
	}
	return strings.Replace(pattern, "*", "Example", 1)
}

var _ = Describe("Deleting a CustomImage", func() {
	It("deletes the image, lets the object go and says so once", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.events()
		result := w.delete(id)
		Expect(result).To(Equal(ctrl.Result{}))
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
		Expect(w.calls("DeleteImage", id)).To(Equal(1))
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted Image " + id)))
	})

	// Every documented error, as the table in package ecs has it.
	for _, meaning := range ecs.Meanings {
		if meaning.Condition == "" || meaning.Class == ecs.Gone || meaning.HTTP == "" {
			continue
		}
		code := example(meaning.Code)
		It("says what "+code+" means, keeps the image, and goes on when it is cleared", func() {
			w := newWorld(ecssim.Image{ImageID: id})
			w.create(id)
			w.events()
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: code, HTTPStatus: 403, Times: -1})).To(Succeed())
			w.delete(id)
			expectObstacle(w.get(id), code, meaning)
			Expect(w.exists(id)).To(BeTrue())
			Expect(w.events()).To(HaveLen(1))

			w.sim.ClearFaults()
			w.attemptWhenDue(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(BeFalse())
			Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
		})
	}

	DescribeTable("meets each obstacle in the cloud as ECS documents it, and passes once it is cleared",
		func(obstacle ecssim.Image, kind, code string) {
			obstacle.ImageID = id
			w := newWorld(obstacle)
			w.create(id)
			Expect(condition(w.get(id), v1alpha1.ConditionReady).Status).To(Equal(metav1.ConditionTrue))
			w.delete(id)
			meaning := ecs.Lookup(code)
			Expect(meaning.Condition).To(Equal(kind))
			expectObstacle(w.get(id), code, meaning)
			Expect(w.exists(id)).To(BeTrue())

			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			w.attemptWhenDue(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(BeFalse())
		},
		Entry(nil, ecssim.Image{UsedBy: []string{"i-bp1a"}}, "InUse", "ImageUsingByInstance"),
		Entry(nil, ecssim.Image{SharedWith: []string{"1098"}}, "Shared", "ImageUseShared"),
		Entry(nil, ecssim.Image{Public: true}, "Public", "ImageIsPublic"),
		Entry(nil, ecssim.Image{Copying: ecssim.Forever}, "Copying", "OperationDenied.ImageCopying"),
		Entry(nil, ecssim.Image{Importing: ecssim.Forever}, "Importing", "ImageIsImporting"),
		Entry(nil, ecssim.Image{Exporting: ecssim.Forever}, "Exporting", "ImageIsExporting"),
		Entry(nil, ecssim.Image{Creating: ecssim.Forever}, "Creating", "ImageIsCreating"),
	)

	It("waits for a copy by itself, and marks the obstacle as cleared when another takes its place", func() {
		w := newWorld(ecssim.Image{ImageID: id, Copying: ecssim.Duration(time.Minute), UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("Copying"))
		w.clock.Step(time.Minute)
		w.attemptWhenDue(id)
		image := w.get(id)
		Expect(trueObstacles(image)).To(ConsistOf("InUse"))
		Expect(condition(image, "Copying").Reason).To(Equal("Cleared"))
		Expect(condition(image, "Copying").Status).To(Equal(metav1.ConditionFalse))
	})

	It("sends Force only when asked, and a flip of it wakes a blocked object at once", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		result := w.attempt(id)
		Expect(result.RequeueAfter).To(BeNumerically(">", 10*time.Second))
		Expect(w.calls("DeleteImage", id)).To(Equal(1))

		w.change(id, func(image *v1alpha1.CustomImage) { image.Spec.Force = ptr.To(true) })
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		var forced []bool
		for _, call := range w.sim.Calls() {
			if call.Action == "DeleteImage" {
				forced = append(forced, call.Force)
			}
		}
		Expect(forced).To(Equal([]bool{false, true}))
	})

	It("makes no call for an object that retains its image", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, retained)
		w.events()
		calls := len(w.sim.Calls())
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.sim.Calls()).To(HaveLen(calls))
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Retained ")))
	})

	It("lets a blocked object go that is changed to retain its image", func() {
		w := newWorld(ecssim.Image{ImageID: id, SharedWith: []string{"1098"}})
		w.create(id)
		w.delete(id)
		w.change(id, retained)
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
	})

	It("asks ECS only after the finalizers of others are gone, and says whom it waits for", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{"example.com/backup"} })
		w.delete(id)
		image := w.get(id)
		Expect(condition(image, "Ready").Reason).To(Equal("Pending"))
		Expect(condition(image, "Ready").Message).To(ContainSubstring("example.com/backup"))
		Expect(meta.IsStatusConditionTrue(image.Status.Conditions, "Reconciling")).To(BeTrue())
		Expect(w.calls("DeleteImage", id)).To(BeZero())

		w.change(id, withFinalizer)
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("leaves the image when the release annotation names it, and not when it names another", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		w.events()
		annotate := func(value string) {
			w.change(id, func(image *v1alpha1.CustomImage) {
				image.Annotations = map[string]string{v1alpha1.AnnotationRelease: value}
			})
			w.attempt(id)
		}
		annotate("true")
		Expect(condition(w.get(id), "Stalled").Reason).To(Equal("InvalidRelease"))
		Expect(condition(w.get(id), "Ready").Message).To(And(ContainSubstring(`is "true"`), ContainSubstring(id)))
		Expect(trueObstacles(w.get(id))).To(ConsistOf("InUse"), "ECS did not say anything else")
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning InvalidRelease ")))
		annotate("false")
		Expect(w.gone(id)).To(BeFalse())
		w.events()
		annotate(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Released ")))
		Expect(w.calls("DeleteImage", id)).To(Equal(1))
	})

	It("deletes nothing while the release annotation names another image, and goes on when it is taken off", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, annotated(v1alpha1.AnnotationRelease, "m-another"))
		w.delete(id)
		w.attemptWhenDue(id)
		Expect(w.gone(id)).To(BeFalse())
		Expect(w.calls("DeleteImage", id)).To(BeZero())
		w.change(id, func(image *v1alpha1.CustomImage) { image.Annotations = nil })
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("lets an object that retains its image go whatever its release annotation says", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) {
			image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
			image.Annotations = map[string]string{v1alpha1.AnnotationRelease: "m-another"}
		})
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
	})

	It("tries again at once for each new value of the retry annotation, and for none twice", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		for attempts, value := range []string{"a", "a", "b", strings.Repeat("long", 1000), strings.Repeat("long", 1000)} {
			w.change(id, func(image *v1alpha1.CustomImage) {
				image.Annotations = map[string]string{v1alpha1.AnnotationRetryAt: value}
			})
			w.attempt(id)
			Expect(w.calls("DeleteImage", id)).To(Equal([]int{2, 2, 3, 4, 4}[attempts]))
		}
		w.restart()
		w.attempt(id)
		Expect(w.calls("DeleteImage", id)).To(Equal(4), "a restart must not take an old value for a new one")
	})

	DescribeTable("never announces an image as deleted that was not there",
		func(answer ecssim.UnknownImage, seenBefore bool) {
			w := newWorld()
			Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.UnknownImage = answer })).To(Succeed())
			if seenBefore {
				Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			}
			w.create(id)
			if seenBefore { // somebody else deletes the image, and the object says so
				w.sim.DeleteImage(id)
				w.clock.Step(7 * time.Hour)
				w.attempt(id)
			}
			image := w.get(id)
			expectObstacle(image, ecs.CodeImageNotFound, ecs.Lookup(ecs.CodeImageNotFound))
			Expect(w.calls("DeleteImage", id)).To(BeZero())
			w.events()
			w.delete(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")))
		},
		Entry("ECS answers 404", ecssim.UnknownNotFound, false),
		Entry("ECS answers 200", ecssim.UnknownIgnored, false),
		Entry("ECS answers 404, and the image went behind our back", ecssim.UnknownNotFound, true),
		Entry("ECS answers 200, and the image went behind our back", ecssim.UnknownIgnored, true),
	)

	It("announces the deletion of an image that was deleted before it was ever looked at", func() {
		w := newWorld(ecssim.Image{ImageID: id, Name: "web-1"})
		w.createUnseen(id, withFinalizer)
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
	})

	It("waits while ECS still shows the image, then lets the object go", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.DeletionDelay = ecssim.Duration(20 * time.Second) })).To(Succeed())
		w.create(id)
		w.delete(id)
		image := w.get(id)
		Expect(condition(image, "Ready").Reason).To(Equal("Deleting"))
		Expect(condition(image, "Reconciling").Reason).To(Equal("Deleting"))
		w.attemptWhenDue(id)
		Expect(w.gone(id)).To(BeFalse())
		w.clock.Step(20 * time.Second)
		w.attemptWhenDue(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
	})

	It("calls for help when ECS shows the image for more than ten minutes", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.DeletionDelay = ecssim.Forever })).To(Succeed())
		w.create(id)
		w.delete(id)
		w.events()
		w.clock.Step(11 * time.Minute)
		for n := range 3 {
			w.attemptWhenDue(id)
			if n == 0 {
				Expect(w.events()).To(ConsistOf(HavePrefix("Warning Deleting ")))
			}
			image := w.get(id)
			Expect(condition(image, "Stalled").Reason).To(Equal("Deleting"))
			Expect(condition(image, "Stalled").Message).To(ContainSubstring("release=" + id))
			Expect(meta.FindStatusCondition(image.Status.Conditions, "Reconciling")).To(BeNil())
		}
		Expect(w.exists(id)).To(BeTrue())
	})

	It("deletes a deprecated image, and does not take it for gone", func() {
		w := newWorld(ecssim.Image{ImageID: id, Status: "Deprecated", UsedBy: []string{"i-bp1a"}})
		w.create(id)
		Expect(condition(w.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(w.get(id).Status.Image.State).To(Equal("Deprecated"))
		w.delete(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("InUse"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, Status: "Deprecated"})).To(Succeed())
		w.attemptWhenDue(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("does not touch an image whose object was deleted and created anew while the cache lagged behind", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.deleteUnseen(id)
		lagging := w.get(id)
		w.change(id, func(image *v1alpha1.CustomImage) { image.Finalizers = nil })
		w.createUnseen(id)
		w.attemptFrom(lagging)
		Expect(w.calls("DeleteImage", id)).To(BeZero())
		Expect(w.exists(id)).To(BeTrue())
	})

	It("asks once although the cache does not show yet what came of it", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.deleteUnseen(id)
		lagging := w.get(id)
		for range 3 {
			w.attemptFrom(lagging)
		}
		Expect(w.calls("DeleteImage", id)).To(Equal(1))
	})

	It("heeds a policy that changed back to Delete while the cache lagged behind", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, retained)
		w.deleteUnseen(id)
		lagging := w.get(id)
		w.change(id, func(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
		w.attemptFrom(lagging)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("judges nothing by what only the cache still has: an annotation, or a Secret", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) {
			image.Annotations = map[string]string{v1alpha1.AnnotationRelease: id}
			image.Spec.CredentialsSecretRef.Name = "missing"
		})
		w.deleteUnseen(id)
		lagging := w.get(id)
		w.change(id, func(image *v1alpha1.CustomImage) {
			image.Annotations = nil
			image.Spec.CredentialsSecretRef.Name = ""
		})
		w.attemptFrom(lagging)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
		Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
	})

	It("heeds a policy that changed to Retain while the cache lagged behind", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.deleteUnseen(id)
		lagging := w.get(id)
		w.change(id, retained)
		w.attemptFrom(lagging)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.calls("DeleteImage", id)).To(BeZero())
		Expect(w.exists(id)).To(BeTrue())
	})
})

// expectObstacle checks all that an obstacle says, in each place where it is said.
func expectObstacle(image *v1alpha1.CustomImage, code string, meaning ecs.Meaning) {
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
		HaveSuffix(" See docs/reasons/"+ecs.Reason(meaning.Code)+".md.")))
	for _, kind := range []string{summary, meaning.Condition} {
		Expect(condition(image, kind).Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(image, kind).Reason).To(Equal(ready.Reason))
		Expect(condition(image, kind).Message).To(Equal(ready.Message))
	}
	Expect(meta.FindStatusCondition(image.Status.Conditions, other)).To(BeNil())
	Expect(image.Status.ObservedGeneration).To(Equal(ptr.To(image.Generation)))
	Expect(image.Status.LastError.Code).To(Equal(code))
}
