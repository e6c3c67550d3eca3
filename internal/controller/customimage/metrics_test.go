package customimage

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("The metrics", func() {
	It("count the objects by the reason of their Ready condition", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		other, used := w.id+"other", w.id+"used"
		Expect(w.sim.PutImage(ecssim.Image{ImageID: other, RegionID: region})).To(Succeed())
		Expect(w.sim.PutImage(ecssim.Image{ImageID: used, RegionID: region, UsedBy: []string{"i-bp1a"}})).To(Succeed())
		w.create(other)
		w.create(used)
		w.delete(used)
		Expect(testutil.CollectAndCompare(
			Collector{Reader: client.NewNamespacedClient(admin, w.namespace)},
			strings.NewReader(`
				# HELP imagegc_customimages CustomImages by the reason of their Ready condition.
				# TYPE imagegc_customimages gauge
				imagegc_customimages{reason="Available"} 2
				imagegc_customimages{reason="ImageUsingByInstance"} 1
			`))).To(Succeed())
	})

	It("count how objects ended, and as deleted only images that existed", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		kept, missing := w.id+"kept", w.id+"missing"
		Expect(w.sim.PutImage(ecssim.Image{ImageID: kept, RegionID: region})).To(Succeed())
		w.create(kept, retained)
		w.create(missing)
		w.clock.Step(decision.Agreement)
		before := countReleases("Retained", "NotFound")
		for _, id := range []string{w.id, kept, missing} {
			w.delete(id)
			Expect(w.gone(id)).To(BeTrue())
		}
		Expect(countReleases("Retained", "NotFound")).To(Equal([]float64{before[0] + 1, before[1] + 1, before[2] + 1}))
	})

	It("count the objects that wait before ECS is called", func(ctx SpecContext) {
		w := newWorld(ctx)
		collector := Collector{Reader: client.NewNamespacedClient(admin, w.namespace), Waiting: w.reconciler.Waiting}
		c := claim{region: "region a", key: "key", quota: "quota a"}
		for n := range 7 {
			_, entered := w.reconciler.cloud.shares.enter(visitor("waiting", n), c, false)
			Expect(entered).To(Equal(n == 0))
		}
		Expect(testutil.CollectAndCompare(collector, strings.NewReader(`
				# HELP imagegc_customimages_waiting CustomImages that wait before ECS is called: for a turn in the request quota, for a worker, or for a region or key that does not answer.
				# TYPE imagegc_customimages_waiting gauge
				imagegc_customimages_waiting{for="answer"} 0
				imagegc_customimages_waiting{for="quota"} 0
				imagegc_customimages_waiting{for="worker"} 6
			`))).To(Succeed())
	})

	It("count the calls to ECS by action and code, with the time that they took", func() {
		ok, failed := ecsRequests.WithLabelValues("TestAction", "OK"), ecsRequests.WithLabelValues("TestAction", "ImageUseShared")
		ObserveECSCall("TestAction", "", time.Second)
		ObserveECSCall("TestAction", "ImageUseShared", time.Second)
		Expect(testutil.ToFloat64(ok)).To(Equal(1.0))
		Expect(testutil.ToFloat64(failed)).To(Equal(1.0))
		Expect(testutil.CollectAndCount(ecsDuration, "imagegc_ecs_request_duration_seconds")).To(Equal(1))
	})
})

// countReleases returns how many images were deleted so far, and how many objects were removed for each of the reasons
// without.
func countReleases(reasons ...string) []float64 {
	counts := []float64{testutil.ToFloat64(imagesDeleted)}
	for _, reason := range reasons {
		counts = append(counts, testutil.ToFloat64(imagesReleased.WithLabelValues(reason)))
	}
	return counts
}
