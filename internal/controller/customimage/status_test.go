package customimage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("The status", func() {
	It("is written once, with one event, for the same failure a thousand times", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.events()
		w.delete(w.id)
		first := w.get(w.id)
		w.calm()
		for range 1000 {
			w.clock.Step(10 * time.Minute)
			w.attempt(w.id)
		}
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1001))
		Expect(w.get(w.id).ResourceVersion).To(Equal(first.ResourceVersion))
		Expect(w.events()).To(HaveLen(1))
	})

	It("is written once for a wrong secret, although ECS explains it in other words each time", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Secret = "another-secret" })).To(Succeed())
		w.create(w.id)
		first := w.get(w.id)
		Expect(condition(first, "Ready").Reason).To(Equal("SignatureDoesNotMatch"))
		for range 20 {
			w.attemptWhenDue(w.id)
		}
		Expect(w.get(w.id).ResourceVersion).To(Equal(first.ResourceVersion))
	})

	It("is not written again for a live image while nothing changes", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		first := w.get(w.id)
		for range 20 {
			w.attemptWhenDue(w.id)
		}
		Expect(w.get(w.id).ResourceVersion).To(Equal(first.ResourceVersion))
	})

	It("has no request ID in any condition, and one in lastError", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		status := w.get(w.id).Status
		Expect(status.LastError.RequestID).NotTo(BeEmpty())
		for _, c := range status.Conditions {
			Expect(c.Message).NotTo(ContainSubstring(status.LastError.RequestID))
		}
	})

	DescribeTable("says Retrying from the second failure of DeleteImage on, and a broken answer is no deletion",
		func(ctx SpecContext, fault ecssim.Fault) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			fault.Action, fault.Times = "DeleteImage", -1
			Expect(w.sim.AddFault(fault)).To(Succeed())
			w.deleteUnseen(w.id)
			Expect(w.turn(w.id)).To(BeNumerically("<=", time.Second))
			Expect(condition(w.get(w.id), "Ready").Reason).To(Equal("Available"))
			for range 3 {
				w.turn(w.id)
			}
			image := w.get(w.id)
			Expect(condition(image, "Ready").Reason).To(Equal("Retrying"))
			Expect(condition(image, "Reconciling").Status).To(Equal(metav1.ConditionTrue))
			Expect(trueObstacles(image)).To(BeEmpty())
			Expect(w.exists(w.id)).To(BeTrue())
			w.sim.ClearFaults()
			w.clock.Step(time.Minute) // while there is no answer, ECS is not called at every attempt
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
			Expect(w.exists(w.id)).To(BeFalse())
		},
		hiccups,
	)

	It("says nothing of a short throttle, and Throttled once an object has waited for a minute", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		setQuota := func(limit int, window time.Duration) {
			Expect(w.sim.Configure(func(s *ecssim.Scenario) {
				s.Quotas = map[string]ecssim.Quota{"DeleteImage": {Limit: limit, Window: ecssim.Duration(window)}}
			})).To(Succeed())
		}
		setQuota(0, 20*time.Second)
		w.deleteUnseen(w.id)
		before := w.get(w.id).ResourceVersion
		for waited := time.Duration(0); waited < 30*time.Second; {
			result := w.attempt(w.id)
			Expect(result.RequeueAfter).To(BeNumerically("<=", 25*time.Second))
			Expect(w.get(w.id).ResourceVersion).To(Equal(before))
			again := w.attempt(w.id) // the gate is closed: this call is not sent
			Expect(again.RequeueAfter).To(BeNumerically("<=", result.RequeueAfter))
			w.clock.Step(result.RequeueAfter)
			waited += result.RequeueAfter
		}
		Expect(w.calls("DeleteImage", w.id)).To(BeNumerically("<=", 3))
		setQuota(0, time.Hour)
		w.attempt(w.id)
		Expect(condition(w.get(w.id), "Ready").Reason).To(Equal("Throttled"))
		Expect(condition(w.get(w.id), "Reconciling").Reason).To(Equal("Throttled"))

		setQuota(1, time.Hour)
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("can hold an image with fields of any length", func(ctx SpecContext) {
		w := newWorld(ctx)
		var snapshots []string
		for n := range 99 {
			snapshots = append(snapshots, fmt.Sprint("s-", n), fmt.Sprint("s-", long, n))
		}
		w.answerDescribe(http.StatusOK, map[string]any{"TotalCount": 1, "Images": map[string]any{"Image": []any{map[string]any{
			"ImageId": w.id, "ImageName": long, "ImageFamily": long, "Status": long, "Usage": long, "Size": -1,
			"DiskDeviceMappings": map[string]any{"DiskDeviceMapping": disks(snapshots)},
		}}}})
		w.create(w.id)
		shown := w.get(w.id).Status.Image
		Expect(shown.Name).To(HavePrefix("ää"))
		Expect(shown.SnapshotIDs).To(HaveLen(64))
		Expect(shown.SizeGiB).To(HaveValue(BeZero()))
		Expect(w.events()).To(HaveEach(fitsAnEvent()))
	})

	It("can hold an account ID of any length", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.answerDescribe(http.StatusOK, map[string]any{"TotalCount": 1, "Images": map[string]any{"Image": []any{map[string]any{
			"ImageId": w.id, "ImageOwnerId": long,
		}}}})
		w.create(w.id)
		w.expectStalled(w.id, "AccountMismatch")
		Expect(w.events()).To(ConsistOf(fitsAnEvent()))
	})

	DescribeTable("can hold an error of any length",
		func(ctx SpecContext, code, reason string) {
			w := newWorld(ctx)
			w.answerDescribe(http.StatusForbidden, map[string]any{"Code": code, "Message": long, "RequestId": long})
			w.createUnseen(w.id)
			_, _ = w.turn(w.id), w.turn(w.id)
			Expect(condition(w.get(w.id), "Ready").Reason).To(Equal(reason))
			Expect(w.events()).To(ConsistOf(fitsAnEvent()))
		},
		Entry("with a code that begins with a digit", "1.ImageIsCreating", "Retrying"),
		Entry("with a long code", "Forbidden."+long[:120], "Forbidden"),
		Entry("with a code without letters", "…/…", "Retrying"),
	)

	It("can hold instances with IDs of any length", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.ecs.answer = func(rw http.ResponseWriter, action string, _ *http.Request) bool {
			if action == "DescribeInstances" {
				_, _ = fmt.Fprintf(rw, `{"RequestId":"x","Instances":{"Instance":[{"InstanceId":"%s"}]}}`, strings.Repeat("i", 40000))
			}
			return action == "DescribeInstances"
		}
		w.delete(w.id)
		Expect(readyReason(w.get(w.id))).To(Equal("ImageUsingByInstance"))
	})

	It("can hold annotations and finalizers of any length", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, annotated(v1alpha1.AnnotationRelease, long), func(image *v1alpha1.CustomImage) {
			for n := range 20 {
				image.Finalizers = append(image.Finalizers, fmt.Sprintf("example.com/%s%02d", strings.Repeat("a", 60), n))
			}
		})
		w.delete(w.id)
		Expect(condition(w.get(w.id), "Ready").Message).To(HavePrefix("Waiting for other finalizers"))
		w.change(w.id, withFinalizer)
		w.attempt(w.id)
		w.expectStalled(w.id, "InvalidRelease")
		Expect(w.events()).To(HaveEach(fitsAnEvent()))
	})
})

// hiccups are the failures of one call that end without help.
var hiccups = []TableEntry{
	Entry("a page of HTML", ecssim.Fault{Kind: ecssim.FaultGarbage}),
	Entry("an empty answer", ecssim.Fault{Kind: ecssim.FaultEmpty}),
	Entry("a redirect", ecssim.Fault{Kind: ecssim.FaultEmpty, HTTPStatus: 302}),
	Entry("an answer without a request ID", ecssim.Fault{Kind: ecssim.FaultNoRequestID}),
	Entry("an internal error", ecssim.Fault{Kind: ecssim.FaultBefore, Code: "InternalError", HTTPStatus: 500}),
	Entry("a conflict of operations", ecssim.Fault{Kind: ecssim.FaultBefore, Code: "OperationConflict", HTTPStatus: 409}),
	Entry("a code that is not documented", ecssim.Fault{Kind: ecssim.FaultBefore, Code: "SomethingNew.Entirely", HTTPStatus: 403}),
	Entry("no answer in time", ecssim.Fault{Kind: ecssim.FaultHang}),
}

// long is longer than any field of the status and than the note of an event.
var long = strings.Repeat("ä", 5000)

// fitsAnEvent matches an event that the API server accepts.
func fitsAnEvent() any {
	return WithTransform(func(event string) int {
		_, note, _ := strings.Cut(event, " Image ")
		return len("Image " + note)
	}, BeNumerically("<=", maxNote))
}

// answerDescribe has DescribeImages answered with the given status and body.
func (w *world) answerDescribe(status int, body map[string]any) {
	if body["RequestId"] == nil {
		body["RequestId"] = "a-request"
	}
	w.ecs.answer = func(rw http.ResponseWriter, action string, _ *http.Request) bool {
		if action != "DescribeImages" {
			return false
		}
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(body)
		return true
	}
}

func disks(snapshots []string) (disks []any) {
	for _, id := range snapshots {
		disks = append(disks, map[string]any{"SnapshotId": id})
	}
	return disks
}
