package controller

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	account      = "1234567890123456" // of the operator's own key
	otherAccount = "9876543210987654"
)

// inTwoAccounts adds a second account, and a Secret with its key.
func (w *world) inTwoAccounts(images ...ecssim.Image) {
	GinkgoHelper()
	Expect(w.sim.Configure(func(s *ecssim.Scenario) {
		s.Accounts = []ecssim.Account{{AccountID: otherAccount, AccessKeys: []ecssim.AccessKey{{ID: "other-id", Secret: "other-secret"}}}}
	})).To(Succeed())
	for _, image := range images {
		image.RegionID = region
		Expect(w.sim.PutImage(image)).To(Succeed())
	}
	w.mayReadSecrets()
	w.putSecret("other", map[string]string{"access-key-id": "other-id", "access-key-secret": "other-secret"})
	w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
}

var _ = Describe("The account pin", func() {
	It("asks nothing of ECS with a key of another account than the image was seen in", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		Expect(w.get(id).Status.Image.OwnerID).To(Equal(account))
		w.change(id, withSecret("other"))
		before := len(w.sim.Calls())
		w.delete(id)
		w.expectStalled(id, "AccountMismatch", account, otherAccount)
		for _, call := range w.sim.Calls()[before:] {
			Expect(call.Action).To(Equal("GetCallerIdentity"))
		}

		w.change(id, withSecret("own"))
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("holds for a live object too, and the status keeps the account that it was seen in", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.change(id, withSecret("other"))
		w.attempt(id)
		w.expectStalled(id, "AccountMismatch")
		w.change(id, withSecret("missing"))
		w.attempt(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("Denied"))
		w.change(id, withSecret("other"))
		w.attempt(id)
		w.expectStalled(id, "AccountMismatch")
		Expect(w.get(id).Status.Image.OwnerID).To(Equal(account))
		Expect(trueObstacles(w.get(id))).To(BeEmpty(), "that it was not found in the wrong account means nothing")
	})

	It("is not lost when the image is not found for a while", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.sim.DeleteImage(id)
		w.change(id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		w.attempt(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("NotFound"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, AccountID: otherAccount})).To(Succeed())
		w.change(id, withSecret("other"))
		w.delete(id)
		w.expectStalled(id, "AccountMismatch")
		Expect(w.deletions()).To(BeZero())
	})

	It("takes an object whose status names no account for one that never saw its image", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.change(id, withSecret("other"))
		image := w.get(id)
		image.Status.Image.OwnerID = ""
		Expect(admin.Status().Update(context.Background(), image)).To(Succeed())
		w.events()
		w.delete(id)
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")), "not Deleted: it is still there")
	})

	It("does not announce an image as deleted that was not found before the key was refused", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.sim.DeleteImage(id)
		for _, secret := range []string{"own", "missing"} {
			w.clock.Step(time.Minute)
			w.change(id, withSecret(secret))
			w.attempt(id)
		}
		w.change(id, withSecret("own"))
		w.events()
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")))
	})

	It("asks once for each key whose it is, however many objects there are", func() {
		var images []ecssim.Image
		for n := range 20 {
			images = append(images, ecssim.Image{ImageID: fmt.Sprintf("m-bp%02d", n)})
		}
		w := newWorld(images...)
		w.inTwoAccounts(ecssim.Image{ImageID: "m-other", AccountID: otherAccount})
		for _, image := range images {
			w.create(image.ImageID)
			w.delete(image.ImageID)
		}
		w.create("m-other", withSecret("other"))
		Expect(w.get("m-other").Status.Image.OwnerID).To(Equal(otherAccount))
		Expect(w.calls("GetCallerIdentity", "")).To(Equal(2))
	})

	It("deletes nothing as long as it cannot be told whose the key is", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.restart()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "GetCallerIdentity", Code: "ServiceUnavailable", HTTPStatus: 503, Times: 1})).To(Succeed())
		w.deleteUnseen(id)
		_, err := w.reconcile(id)
		Expect(err).To(MatchError(ContainSubstring("ServiceUnavailable")))
		Expect(w.deletions()).To(BeZero())
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
	})
})
