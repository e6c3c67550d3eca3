package controller

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("The metrics", func() {
	It("count the objects by what stands in their way", func() {
		w := newWorld(ecssim.Image{ImageID: "m-1"}, ecssim.Image{ImageID: "m-2"},
			ecssim.Image{ImageID: "m-3", UsedBy: []string{"i-bp1a"}})
		for _, id := range []string{"m-1", "m-2", "m-3"} {
			w.create(id)
		}
		w.delete("m-3")
		Expect(testutil.CollectAndCompare(
			CustomImageCollector{Reader: client.NewNamespacedClient(admin, w.namespace)},
			strings.NewReader(`
				# HELP imagegc_customimages CustomImages by the reason of their Ready condition.
				# TYPE imagegc_customimages gauge
				imagegc_customimages{reason="Available"} 2
				imagegc_customimages{reason="ImageUsingByInstance"} 1
			`))).To(Succeed())
	})

	It("count how objects went, and only images that were there as deleted", func() {
		w := newWorld(ecssim.Image{ImageID: "m-1"}, ecssim.Image{ImageID: "m-2"})
		w.create("m-1")
		w.create("m-2", retained)
		w.create("m-3")
		count := func() []float64 {
			return []float64{testutil.ToFloat64(imagesDeleted), testutil.ToFloat64(imagesReleased.WithLabelValues("Retained")),
				testutil.ToFloat64(imagesReleased.WithLabelValues("NotFound"))}
		}
		before := count()
		for _, id := range []string{"m-1", "m-2", "m-3"} {
			w.delete(id)
			Expect(w.gone(id)).To(BeTrue())
		}
		Expect(count()).To(Equal([]float64{before[0] + 1, before[1] + 1, before[2] + 1}))
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
