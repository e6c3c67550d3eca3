package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("A live CustomImage", func() {
	It("shows the image as ECS describes it", func() {
		created := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
		w := newWorld(ecssim.Image{ImageID: id, Name: "web-1", Family: "web", SizeGiB: 40, CreationTime: created,
			UsedBy: []string{"i-bp1a"}, SnapshotIDs: []string{"s-bp1a", "s-bp1b"}})
		w.create(id)
		image := w.get(id)
		Expect(image.Finalizers).To(ConsistOf(v1alpha1.Finalizer))
		Expect(condition(image, "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(condition(image, "Ready").Reason).To(Equal("Available"))
		Expect(image.Status.Conditions).To(HaveLen(1))
		Expect(image.Status.LastSyncTime.Time).To(BeTemporally("==", w.clock.Now()))
		shown := image.Status.Image
		Expect(shown.CreationTime.Time).To(BeTemporally("==", created))
		shown.CreationTime = nil
		Expect(*shown).To(Equal(v1alpha1.ImageStatus{Name: "web-1", Family: "web", SizeGiB: ptr.To[int32](40),
			State: "Available", Usage: "instance", OwnerID: "1234567890123456",
			SnapshotIDs: []string{"s-bp1a", "s-bp1b"}}))
	})

	It("has no DeleteImage made for it, whatever happens to it", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		for range 10 {
			w.attemptWhenDue(id)
		}
		w.change(id, func(image *v1alpha1.CustomImage) {
			image.Spec.Force = ptr.To(true)
			image.Annotations = map[string]string{v1alpha1.AnnotationRetryAt: "now", v1alpha1.AnnotationRelease: id}
		})
		w.attemptWhenDue(id)
		w.restart()
		w.attemptWhenDue(id)
		w.sim.DeleteImage(id)
		w.attemptWhenDue(id)
		Expect(w.calls("DeleteImage", id)).To(BeZero())
		Expect(w.calls("DescribeImages", id)).To(BeNumerically(">", 10))
	})

	It("says at once that there is no such image, and finds it when it comes", func() {
		w := newWorld()
		w.create(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("NotFound"))
		Expect(condition(w.get(id), "Ready").Reason).To(Equal("InvalidImageIdNotFound"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
		w.attemptWhenDue(id)
		Expect(trueObstacles(w.get(id))).To(BeEmpty())
		Expect(condition(w.get(id), "NotFound").Reason).To(Equal("Cleared"))
		Expect(condition(w.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(w.get(id).Status.LastError).To(BeNil())
	})

	It("does not take an image for its own that another account shares", func() {
		w := newWorld()
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.Accounts = []ecssim.Account{{AccountID: "1098"}}
		})).To(Succeed())
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, AccountID: "1098",
			SharedWith: []string{"1234567890123456"}})).To(Succeed())
		w.create(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("NotFound"))
	})

	It("is asked about again although the clock moves while it is looked at, or was set back", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		due := w.attempts.get(w.get(id)).next
		w.Clock = &tickingClock{FakeClock: w.clock}
		w.clock.SetTime(due.Add(-15 * time.Millisecond)) // the timer came early
		for range 3 {
			result := w.attempt(id)
			Expect(result.RequeueAfter).NotTo(BeZero())
		}
		w.clock.SetTime(due.AddDate(0, 0, -30))
		result := w.attempt(id)
		Expect(result.RequeueAfter).To(And(BeNumerically(">", 0), BeNumerically("<=", 6*time.Hour)))
	})

	It("is asked about again within the resync interval, also after a restart, and not before half of it", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.clock.Step(2 * time.Hour)
		w.restart()
		result := w.attempt(id)
		Expect(result.RequeueAfter).To(And(BeNumerically(">", time.Hour), BeNumerically("<=", 4*time.Hour)))
		Expect(w.calls("DescribeImages", id)).To(Equal(1))
		w.clock.Step(result.RequeueAfter)
		w.attempt(id)
		Expect(w.calls("DescribeImages", id)).To(Equal(2))
	})

	It("gets its finalizer back when somebody takes it off", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.change(id, func(image *v1alpha1.CustomImage) { image.Finalizers = nil })
		w.attempt(id)
		Expect(w.get(id).Finalizers).To(ConsistOf(v1alpha1.Finalizer))
	})

	It("keeps the finalizer that another adds at the same moment", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.createUnseen(id)
		before := w.get(id)
		w.change(id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{"example.com/backup"} })
		w.attemptFrom(before)
		w.attempt(id)
		Expect(w.get(id).Finalizers).To(ConsistOf("example.com/backup", v1alpha1.Finalizer))
	})

	It("is denied in words when the key is refused", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].ID = "another-id" })).To(Succeed())
		w.create(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("Denied"))
		Expect(condition(w.get(id), "Stalled").Reason).To(Equal("InvalidAccessKeyIdNotFound"))
		Expect(condition(w.get(id), "Stalled").Message).To(ContainSubstring("environment"))
	})
})

var _ = Describe("The status", func() {
	It("is written once, with one event, for the same failure a thousand times", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.events()
		w.delete(id)
		first := w.get(id)
		for range 1000 {
			w.clock.Step(10 * time.Minute)
			w.attempt(id)
		}
		Expect(w.calls("DeleteImage", id)).To(Equal(1001))
		Expect(w.get(id).ResourceVersion).To(Equal(first.ResourceVersion))
		Expect(w.events()).To(HaveLen(1))
	})

	It("is written once for a wrong secret, of which ECS tells in other words each time", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Secret = "another-secret" })).To(Succeed())
		w.create(id)
		first := w.get(id)
		Expect(condition(first, "Ready").Reason).To(Equal("SignatureDoesNotMatch"))
		for range 20 {
			w.attemptWhenDue(id)
		}
		Expect(w.get(id).ResourceVersion).To(Equal(first.ResourceVersion))
	})

	It("is not written again for a live image of which nothing is new", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		first := w.get(id)
		for range 20 {
			w.attemptWhenDue(id)
		}
		Expect(w.get(id).ResourceVersion).To(Equal(first.ResourceVersion))
	})

	It("has no request ID in any condition, and one in lastError", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		status := w.get(id).Status
		Expect(status.LastError.RequestID).NotTo(BeEmpty())
		for _, c := range status.Conditions {
			Expect(c.Message).NotTo(ContainSubstring(status.LastError.RequestID))
		}
	})

	It("says Retrying from the second failure on, and never takes a broken answer for a deletion", func() {
		for _, fault := range []ecssim.Fault{
			{Kind: ecssim.FaultGarbage},
			{Kind: ecssim.FaultEmpty},
			{Kind: ecssim.FaultEmpty, HTTPStatus: 302},
			{Kind: ecssim.FaultNoRequestID},
			{Kind: ecssim.FaultBefore, Code: "InternalError", HTTPStatus: 500},
			{Kind: ecssim.FaultBefore, Code: "OperationConflict", HTTPStatus: 409},
			{Kind: ecssim.FaultBefore, Code: "SomethingNew.Entirely", HTTPStatus: 403},
			{Kind: ecssim.FaultHang},
		} {
			By(fmt.Sprintf("%+v", fault))
			w := newWorld(ecssim.Image{ImageID: id})
			w.create(id)
			fault.Action, fault.Times = "DeleteImage", -1
			Expect(w.sim.AddFault(fault)).To(Succeed())
			w.deleteUnseen(id)
			_, err := w.reconcile(id)
			Expect(err).To(HaveOccurred())
			Expect(condition(w.get(id), "Ready").Reason).To(Equal("Available"))
			w.failures.When(ctrl.Request{NamespacedName: w.key(id)}) // what the work queue does with an error
			for range 3 {
				_, err = w.reconcile(id)
				Expect(err).To(HaveOccurred())
			}
			image := w.get(id)
			Expect(condition(image, "Ready").Reason).To(Equal("Retrying"))
			Expect(meta.IsStatusConditionTrue(image.Status.Conditions, "Reconciling")).To(BeTrue())
			Expect(trueObstacles(image)).To(BeEmpty())
			Expect(w.exists(id)).To(BeTrue())
			w.sim.ClearFaults()
			w.attempt(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(BeFalse())
		}
	})

	It("keeps the object while it cannot be confirmed that the image is gone", func() {
		for _, fault := range []ecssim.Fault{
			{Kind: ecssim.FaultGarbage}, {Kind: ecssim.FaultEmpty}, {Kind: ecssim.FaultNoRequestID}, {Kind: ecssim.FaultHang},
			{Kind: ecssim.FaultBefore, Code: "InternalError", HTTPStatus: 500},
			{Kind: ecssim.FaultBefore, Code: "Forbidden.RAM", HTTPStatus: 403},
			{Kind: ecssim.FaultBefore, Code: "Throttling", HTTPStatus: 400},
		} {
			By(fmt.Sprintf("%+v", fault))
			w := newWorld(ecssim.Image{ImageID: id})
			w.create(id)
			w.events()
			fault.Action, fault.Times = "DescribeImages", -1
			Expect(w.sim.AddFault(fault)).To(Succeed())
			w.deleteUnseen(id)
			_, _ = w.reconcile(id)
			Expect(w.exists(id)).To(BeFalse(), "DeleteImage took effect")
			Expect(w.gone(id)).To(BeFalse())
			Expect(w.get(id).Finalizers).To(ContainElement(v1alpha1.Finalizer))
			Expect(w.events()).NotTo(ContainElement(HavePrefix("Normal Deleted ")))
			w.sim.ClearFaults()
			w.clock.Step(10 * time.Minute)
			w.attempt(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.events()).To(ContainElement(HavePrefix("Normal Deleted ")))
		}
	})

	It("survives a reply that is lost after the deletion took effect", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.events()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Kind: ecssim.FaultAfter})).To(Succeed())
		w.deleteUnseen(id)
		_, err := w.reconcile(id)
		Expect(err).To(HaveOccurred())
		Expect(w.gone(id)).To(BeFalse())
		w.restart()
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
	})

	It("says nothing of a short throttle, and Throttled of one that keeps an object waiting for a minute", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		setQuota := func(limit int, window time.Duration) {
			Expect(w.sim.Configure(func(s *ecssim.Scenario) {
				s.Quotas = map[string]ecssim.Quota{"DeleteImage": {Limit: limit, Window: ecssim.Duration(window)}}
			})).To(Succeed())
		}
		setQuota(0, 20*time.Second)
		w.deleteUnseen(id)
		before := w.get(id).ResourceVersion
		for waited := time.Duration(0); waited < 30*time.Second; {
			result := w.attempt(id)
			Expect(result.RequeueAfter).To(BeNumerically("<=", 25*time.Second))
			Expect(w.get(id).ResourceVersion).To(Equal(before))
			again, err := w.reconcile(id) // the gate is closed: this call is not sent
			Expect(err).NotTo(HaveOccurred())
			Expect(again.RequeueAfter).To(BeNumerically("<=", result.RequeueAfter))
			w.clock.Step(result.RequeueAfter)
			waited += result.RequeueAfter
		}
		Expect(w.calls("DeleteImage", id)).To(BeNumerically("<=", 3))
		setQuota(0, time.Hour)
		w.attempt(id)
		Expect(condition(w.get(id), "Ready").Reason).To(Equal("Throttled"))
		Expect(condition(w.get(id), "Reconciling").Reason).To(Equal("Throttled"))

		setQuota(1, time.Hour)
		w.attemptWhenDue(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("can hold whatever ECS sends", func() {
		long := strings.Repeat("ä", 5000)
		found := &ecs.Image{Name: long, Family: long, Status: long, Usage: long, OwnerID: long, SizeGiB: -1}
		for n := range 99 {
			found.SnapshotIDs = append(found.SnapshotIDs, fmt.Sprint("s-", n), fmt.Sprint("s-", long, n))
		}
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		image := w.get(id)
		a := &attempt{CustomImageReconciler: w.CustomImageReconciler, image: image}
		for _, o := range []*outcome{a.stillThere(found), othersFirst([]string{long, long, long, long}),
			invalidRelease(image, long), cloud{account: "1"}.mismatch(long)} {
			o.apply(image, metav1.NewTime(w.clock.Now()))
			Expect(admin.Status().Update(context.Background(), image)).To(Succeed())
		}
		for _, code := range []string{"1.ImageIsCreating", "Forbidden." + long[:120], "…/…"} {
			o, err := a.failed(&ecs.Error{Code: code, Message: long, RequestID: long})
			Expect(err).NotTo(HaveOccurred())
			o.found = found
			o.apply(image, metav1.NewTime(w.clock.Now()))
			Expect(admin.Status().Update(context.Background(), image)).To(Succeed())
		}
	})
})

// tickingClock goes on by 10 ms whenever somebody looks at it.
type tickingClock struct{ *clocktesting.FakeClock }

func (c *tickingClock) Now() time.Time {
	c.Step(10 * time.Millisecond)
	return c.FakeClock.Now()
}

var _ = Describe("A restart", func() {
	It("makes at most a handful of calls for two hundred stuck objects", func() {
		w := newWorld()
		var ids []string
		for n := range 200 {
			ids = append(ids, fmt.Sprintf("m-bp%d", n))
			Expect(w.sim.PutImage(ecssim.Image{ImageID: ids[n], RegionID: region, UsedBy: []string{"i-bp1a"}})).To(Succeed())
			w.create(ids[n])
			w.delete(ids[n])
		}
		w.clock.Step(3 * time.Hour)
		w.restart()
		before := len(w.sim.Calls())
		for range 5 { // seconds
			for _, id := range ids {
				w.attempt(id)
			}
			w.clock.Step(time.Second)
		}
		Expect(len(w.sim.Calls()) - before).To(BeNumerically("<=", 10))
	})
})

var _ = Describe("Events", func() {
	It("are cut to what the API server takes", func() {
		w := newWorld()
		w.createUnseen(id)
		a := &attempt{CustomImageReconciler: w.CustomImageReconciler, image: w.get(id)}
		a.announce(outcome{reason: "Available", message: strings.Repeat("ä", 5000)})
		Expect(len(w.events()[0])).To(BeNumerically("<=", maxNote+len("Normal Available ")))
	})
})
