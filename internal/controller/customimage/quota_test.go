package customimage

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("A deletion that has to wait for the quota", func() {
	// limited is a world with so many deleted objects, whose quota the first attempt has told.
	limited := func(ctx SpecContext, limit int, window time.Duration, count int) (w *world, ids []string) {
		GinkgoHelper()
		w = newWorld(ctx)
		w.clock.SetTime(w.clock.Now().Truncate(window).Add(window)) // the beginning of a window
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.Quotas = map[string]ecssim.Quota{"DeleteImage": {Limit: limit, Window: ecssim.Duration(window)}}
		})).To(Succeed())
		for n := range count {
			id := fmt.Sprintf("%sn%d", w.id, n)
			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			w.create(id)
			w.deleteUnseen(id)
			ids = append(ids, id)
		}
		return w, ids
	}

	throttled := func(w *world) (count int) {
		for _, call := range w.sim.Calls() {
			if call.Code == "Throttling" {
				count++
			}
		}
		return count
	}

	It("reads nothing, calls nothing, and comes back once, at its turn", func(ctx SpecContext) {
		w, ids := limited(ctx, 1, 10*time.Second, 2)
		w.attempt(ids[0])
		Expect(w.gone(ids[0])).To(BeTrue())

		reads, calls := 0, len(w.sim.Calls())
		count := func(
			ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption,
		) error {
			reads++
			return c.Get(ctx, key, into, options...)
		}
		w.live.Get, w.secrets.Get = count, count
		before := w.get(ids[1])
		result := w.attempt(ids[1])
		Expect(result.RequeueAfter).To(Equal(10 * time.Second))
		Expect(reads).To(BeZero())
		Expect(w.sim.Calls()).To(HaveLen(calls))
		Expect(w.get(ids[1]).ResourceVersion).To(Equal(before.ResourceVersion), "less than a minute is not worth a word")

		w.clock.Step(result.RequeueAfter)
		w.attempt(ids[1])
		Expect(w.gone(ids[1])).To(BeTrue())
		Expect(throttled(w)).To(BeZero())
	})

	It("says for how long if that is more than a minute, and says it once", func(ctx SpecContext) {
		w, ids := limited(ctx, 1, 10*time.Minute, 3)
		w.attempt(ids[0])
		w.attempt(ids[1])
		message := condition(w.get(ids[1]), "Ready").Message
		Expect(condition(w.get(ids[1]), "Ready").Reason).To(Equal("Throttled"))
		Expect(message).To(ContainSubstring("The operator retries when it is this object's turn, within 15 minutes of its first attempt."))
		written := w.get(ids[1]).ResourceVersion
		for range 5 {
			w.clock.Step(time.Minute)
			w.attempt(ids[1])
		}
		Expect(w.get(ids[1]).ResourceVersion).To(Equal(written))
		w.clock.Step(5 * time.Minute)
		w.attempt(ids[1])
		Expect(w.gone(ids[1])).To(BeTrue())
		result := w.attempt(ids[2])
		Expect(result.RequeueAfter).To(Equal(10 * time.Minute))
		w.clock.Step(result.RequeueAfter)
		w.attempt(ids[2])
		Expect(w.gone(ids[2])).To(BeTrue())
		Expect(throttled(w)).To(BeZero())
	})

	It("does not wait for the deletions of another account", func(ctx SpecContext) {
		w, ids := limited(ctx, 1, 10*time.Minute, 2)
		w.inTwoAccounts()
		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region, AccountID: thatAccount})).To(Succeed())
		w.create(w.id, withSecret("other"))
		w.deleteUnseen(w.id)
		w.attempt(ids[0])
		w.attempt(ids[1])
		Expect(w.gone(ids[1])).To(BeFalse())
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
	})

	It("is released at once if the user decides to keep the image", func(ctx SpecContext) {
		w, ids := limited(ctx, 1, 10*time.Minute, 2)
		w.attempt(ids[0])
		w.attempt(ids[1])
		w.change(ids[1], func(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
		w.attempt(ids[1])
		Expect(w.gone(ids[1])).To(BeTrue())
		Expect(w.calls("DeleteImage", ids[1])).To(BeZero())
	})
})
