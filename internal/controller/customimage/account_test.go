package customimage

import (
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// inTwoAccounts adds a second account, and Secrets with its key and with the operator's own one.
func (w *world) inTwoAccounts(images ...ecssim.Image) {
	GinkgoHelper()
	Expect(w.sim.Configure(func(s *ecssim.Scenario) {
		s.Accounts = []ecssim.Account{{AccountID: thatAccount, AccessKeys: []ecssim.AccessKey{{ID: "other-id", Secret: "other-secret"}}}}
	})).To(Succeed())
	for _, image := range images {
		image.RegionID = region
		Expect(w.sim.PutImage(image)).To(Succeed())
	}
	w.mayReadSecrets()
	w.putSecret("other", map[string]string{"access-key-id": "other-id", "access-key-secret": "other-secret"})
	w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
}

// expectIdentityCallsOnly checks that since the first so many calls, ECS was called for nothing but the account of a
// key.
func (w *world) expectIdentityCallsOnly(since int) {
	GinkgoHelper()
	calls := w.sim.Calls()[since:]
	Expect(calls).NotTo(BeEmpty())
	for _, call := range calls {
		Expect(call.Action).To(Equal("GetCallerIdentity"))
	}
}

func pinnedTo(account string) func(*v1alpha1.CustomImage) {
	return func(image *v1alpha1.CustomImage) { image.Spec.AccountID = account }
}

var _ = Describe("The account pin", func() {
	It("calls ECS for nothing but the account of a key that is not of the account of the image", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.inTwoAccounts()
		w.create(w.id)
		Expect(w.get(w.id).Status.Image.OwnerID).To(Equal(thisAccount))
		w.change(w.id, withSecret("other"))
		before := len(w.sim.Calls())
		w.delete(w.id)
		w.expectStalled(w.id, "AccountMismatch", thisAccount, thatAccount)
		w.expectIdentityCallsOnly(before)

		w.change(w.id, withSecret("own"))
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("applies to a live object too, and the status keeps the account in which the image was seen", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.inTwoAccounts()
		w.create(w.id)
		w.change(w.id, withSecret("other"))
		w.attempt(w.id)
		w.expectStalled(w.id, "AccountMismatch")
		w.change(w.id, withSecret("missing"))
		w.attempt(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Denied"))
		w.change(w.id, withSecret("other"))
		w.attempt(w.id)
		w.expectStalled(w.id, "AccountMismatch")
		Expect(w.get(w.id).Status.Image.OwnerID).To(Equal(thisAccount))
		Expect(trueObstacles(w.get(w.id))).To(BeEmpty(), "what is not found in the wrong account means nothing")
	})

	It("is kept while the image is not found", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.inTwoAccounts()
		w.create(w.id)
		w.sim.DeleteImage(w.id)
		w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		w.attempt(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("NotFound"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region, AccountID: thatAccount})).To(Succeed())
		w.change(w.id, withSecret("other"))
		w.delete(w.id)
		w.expectStalled(w.id, "AccountMismatch")
		Expect(w.deletions()).To(BeZero())
	})

	It("takes an object whose status names no account for one that never saw its image", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.inTwoAccounts()
		w.create(w.id)
		w.change(w.id, withSecret("other"))
		image := w.get(w.id)
		image.Status.Image.OwnerID = ""
		Expect(admin.Status().Update(ctx, image)).To(Succeed())
		w.delete(w.id)
		w.events()
		w.clock.Step(decision.Agreement)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")), "not Deleted: the image exists")
	})

	It("does not announce an image as deleted that was not found before the key was refused", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.inTwoAccounts()
		w.create(w.id)
		w.sim.DeleteImage(w.id)
		for _, secret := range []string{"own", "missing"} {
			w.clock.Step(time.Minute)
			w.change(w.id, withSecret(secret))
			w.attempt(w.id)
		}
		w.change(w.id, withSecret("own"))
		w.events()
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")))
	})

	It("finds the account of each key once, however many objects there are", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.inTwoAccounts(ecssim.Image{ImageID: w.id, AccountID: thatAccount})
		for n := range 20 {
			id := fmt.Sprintf("%s%02d", w.id, n)
			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			w.create(id)
			w.delete(id)
			Expect(w.exists(id)).To(BeFalse())
		}
		w.create(w.id, withSecret("other"))
		Expect(w.get(w.id).Status.Image.OwnerID).To(Equal(thatAccount))
		Expect(w.calls("GetCallerIdentity", "")).To(Equal(2))
	})

	It("deletes nothing as long as the account of the key is unknown", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.config.Credentials = credentials.New(w.config.Credentials.Config)
		w.restart()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "GetCallerIdentity", Code: "ServiceUnavailable", HTTPStatus: 503, Times: 1})).To(Succeed())
		w.deleteUnseen(w.id)
		_, err := w.reconcile(w.id)
		Expect(err).To(MatchError(ContainSubstring("ServiceUnavailable")))
		Expect(w.deletions()).To(BeZero())
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
	})
})

var _ = Describe("spec.accountID", func() {
	It("has a live object call ECS with a key of that account only", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.inTwoAccounts(ecssim.Image{ImageID: w.id, AccountID: thatAccount})
		w.create(w.id, pinnedTo(thisAccount), withSecret("other"))
		w.expectStalled(w.id, "AccountMismatch", "spec.accountID is "+thisAccount, thatAccount)
		Expect(w.get(w.id).Status.Image).To(BeNil())
		w.expectIdentityCallsOnly(0)

		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region})).To(Succeed())
		w.change(w.id, withSecret("own"))
		w.attempt(w.id)
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		w.delete(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("has a deleted object that lost its status call ECS with a key of that account only", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.inTwoAccounts(ecssim.Image{ImageID: w.id, AccountID: thatAccount})
		w.createUnseen(w.id, withFinalizer, pinnedTo(thisAccount), withSecret("other"))
		w.delete(w.id)
		w.expectStalled(w.id, "AccountMismatch", "spec.accountID is "+thisAccount, thatAccount)
		w.clock.Step(time.Hour)
		w.attempt(w.id)
		w.expectStalled(w.id, "AccountMismatch")
		w.expectIdentityCallsOnly(0)
		Expect(w.exists(w.id)).To(BeTrue())

		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region})).To(Succeed())
		w.change(w.id, withSecret("own"))
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	DescribeTable("tells the owner of an image that was never seen, without a key",
		func(ctx SpecContext, account string, released bool) {
			older := newWorld(ctx, ecssim.Image{})
			older.create(older.id)
			younger := older.beside()
			younger.mayReadSecrets()
			younger.createUnseen(younger.id, withFinalizer, pinnedTo(account), withSecret("missing"))
			younger.events()
			younger.delete(younger.id)
			Expect(younger.gone(younger.id)).To(Equal(released))
			if released {
				Expect(younger.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring(older.namespace+"/"+older.id))))
			} else {
				younger.expectStalled(younger.id, "SecretNotFound")
			}
			Expect(younger.deletions()).To(BeZero())
		},
		Entry("if it names the account in which the owner saw it", thisAccount, true),
		Entry("not if it names another account", thatAccount, false),
		Entry("not if it names none", "", false),
	)
})
