package customimage

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("A live CustomImage", func() {
	It("shows the image as ECS describes it", func(ctx SpecContext) {
		created := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
		w := newWorld(ctx, ecssim.Image{Name: "web-1", Family: "web", SizeGiB: 40, CreationTime: created,
			UsedBy: []string{"i-bp1a"}, SnapshotIDs: []string{"s-bp1a", "s-bp1b"}})
		w.create(w.id)
		image := w.get(w.id)
		Expect(image.Finalizers).To(ConsistOf(v1alpha1.Finalizer))
		Expect(condition(image, "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(image, "Ready").Reason).To(Equal("Available"))
		Expect(image.Status.Conditions).To(HaveLen(1))
		Expect(image.Status.LastSyncTime.Time).To(BeTemporally("==", w.clock.Now()))
		shown := image.Status.Image
		Expect(shown.CreationTime.Time).To(BeTemporally("==", created))
		shown.CreationTime = nil
		Expect(*shown).To(Equal(v1alpha1.ImageStatus{ImageID: w.id, RegionID: region, Name: "web-1", Family: "web",
			SizeGiB: ptr.To[int32](40), State: "Available", Usage: "instance", OwnerID: "1234567890123456",
			SnapshotIDs: []string{"s-bp1a", "s-bp1b"}}))
	})

	DescribeTable("says what deleting it does",
		func(ctx SpecContext, change func(*v1alpha1.CustomImage), text string) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id, change)
			Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
			Expect(condition(w.get(w.id), "Ready").Message).To(HaveSuffix(" " + text))
		},
		Entry("by default", func(*v1alpha1.CustomImage) {}, "Deleting this object deletes the image."),
		Entry("with the policy Retain", retained, "Deleting this object keeps the image."),
		Entry("if it is protected: that it cannot be deleted", annotated(v1alpha1.AnnotationProtected, "until May"),
			"This object is protected and cannot be deleted."),
		Entry("if it is protected, and its policy is Retain", func(image *v1alpha1.CustomImage) {
			annotated(v1alpha1.AnnotationProtected, "true")(image)
			retained(image)
		}, "This object is protected and cannot be deleted."),
		Entry("if its protection is false", annotated(v1alpha1.AnnotationProtected, "false"),
			"Deleting this object deletes the image."),
	)

	It("says at once that it is protected, and that it is not any more", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.change(w.id, annotated(v1alpha1.AnnotationProtected, "until May"))
		w.attempt(w.id)
		Expect(condition(w.get(w.id), "Ready").Message).To(HaveSuffix(" This object is protected and cannot be deleted."))
		calls := len(w.sim.Calls())
		w.attempt(w.id)
		Expect(w.sim.Calls()).To(HaveLen(calls))
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Annotations = nil })
		w.attempt(w.id)
		Expect(condition(w.get(w.id), "Ready").Message).To(HaveSuffix(" Deleting this object deletes the image."))
	})

	It("never has its image deleted", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		for range 10 {
			w.attemptWhenDue(w.id)
		}
		w.change(w.id, func(image *v1alpha1.CustomImage) {
			image.Spec.Force = ptr.To(true)
			image.Annotations = map[string]string{v1alpha1.AnnotationRetryAt: "now", v1alpha1.AnnotationRelease: w.id}
		})
		w.attemptWhenDue(w.id)
		w.restart()
		w.attemptWhenDue(w.id)
		w.sim.DeleteImage(w.id)
		w.attemptWhenDue(w.id)
		Expect(w.calls("DeleteImage", w.id)).To(BeZero())
		Expect(w.calls("DescribeImages", w.id)).To(BeNumerically(">", 10))
	})

	It("says at once that there is no such image, and finds the image when it appears", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.create(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("NotFound"))
		Expect(condition(w.get(w.id), "Ready").Reason).To(Equal("InvalidImageIdNotFound"))
		w.putImage(ecssim.Image{})
		w.attemptWhenDue(w.id)
		Expect(trueObstacles(w.get(w.id))).To(BeEmpty())
		Expect(condition(w.get(w.id), "NotFound").Reason).To(Equal("Cleared"))
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(w.get(w.id).Status.LastError).To(BeNil())
	})

	It("does not find an image that another account shares", func(ctx SpecContext) {
		w := newWorld(ctx)
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.Accounts = []ecssim.Account{{AccountID: "1098"}}
		})).To(Succeed())
		w.putImage(ecssim.Image{AccountID: "1098", SharedWith: []string{"1234567890123456"}})
		w.create(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("NotFound"))
	})

	It("is checked again although the clock moves during an attempt, or was set back", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		due := w.clock.Now().Add(w.attempt(w.id).RequeueAfter)
		w.config.Clock = &tickingClock{FakeClock: w.clock}
		w.restart()
		w.clock.SetTime(due.Add(-15 * time.Millisecond)) // the timer came early
		for range 3 {
			Expect(w.attempt(w.id).RequeueAfter).NotTo(BeZero())
		}
		w.clock.SetTime(due.AddDate(0, 0, -30))
		result := w.attempt(w.id)
		Expect(result.RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", 6*time.Hour)))
	})

	It("is checked again within the resync interval, also after a restart, and not before half of it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.clock.Step(2 * time.Hour)
		w.restart()
		result := w.attempt(w.id)
		Expect(result.RequeueAfter).To(And(BeNumerically(">", time.Hour), BeNumerically("<=", 4*time.Hour)))
		Expect(w.calls("DescribeImages", w.id)).To(Equal(1))
		w.clock.Step(result.RequeueAfter)
		w.attempt(w.id)
		Expect(w.calls("DescribeImages", w.id)).To(Equal(2))
	})

	It("gets its finalizer back when a user removes it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = nil })
		w.attempt(w.id)
		Expect(w.get(w.id).Finalizers).To(ConsistOf(v1alpha1.Finalizer))
	})

	It("keeps the finalizer that another client adds at the same moment", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.createUnseen(w.id)
		before := w.get(w.id)
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{"example.com/backup"} })
		w.attemptFrom(before)
		w.attempt(w.id)
		Expect(w.get(w.id).Finalizers).To(ConsistOf("example.com/backup", v1alpha1.Finalizer))
	})

	It("is Denied when ECS refuses the key, and says where the key came from", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].ID = "another-id" })).To(Succeed())
		w.create(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Denied"))
		Expect(condition(w.get(w.id), "Stalled").Reason).To(Equal("InvalidAccessKeyIdNotFound"))
		Expect(condition(w.get(w.id), "Stalled").Message).To(ContainSubstring("environment"))
	})
})

// tickingClock advances by 10 ms whenever it is read.
type tickingClock struct{ *clocktesting.FakeClock }

func (c *tickingClock) Now() time.Time {
	c.Step(10 * time.Millisecond)
	return c.FakeClock.Now()
}
