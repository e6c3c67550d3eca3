package controller

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// runWorld is a world whose reconciler runs in a manager, with cache, work queue and recorder, until the spec
// ends or stop is called. What has to happen at once has to happen long before the backoffs are over.
func runWorld(images ...ecssim.Image) (w *world, stop func()) {
	GinkgoHelper()
	w = &world{namespace: newNamespace(), sim: newSimulator(nil, images...)}
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{w.namespace: {}}, ByObject: CacheByObject(),
		},
		Controller:              config.Controller{SkipNameValidation: ptr.To(true)},
		GracefulShutdownTimeout: ptr.To(20 * time.Second),
	})
	Expect(err).NotTo(HaveOccurred())
	calls := clientConfig(w.sim, clock.RealClock{})
	calls.Timeout = 5 * time.Second
	api := openapi.New(calls)
	w.CustomImageReconciler = &CustomImageReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), ECS: ecs.New(api),
		Credentials: newSource(mgr.GetAPIReader(), api, clock.RealClock{}),
		Events:      mgr.GetEventRecorder("ecs-image-gc"), Clock: clock.RealClock{},
		Waiting: Backoff{200 * time.Millisecond, time.Second}, Blocked: Backoff{time.Hour, time.Hour},
		Resync: 6 * time.Hour, MaxConcurrentReconciles: 4,
	}
	Expect(w.SetupWithManager(mgr)).To(Succeed())
	running, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- mgr.Start(running) }()
	stop = func() {
		GinkgoHelper()
		cancel()
		Eventually(stopped).Should(Receive(BeNil()))
		stopped <- nil
	}
	DeferCleanup(func() { stop() })
	return w, stop
}

func (w *world) readyReason(id string) string { return readyReason(w.get(id)) }

// eventsOf returns the events about an object that the API server has.
func (w *world) eventsOf(id, reason string) []eventsv1.Event {
	GinkgoHelper()
	list := &eventsv1.EventList{}
	Expect(admin.List(context.Background(), list, client.InNamespace(w.namespace))).To(Succeed())
	var found []eventsv1.Event
	for _, e := range list.Items {
		if e.Regarding.Name == id && e.Reason == reason {
			found = append(found, e)
		}
	}
	return found
}

var _ = Describe("The running operator", func() {
	It("takes an object from its creation to the end of its image, and tells so in one event", func() {
		w, _ := runWorld(ecssim.Image{ImageID: id, Copying: ecssim.Forever})
		w.createUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		w.deleteUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("OperationDeniedImageCopying"))
		Eventually(w.calls).WithArguments("DeleteImage", id).Should(BeNumerically(">", 4))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
		Eventually(w.gone).WithArguments(id).Should(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
		Eventually(w.eventsOf).WithArguments(id, "Deleted").Should(HaveLen(1))
		Expect(w.eventsOf(id, "Deleted")[0].Related.Name).To(Equal(id))
		Expect(w.eventsOf(id, "OperationDeniedImageCopying")).To(HaveLen(1))
	})

	It("is woken by a flip of force, by the retry annotation, and by the last finalizer of others", func() {
		w, _ := runWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.createUnseen(id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{"example.com/backup"} })
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		w.deleteUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Pending"))
		w.change(id, withFinalizer)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("ImageUsingByInstance"))
		Expect(w.calls("DeleteImage", id)).To(Equal(1))
		w.change(id, annotated(v1alpha1.AnnotationRetryAt, "now"))
		Eventually(w.calls).WithArguments("DeleteImage", id).Should(Equal(2))
		w.change(id, func(image *v1alpha1.CustomImage) { image.Labels = map[string]string{"not": "a-reason"} })
		Consistently(w.calls).WithArguments("DeleteImage", id).WithTimeout(500 * time.Millisecond).Should(Equal(2))
		w.change(id, func(image *v1alpha1.CustomImage) { image.Spec.Force = ptr.To(true) })
		Eventually(w.gone).WithArguments(id).Should(BeTrue())
	})

	It("does not let a hung connection hold up other objects", func() {
		w, _ := runWorld(ecssim.Image{ImageID: "m-hung"}, ecssim.Image{ImageID: id})
		for _, name := range []string{"m-hung", id} {
			w.createUnseen(name)
			Eventually(w.readyReason).WithArguments(name).Should(Equal("Available"))
		}
		Expect(w.sim.AddFault(ecssim.Fault{ImageID: "m-hung", Kind: ecssim.FaultHang, Times: 1})).To(Succeed())
		w.deleteUnseen("m-hung")
		Eventually(w.calls).WithArguments("DeleteImage", "m-hung").Should(Equal(1))
		w.deleteUnseen(id)
		Eventually(w.gone).WithArguments(id).WithTimeout(3 * time.Second).Should(BeTrue())
		Expect(w.exists("m-hung")).To(BeTrue())
		Expect(w.gone("m-hung")).To(BeFalse())
		Eventually(w.gone).WithArguments("m-hung").Should(BeTrue(), "after the time limit of the call")
	})

	It("says Retrying when ECS cannot be reached for more than one attempt", func() {
		w, _ := runWorld(ecssim.Image{ImageID: id})
		w.createUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		Expect(w.sim.AddFault(ecssim.Fault{Kind: ecssim.FaultGarbage, Times: 3})).To(Succeed())
		w.deleteUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Retrying"))
		Expect(condition(w.get(id), "Ready").Message).To(HavePrefix("UnusableAnswer: HTTP 502 "))
		Eventually(w.gone).WithArguments(id).Should(BeTrue())
	})

	It("is woken by the deletion of the namespace, and lets an object go that waited for something else", func() {
		w, _ := runWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.createUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		w.deleteUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("ImageUsingByInstance"))
		Expect(admin.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
		Eventually(w.gone).WithArguments(id).Should(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.calls("DeleteImage", id)).To(Equal(1))
	})

	It("says at once when an image gets another owner, and when it has lost it", func() {
		w, _ := runWorld(ecssim.Image{ImageID: id})
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: 1})).To(Succeed())
		older := id + "-older"
		Expect(admin.Create(context.Background(), &v1alpha1.CustomImage{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: older},
			Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: id, DeletionPolicy: v1alpha1.DeletionPolicyRetain},
		})).To(Succeed())
		Eventually(w.readyReason).WithArguments(older).Should(Equal("InvalidImageIdNotFound"))
		aSecondLater()
		w.createUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		w.change(older, annotated(v1alpha1.AnnotationRetryAt, "now"))
		Eventually(w.readyReason).WithArguments(older).Should(Equal("Available"))
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Conflict"))
		w.deleteUnseen(older)
		Eventually(w.gone).WithArguments(older).Should(BeTrue())
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		Expect(w.exists(id)).To(BeTrue())
	})

	It("is woken when an object is protected no more", func() {
		w, _ := runWorld(ecssim.Image{ImageID: id})
		w.createUnseen(id, annotated(v1alpha1.AnnotationProtected, "true"))
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		w.deleteUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Protected"))
		w.change(id, func(image *v1alpha1.CustomImage) { image.Annotations = nil })
		Eventually(w.gone).WithArguments(id).Should(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("finishes the call under way when it is stopped, and records what came of it", func() {
		w, stop := runWorld(ecssim.Image{ImageID: id})
		w.createUnseen(id)
		Eventually(w.readyReason).WithArguments(id).Should(Equal("Available"))
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Latency = ecssim.Duration(500 * time.Millisecond) })).To(Succeed())
		w.deleteUnseen(id)
		Eventually(w.calls).WithArguments("DeleteImage", id).Should(Equal(1))
		stop()
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})
})
