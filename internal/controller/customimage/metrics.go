package customimage

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

var (
	ecsRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imagegc_ecs_requests_total",
		Help: "Calls to ECS and STS by action and error code; the code of a success is OK.",
	}, []string{"action", "code"})

	ecsDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "imagegc_ecs_request_duration_seconds",
		Help:    "How long calls to ECS and STS took, by action, in seconds.",
		Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 45},
	}, []string{"action"})

	imagesDeleted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imagegc_images_deleted_total",
		Help: "Images that were seen, and are gone after the operator called DeleteImage.",
	})

	imagesReleased = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imagegc_images_released_total",
		Help: "CustomImages that were removed without deleting an image, by reason.",
	}, []string{"reason"})
)

func init() {
	metrics.Registry.MustRegister(ecsRequests, ecsDuration, imagesDeleted, imagesReleased)
}

// ObserveECSCall counts one call to ECS or STS.
func ObserveECSCall(action, code string, took time.Duration) {
	if code == "" {
		code = "OK"
	}
	ecsRequests.WithLabelValues(action, code).Inc()
	ecsDuration.WithLabelValues(action).Observe(took.Seconds())
}

func countRelease(how string) {
	if how == v1alpha1.EventDeleted {
		imagesDeleted.Inc()
		return
	}
	imagesReleased.WithLabelValues(how).Inc()
}

// Collector counts the objects in the cache by the reason of their Ready condition, and those that wait before ECS is
// called.
type Collector struct {
	Reader client.Reader
	// Waiting counts the waiting objects by what they wait for. It may be nil.
	Waiting func() map[string]int
}

var (
	customImages = prometheus.NewDesc("imagegc_customimages",
		"CustomImages by the reason of their Ready condition.", []string{"reason"}, nil)

	customImagesWaiting = prometheus.NewDesc("imagegc_customimages_waiting",
		"CustomImages that wait before ECS is called: for a turn in the request quota, for a worker, or for a region or key "+
			"that does not answer.", []string{"for"}, nil)
)

// Describe implements prometheus.Collector.
func (Collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- customImages
	descs <- customImagesWaiting
}

// Collect implements prometheus.Collector. It does not count the objects while the cache cannot be read.
func (c Collector) Collect(samples chan<- prometheus.Metric) {
	if c.Waiting != nil {
		for what, count := range c.Waiting() {
			samples <- prometheus.MustNewConstMetric(customImagesWaiting, prometheus.GaugeValue, float64(count), what)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list := &v1alpha1.CustomImageList{}
	if err := c.Reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return
	}
	counts := map[string]int{}
	for i := range list.Items {
		if ready := meta.FindStatusCondition(list.Items[i].Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			counts[ready.Reason]++
		}
	}
	for reason, count := range counts {
		samples <- prometheus.MustNewConstMetric(customImages, prometheus.GaugeValue, float64(count), reason)
	}
}

// Waiting counts the objects that wait before ECS is called, by what they wait for.
func (r *Reconciler) Waiting() map[string]int {
	worker, answer := r.cloud.shares.waiting()
	return map[string]int{"quota": r.config.ECS.Waiting(), "worker": worker, "answer": answer}
}
