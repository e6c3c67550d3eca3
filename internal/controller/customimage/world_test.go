package customimage

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

const region = "cn-hangzhou"

// world is a namespace of its own, a cloud of its own with an image ID that no other world has, and a reconciler
// between them whose attempts a test makes one by one, on a clock that stands still in between.
type world struct {
	ctx       context.Context         // of the spec
	id        string                  // of the image of specs that have but one
	clock     *clocktesting.FakeClock // none where a manager runs
	sim       *ecssim.Server
	namespace string
	announced chan string

	config     Config // of the next restart
	reconciler *Reconciler

	// What the clients of the reconciler do other than their API server: those of the cache and of all writes, of live
	// reads, and of Secrets.
	cache, live, secrets *interceptor.Funcs
	// ecs is what the cloud does other than the simulator.
	ecs *cloudFuncs
	// born shifts creation times, by the uid of the object: the API server counts them in seconds.
	born map[types.UID]time.Duration
}

// cloudFuncs answers calls in place of the simulator.
type cloudFuncs struct {
	// answer answers a call of an action itself, or returns false.
	answer func(rw http.ResponseWriter, action string, r *http.Request) bool
}

// newWorld makes a world. Images without an ID get the world's own.
func newWorld(ctx context.Context, images ...ecssim.Image) *world {
	GinkgoHelper()
	w := &world{
		ctx: ctx, id: "m-" + rand.String(12), clock: clocktesting.NewFakeClock(time.Now().Truncate(time.Second)),
		cache: &interceptor.Funcs{}, live: &interceptor.Funcs{}, secrets: &interceptor.Funcs{}, ecs: &cloudFuncs{},
		born:      map[types.UID]time.Duration{},
		announced: make(chan string, 2000),
	}
	for i := range images {
		images[i].ImageID = cmp.Or(images[i].ImageID, w.id)
	}
	w.sim = newSimulator(w.clock, images...)
	w.namespace = newNamespace(ctx)
	api := openapi.New(clientConfig(http.HandlerFunc(w.serveECS), w.clock))
	w.config = Config{
		Client:   w.client(w.cache),
		Live:     w.client(w.live),
		ECS:      ecs.New(api),
		Operator: "--serviceaccount=default:operator",
		Events:   &events.FakeRecorder{Events: w.announced},
		Clock:    w.clock,
		Waiting:  Backoff{5 * time.Second, 5 * time.Minute},
		Blocked:  Backoff{30 * time.Second, 10 * time.Minute},
		Resync:   6 * time.Hour,

		MaxConcurrentReconciles: 4,
	}
	w.config.Credentials = newSource(w.client(w.secrets), api, w.clock)
	w.restart()
	return w
}

func (w *world) serveECS(rw http.ResponseWriter, r *http.Request) {
	if answer := w.ecs.answer; answer == nil || !answer(rw, r.Header.Get("X-Acs-Action"), r) {
		w.sim.ServeHTTP(rw, r)
	}
}

// beside is another namespace with the same cloud and the same reconciler, for another object for the same image.
func (w *world) beside() *world {
	GinkgoHelper()
	other := *w
	other.namespace = newNamespace(w.ctx)
	return &other
}

// restart replaces the operator by a new one, which remembers nothing.
func (w *world) restart() {
	w.reconciler = New(w.config)
	w.reconciler.proofs.window = 0
}

// client acts as the operator, and does what the functions say where they are set.
func (w *world) client(funcs *interceptor.Funcs) client.WithWatch {
	GinkgoHelper()
	c, err := client.NewWithWatch(operator, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			get := func() error { return c.Get(ctx, key, o, opts...) }
			if funcs.Get != nil {
				get = func() error { return funcs.Get(ctx, c, key, o, opts...) }
			}
			err := get()
			w.shift(o)
			return err
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if (&client.ListOptions{}).ApplyOptions(opts).FieldSelector == nil { // all there are: not those of other worlds
				opts = append(opts, client.InNamespace(w.namespace))
			}
			list := func() error { return c.List(ctx, l, opts...) }
			if funcs.List != nil {
				list = func() error { return funcs.List(ctx, c, l, opts...) }
			}
			err := list()
			if images, ok := l.(*v1alpha1.CustomImageList); ok {
				for i := range images.Items {
					w.shift(&images.Items[i])
				}
			}
			return err
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if funcs.Patch != nil {
				return funcs.Patch(ctx, c, o, p, opts...)
			}
			defer w.shift(o)
			return c.Patch(ctx, o, p, opts...)
		},
		SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption,
		) error {
			if funcs.SubResourcePatch != nil {
				return funcs.SubResourcePatch(ctx, c, sub, o, p, opts...)
			}
			defer w.shift(o)
			return c.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
}

func (w *world) shift(o client.Object) {
	if by, ok := w.born[o.GetUID()]; ok {
		o.SetCreationTimestamp(metav1.NewTime(o.GetCreationTimestamp().Add(by)))
	}
}

// bornEarlier makes an object older than those that were created in the same second.
func (w *world) bornEarlier(id string, by time.Duration) {
	GinkgoHelper()
	w.born[w.get(id).UID] = -by
}

// calm has the cache answer without the API server, for specs of many attempts, that neither namespace nor CRD is being
// deleted, and that no image has a second object.
func (w *world) calm() {
	GinkgoHelper()
	known := map[string]*metav1.PartialObjectMetadata{}
	for _, object := range []*metav1.PartialObjectMetadata{definition(), namespaceNamed(w.namespace)} {
		Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		known[object.Name] = object
	}
	w.cache.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if into, ok := o.(*metav1.PartialObjectMetadata); ok {
			known[key.Name].DeepCopyInto(into)
			return nil
		}
		return c.Get(ctx, key, o, opts...)
	}
	w.cache.List = func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil }
}

// newSource finds keys in Secrets, and the one of the operator's environment for all who name none.
func newSource(secrets client.Reader, api *openapi.Client, c clock.PassiveClock) *credentials.Source {
	environment := map[string]string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID": "test-id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "test-secret",
	}
	ambient, _ := credentials.Ambient("env", func(name string) string { return environment[name] }, api, "", c)
	return credentials.New(credentials.Config{
		Secrets:           secrets,
		Ambient:           ambient,
		AmbientNamespaces: []string{"*"},
		API:               api,
		Clock:             c,
	})
}

// newSimulator serves a cloud on loopback until the spec ends.
func newSimulator(c clock.PassiveClock, images ...ecssim.Image) *ecssim.Server {
	GinkgoHelper()
	for i := range images {
		images[i].RegionID = region
	}
	sim, err := ecssim.New(ecssim.Scenario{
		AccountID:  "1234567890123456",
		AccessKeys: []ecssim.AccessKey{{ID: "test-id", Secret: "test-secret"}},
		Images:     images,
	}, c)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(sim.Close)
	return sim
}

func clientConfig(handler http.Handler, c clock.PassiveClock) openapi.Config {
	server := httptest.NewServer(handler)
	DeferCleanup(server.Close)
	return openapi.Config{
		Endpoints:   openapi.Endpoints{Override: server.URL},
		Timeout:     time.Second,
		Connections: 64,
		Clock:       c,
	}
}

func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "world-"}}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
	return namespace.Name
}

// create makes an object for the image whose ID it has as its name, and a first attempt.
func (w *world) create(id string, change ...func(*v1alpha1.CustomImage)) {
	GinkgoHelper()
	w.createUnseen(id, change...)
	w.attempt(id)
}

func (w *world) createUnseen(id string, change ...func(*v1alpha1.CustomImage)) {
	GinkgoHelper()
	image := &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: id},
		Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: id},
	}
	for _, f := range change {
		f(image)
	}
	Expect(admin.Create(w.ctx, image)).To(Succeed())
	// The API server's clock goes on meanwhile.
	if born := image.CreationTimestamp.Time; w.clock != nil && born.After(w.clock.Now()) {
		w.clock.SetTime(born)
	}
}

// Changes of an object, for create and change.

func withSecret(name string) func(*v1alpha1.CustomImage) {
	return func(image *v1alpha1.CustomImage) { image.Spec.CredentialsSecretRef.Name = name }
}

// annotated gives it one annotation and no other.
func annotated(name, value string) func(*v1alpha1.CustomImage) {
	return func(image *v1alpha1.CustomImage) { image.Annotations = map[string]string{name: value} }
}

func retained(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain }

func withFinalizer(image *v1alpha1.CustomImage) { image.Finalizers = []string{v1alpha1.Finalizer} }

// attempt reconciles once, without an error.
func (w *world) attempt(id string) ctrl.Result {
	GinkgoHelper()
	result, err := w.reconcile(id)
	Expect(err).NotTo(HaveOccurred())
	return result
}

func (w *world) reconcile(id string) (ctrl.Result, error) {
	return w.reconciler.Reconcile(w.ctx, ctrl.Request{NamespacedName: w.key(id)})
}

// turn makes an attempt as the work queue does, and returns how long it waits for the next one; 0 for none.
func (w *world) turn(id string) time.Duration {
	request := ctrl.Request{NamespacedName: w.key(id)}
	result, err := w.reconciler.Reconcile(w.ctx, request)
	if err != nil {
		return w.reconciler.failures.When(request)
	}
	w.reconciler.failures.Forget(request)
	return result.RequeueAfter
}

// pass lets time pass, with an attempt whenever the work queue makes one.
func (w *world) pass(id string, d time.Duration) {
	for end := w.clock.Now().Add(d); w.clock.Now().Before(end); {
		left := end.Sub(w.clock.Now())
		w.clock.Step(min(cmp.Or(w.turn(id), left), left))
	}
}

// attemptFrom reconciles once with a cache that shows the given object.
func (w *world) attemptFrom(cached *v1alpha1.CustomImage) {
	GinkgoHelper()
	w.cache.Get = func(
		ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption,
	) error {
		if image, ok := into.(*v1alpha1.CustomImage); ok {
			cached.DeepCopyInto(image)
			return nil
		}
		return c.Get(ctx, key, into, options...)
	}
	defer func() { w.cache.Get = nil }()
	_, err := w.reconciler.Reconcile(w.ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(cached)})
	Expect(err).NotTo(HaveOccurred())
}

// attemptWhenDue lets time pass until the reconciler wants to be called again, and calls it.
func (w *world) attemptWhenDue(id string) {
	GinkgoHelper()
	result := w.attempt(id)
	if w.gone(id) {
		return
	}
	w.clock.Step(result.RequeueAfter)
	w.attempt(id)
}

// delete asks for the deletion of the object, as a person would, and makes a first attempt.
func (w *world) delete(id string) ctrl.Result {
	GinkgoHelper()
	w.deleteUnseen(id)
	return w.attempt(id)
}

func (w *world) deleteUnseen(id string) {
	GinkgoHelper()
	Expect(admin.Delete(w.ctx, w.get(id))).To(Succeed())
}

func (w *world) key(id string) client.ObjectKey {
	return client.ObjectKey{Namespace: w.namespace, Name: id}
}

func (w *world) get(id string) *v1alpha1.CustomImage {
	GinkgoHelper()
	image := &v1alpha1.CustomImage{}
	Expect(admin.Get(w.ctx, w.key(id), image)).To(Succeed())
	return image
}

func (w *world) gone(id string) bool {
	return apierrors.IsNotFound(admin.Get(w.ctx, w.key(id), &v1alpha1.CustomImage{}))
}

// change edits the object as a person would.
func (w *world) change(id string, f func(*v1alpha1.CustomImage)) {
	GinkgoHelper()
	image := w.get(id)
	before := image.DeepCopy()
	f(image)
	Expect(admin.Patch(w.ctx, image, client.MergeFrom(before))).To(Succeed())
}

// putImage adds the image of the world to the cloud, or replaces it.
func (w *world) putImage(image ecssim.Image) {
	GinkgoHelper()
	image.ImageID, image.RegionID = w.id, region
	Expect(w.sim.PutImage(image)).To(Succeed())
}

// once has something happen during the next call of an action.
func (w *world) once(action string, do func()) {
	w.ecs.answer = func(_ http.ResponseWriter, called string, _ *http.Request) bool {
		if called == action {
			w.ecs.answer = nil
			do()
		}
		return false
	}
}

// exists reports whether the image is there in the simulated cloud.
func (w *world) exists(id string) bool {
	_, ok := w.sim.Image(id)
	return ok
}

// calls counts the calls of an action that reached the cloud about an image.
func (w *world) calls(action, id string) int { return countCalls(w.sim, action, id) }

func countCalls(sim *ecssim.Server, action, id string) int {
	count := 0
	for _, call := range sim.Calls() {
		if call.Action == action && call.ImageID == id {
			count++
		}
	}
	return count
}

// deletions counts all calls of DeleteImage, whatever image they were for.
func (w *world) deletions() int {
	count := 0
	for _, call := range w.sim.Calls() {
		if call.Action == "DeleteImage" {
			count++
		}
	}
	return count
}

func (w *world) expectStalled(id, reason string, text ...string) {
	GinkgoHelper()
	image := w.get(id)
	for _, kind := range []string{"Ready", "Stalled"} {
		Expect(condition(image, kind).Reason).To(Equal(reason))
		for _, part := range append(text, "See "+reasonPages+reason+".md") {
			Expect(condition(image, kind).Message).To(ContainSubstring(part))
		}
	}
	Expect(condition(image, "Ready").Status).To(Equal(metav1.ConditionFalse))
	Expect(condition(image, "Stalled").Status).To(Equal(metav1.ConditionTrue))
	Expect(condition(image, "Reconciling").Type).To(BeEmpty())
}

// events returns what was announced since it was last called.
func (w *world) events() []string {
	var all []string
	for {
		select {
		case e := <-w.announced:
			all = append(all, e)
		default:
			return all
		}
	}
}

func condition(image *v1alpha1.CustomImage, kind string) metav1.Condition {
	if c := meta.FindStatusCondition(image.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// trueObstacles lists the obstacles that are in force.
func trueObstacles(image *v1alpha1.CustomImage) []string {
	return slices.DeleteFunc(slices.Clone(v1alpha1.Obstacles), func(kind string) bool {
		return !meta.IsStatusConditionTrue(image.Status.Conditions, kind)
	})
}

// The accounts of the operator's own key, and of another one.
const (
	thisAccount = "1234567890123456"
	thatAccount = "9876543210987654"
)
