package customimage

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// runWorld is a world whose reconciler runs in a manager that watches the world's namespace, with cache, work queue and
// recorder, until the spec ends or stop is called. What has to happen at once has to happen long before the backoffs
// are over.
func runWorld(ctx SpecContext, images ...ecssim.Image) (w *world, stop func()) {
	GinkgoHelper()
	w = newUnstartedWorld(ctx, images...)
	w.config.Namespaces = []string{w.namespace}
	return w, w.start(cache.Options{DefaultNamespaces: map[string]cache.Config{w.namespace: {}}, ByObject: CacheByObject()})
}

// runWorldInOneWatch is a world whose manager has one watch for all namespaces, which only the API server narrows to
// the world's one.
func runWorldInOneWatch(ctx SpecContext, images ...ecssim.Image) *world {
	GinkgoHelper()
	w := newUnstartedWorld(ctx, images...)
	objects := CacheByObject()
	objects[&v1alpha1.CustomImage{}] = cache.ByObject{Field: fields.OneTermEqualSelector("metadata.namespace", w.namespace)}
	w.start(cache.Options{ByObject: objects})
	return w
}

func newUnstartedWorld(ctx context.Context, images ...ecssim.Image) *world {
	GinkgoHelper()
	w := &world{ctx: ctx, id: "m-" + rand.String(12), namespace: newNamespace(ctx), live: &interceptor.Funcs{}}
	for i := range images {
		images[i].ImageID = w.id
	}
	w.sim = newSimulator(nil, images...)
	return w
}

// start runs the world's reconciler in a manager.
func (w *world) start(objects cache.Options) (stop func()) {
	GinkgoHelper()
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme:                  scheme,
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Cache:                   objects,
		Controller:              config.Controller{SkipNameValidation: ptr.To(true)},
		GracefulShutdownTimeout: ptr.To(20 * time.Second),
	})
	Expect(err).NotTo(HaveOccurred())
	calls := clientConfig(w.sim, clock.RealClock{})
	calls.Timeout = 5 * time.Second
	api := openapi.New(calls)
	w.config.Client, w.config.Live, w.config.ECS = mgr.GetClient(), w.client(w.live), ecs.New(api)
	w.config.Credentials = newSource(mgr.GetAPIReader(), api, clock.RealClock{})
	w.config.Events, w.config.Clock = NewRecorder(mgr.GetClient()), clock.RealClock{}
	w.config.Waiting = Backoff{200 * time.Millisecond, time.Second}
	w.config.Blocked = Backoff{time.Hour, time.Hour}
	w.config.Resync, w.config.MaxConcurrentReconciles = 6*time.Hour, max(w.config.MaxConcurrentReconciles, 4)
	w.reconciler = New(w.config)
	Expect(w.reconciler.SetupWithManager(mgr)).To(Succeed())
	running, cancel := context.WithCancel(w.ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- mgr.Start(running) }()
	stop = func() {
		GinkgoHelper()
		cancel()
		Eventually(stopped).Should(Receive(BeNil()))
		stopped <- nil
	}
	DeferCleanup(func() { stop() })
	return stop
}

func (w *world) readyReason(id string) string {
	GinkgoHelper()
	return readyReason(w.get(id))
}

func (w *world) expectReason(id, reason string) {
	GinkgoHelper()
	Eventually(w.readyReason).WithArguments(id).Should(Equal(reason))
}

func (w *world) expectGone(id string) {
	GinkgoHelper()
	Eventually(w.gone).WithArguments(id).Should(BeTrue())
}

// named makes a change of an object that has another name than the image for which it is.
func named(name string) func(*v1alpha1.CustomImage) {
	return func(image *v1alpha1.CustomImage) { image.Name = name }
}

// eventsOf returns the events about an object that the API server has.
func (w *world) eventsOf(id, reason string) []eventsv1.Event {
	GinkgoHelper()
	list := &eventsv1.EventList{}
	Expect(admin.List(w.ctx, list, client.InNamespace(w.namespace))).To(Succeed())
	var found []eventsv1.Event
	for _, e := range list.Items {
		if e.Regarding.Name == id && e.Reason == reason {
			found = append(found, e)
		}
	}
	return found
}

// awaitSecondAfter waits until the API server would give a new object a later creation time than this one's, which it
// counts in seconds: the creation times in the cache of a manager cannot be shifted.
func (w *world) awaitSecondAfter(id string) {
	GinkgoHelper()
	born := w.get(id).CreationTimestamp.Time
	Eventually(func(g Gomega) {
		probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "probe"}}
		g.Expect(admin.Create(w.ctx, probe, client.DryRunAll)).To(Succeed())
		g.Expect(probe.CreationTimestamp.Time).To(BeTemporally(">", born))
	}).Should(Succeed())
}

var _ = Describe("The running operator", func() {
	It("accompanies an object from its creation to the deletion of its image, and says so in one event", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{Copying: ecssim.Forever})
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "OperationDeniedImageCopying")
		Eventually(w.calls).WithArguments("DeleteImage", w.id).Should(BeNumerically(">", 4))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region})).To(Succeed())
		w.expectGone(w.id)
		Expect(w.exists(w.id)).To(BeFalse())
		Eventually(w.eventsOf).WithArguments(w.id, "Deleted").Should(HaveLen(1))
		Expect(w.eventsOf(w.id, "Deleted")[0].Related.Name).To(Equal(w.id))
		Expect(w.eventsOf(w.id, "OperationDeniedImageCopying")).To(HaveLen(1))
	})

	It("is woken by a flip of force, by the retry annotation, and by the last finalizer of others", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.createUnseen(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{"example.com/backup"} })
		w.expectReason(w.id, "Available")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "Pending")
		w.change(w.id, withFinalizer)
		w.expectReason(w.id, "ImageUsingByInstance")
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
		w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, "now"))
		Eventually(w.calls).WithArguments("DeleteImage", w.id).Should(Equal(2))
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Labels = map[string]string{"not": "a-reason"} })
		Consistently(w.calls).WithArguments("DeleteImage", w.id).WithTimeout(500 * time.Millisecond).Should(Equal(2))
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Spec.Force = ptr.To(true) })
		w.expectGone(w.id)
	})

	It("works on other objects while a connection hangs", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{})
		hung := w.id + "hung"
		Expect(w.sim.PutImage(ecssim.Image{ImageID: hung, RegionID: region})).To(Succeed())
		for _, id := range []string{hung, w.id} {
			w.createUnseen(id)
			w.expectReason(id, "Available")
		}
		Expect(w.sim.AddFault(ecssim.Fault{ImageID: hung, Kind: ecssim.FaultHang, Times: 1})).To(Succeed())
		w.deleteUnseen(hung)
		Eventually(w.calls).WithArguments("DeleteImage", hung).Should(Equal(1))
		w.deleteUnseen(w.id)
		Eventually(w.gone).WithArguments(w.id).WithTimeout(3 * time.Second).Should(BeTrue())
		Expect(w.exists(hung)).To(BeTrue())
		Expect(w.gone(hung)).To(BeFalse())
		Eventually(w.gone).WithArguments(hung).Should(BeTrue(), "after the time limit of the call")
	})

	It("works on the objects of other regions while a region does not answer", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{})
		var hung []string
		began := time.Now()
		for n := range 20 {
			id := fmt.Sprintf("%shung%d", w.id, n)
			Expect(w.sim.AddFault(ecssim.Fault{ImageID: id, Kind: ecssim.FaultHang, Times: -1})).To(Succeed())
			w.createUnseen(id, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = "cn-beijing" })
			hung = append(hung, id)
		}
		callsToHung := func() (calls int) {
			for _, id := range hung {
				calls += w.calls("DescribeImages", id)
			}
			return calls
		}
		Eventually(callsToHung).Should(Equal(firstCalls), "all that one region may hold")
		w.createUnseen(w.id)
		Eventually(w.readyReason).WithArguments(w.id).WithTimeout(3 * time.Second).Should(Equal("Available"))
		w.deleteUnseen(w.id)
		Eventually(w.gone).WithArguments(w.id).WithTimeout(3 * time.Second).Should(BeTrue())
		for _, id := range hung {
			Eventually(w.readyReason).WithArguments(id).Should(Equal("Retrying"), "also those that were not attempted")
			Expect(condition(w.get(id), "Ready").Message).To(HavePrefix("NoAnswer: No answer within 5s."))
		}
		probes := int(time.Since(began) / (5 * time.Second)) // one at a time, and each takes as long as its time limit
		Expect(callsToHung()).To(BeNumerically("<=", firstCalls+silenceAfter-1+probes), "the region is found out by a few")
		w.sim.ClearFaults()
		for _, id := range hung {
			w.expectReason(id, "InvalidImageIdNotFound")
		}
	})

	It("says Retrying when ECS cannot be reached for more than one attempt", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{})
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		Expect(w.sim.AddFault(ecssim.Fault{Kind: ecssim.FaultGarbage, Times: 3})).To(Succeed())
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "Retrying")
		Expect(condition(w.get(w.id), "Ready").Message).To(HavePrefix("UnusableAnswer: HTTP 502"))
		w.expectGone(w.id)
	})

	It("is woken by the deletion of the namespace, and releases an object that something else blocked", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "ImageUsingByInstance")
		w.endNamespace()
		w.expectGone(w.id)
		Expect(w.exists(w.id)).To(BeTrue())
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))
	})

	It("says at once when an image gets another owner, and when it has lost it", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{})
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: 1})).To(Succeed())
		older := w.id + "-older"
		w.createUnseen(w.id, named(older), retained)
		w.expectReason(older, "InvalidImageIdNotFound")
		w.awaitSecondAfter(older)
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		w.change(older, annotated(v1alpha1.AnnotationRetryAt, "now"))
		w.expectReason(older, "Available")
		w.expectReason(w.id, "Conflict")
		w.deleteUnseen(older)
		w.expectGone(older)
		w.expectReason(w.id, "Available")
		Expect(w.exists(w.id)).To(BeTrue())
	})

	It("is woken when the protection of an object is removed", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{})
		w.createUnseen(w.id, annotated(v1alpha1.AnnotationProtected, "true"))
		w.expectReason(w.id, "Available")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "Protected")
		w.change(w.id, unannotated)
		w.expectGone(w.id)
		Expect(w.exists(w.id)).To(BeFalse())
	})

	DescribeTable("is woken when the object that holds a deletion", func(ctx SpecContext, keeps, ends func(*v1alpha1.CustomImage)) {
		w, _ := runWorld(ctx, ecssim.Image{})
		keeper := w.id + "-keeper"
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		w.awaitSecondAfter(w.id)
		w.createUnseen(w.id, named(keeper), keeps)
		w.expectReason(keeper, "Conflict")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "Conflict")
		Expect(w.deletions()).To(BeZero())
		if ends != nil {
			w.change(keeper, ends)
		} else {
			w.deleteUnseen(keeper)
			w.expectGone(keeper)
		}
		w.expectGone(w.id)
		Expect(w.exists(w.id)).To(BeFalse())
	},
		Entry("gets the policy Delete", retained, deletes),
		Entry("is deleted", retained, nil),
		Entry("is no longer protected", annotated(v1alpha1.AnnotationProtected, "yes"), unannotated),
	)

	It("holds a deletion that waits for instances as soon as another object keeps the image", func(ctx SpecContext) {
		w, _ := runWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		keeper := w.id + "-keeper"
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "ImageUsingByInstance")
		w.awaitSecondAfter(w.id)
		w.createUnseen(w.id, named(keeper), retained)
		w.expectReason(w.id, "Conflict")
		Expect(condition(w.get(w.id), "Ready").Message).To(ContainSubstring(w.namespace + "/" + keeper + " keeps the image"))
		Expect(w.calls("DeleteImage", w.id)).To(Equal(1))

		Expect(w.sim.PutImage(ecssim.Image{ImageID: w.id, RegionID: region})).To(Succeed())
		w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, "now"))
		Consistently(w.exists).WithArguments(w.id).WithTimeout(500 * time.Millisecond).Should(BeTrue())
	})

	It("finishes the call under way when it is stopped, and records its outcome", func(ctx SpecContext) {
		w, stop := runWorld(ctx, ecssim.Image{})
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Latency = ecssim.Duration(500 * time.Millisecond) })).To(Succeed())
		w.deleteUnseen(w.id)
		Eventually(w.calls).WithArguments("DeleteImage", w.id).Should(Equal(1))
		stop()
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})
})

var _ = Describe("The running operator with one watch for all namespaces", func() {
	It("holds a deletion that another object vetoes, and is woken when that changes", func(ctx SpecContext) {
		w := runWorldInOneWatch(ctx, ecssim.Image{})
		keeper := w.id + "-keeper"
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		w.awaitSecondAfter(w.id)
		w.createUnseen(w.id, named(keeper), retained)
		w.expectReason(keeper, "Conflict")
		w.deleteUnseen(w.id)
		w.expectReason(w.id, "Conflict")
		w.change(keeper, deletes)
		w.expectGone(w.id)
		Expect(w.exists(w.id)).To(BeFalse())
	})

	It("lists no rivals for objects deleted long ago, once it has seen one of them end", func(ctx SpecContext) {
		w := newUnstartedWorld(ctx)
		objects := CacheByObject()
		objects[&v1alpha1.CustomImage{}] = cache.ByObject{Field: fields.OneTermEqualSelector("metadata.namespace", w.namespace)}
		stop := w.start(cache.Options{ByObject: objects})
		var ids []string
		for n := range 24 {
			id := fmt.Sprintf("%sn%d", w.id, n)
			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			w.createUnseen(id)
			ids = append(ids, id)
		}
		for _, id := range ids {
			w.expectReason(id, "Available")
		}
		time.Sleep(apiServerSkew)
		stop()
		for _, id := range ids {
			w.deleteUnseen(id)
		}
		time.Sleep(recent + time.Second)
		var lists atomic.Int32
		w.live.List = func(ctx context.Context, c client.WithWatch, l client.ObjectList, options ...client.ListOption) error {
			lists.Add(1)
			return c.List(ctx, l, options...)
		}
		w.start(cache.Options{ByObject: objects})
		for _, id := range ids {
			w.expectGone(id)
		}
		Expect(lists.Load()).To(BeNumerically("<=", 12), "those that begin before the first one has ended")
	})

	It("knows up to which revision its cache has come", func(ctx SpecContext) {
		w := runWorldInOneWatch(ctx, ecssim.Image{})
		w.createUnseen(w.id)
		w.expectReason(w.id, "Available")
		written := w.get(w.id).ResourceVersion
		Eventually(func() bool { return atLeast(w.reconciler.proofs.revision(), written) }).Should(BeTrue())
		w.change(w.id, retained)
		written = w.get(w.id).ResourceVersion
		Eventually(func() bool { return atLeast(w.reconciler.proofs.revision(), written) }).Should(BeTrue())
		Expect(atLeast(w.reconciler.proofs.revision(), "9223372036854775807")).To(BeFalse())
	})
})
