package faults

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	region     = "cn-hangzhou"
	elsewhere  = "cn-beijing"
	account    = "1234567890123456"
	otherOwner = "9876543210987654"
)

// world is a namespace, a cloud, and the operators between them.
type world struct {
	t         *testing.T
	ctx       context.Context
	namespace string
	sim       *ecssim.Server
	wire      *wire
	lens      lens
	users     *users
	child     *fault // set if operators are processes of their own: at which call the first one is killed
	vpc       bool   // see scenario
	running   sync.WaitGroup
	// random is set where users and cloud do anything at any time, also what is refused.
	random bool
	// operatorsAtOnce is how many operators there are at a time.
	operatorsAtOnce int
	shown           atomic.Bool  // whether the lens has shown an operator something else than the truth
	late            atomic.Int32 // calls of ECS whose answers came after the time limit, without a fault
	cloud           sync.Mutex   // held by a call of ECS, and by a change of an image
	starting        sync.Mutex   // held where operators start and end
	down            bool         // no operator is to be started
	optsIn          atomic.Bool  // the namespace says that its deletion deletes images

	mu         sync.Mutex
	began      time.Time
	operators  []*operatorProcess
	trace      []string
	violations []string
	hungRegion string
	latest     map[string]v1alpha1.CustomImage // the objects, by name
	ended      []ending                        // of late
	history    []snapshot
	finalized  map[string]bool         // images for which an object had the finalizer
	absences   map[string][]time.Time  // of an image: when looks did not show it
	sightings  map[types.UID]time.Time // when an object was first seen to have seen its image
	effects    map[types.UID]int       // calls of DeleteImage for an object that deleted its image, or did not find it
	accounts   map[string]string       // of access keys
	temporary  []string                // what is secret of temporary keys
	reported   int                     // how many of the violations the test knows
}

// newWorld makes a world without an operator.
func newWorld(t *testing.T, of scenario, wires *wire, view lens) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, ctx: ctx, wire: wires, lens: view, began: time.Now(), users: newUsers(), vpc: of.vpc,
		finalized: map[string]bool{}, sightings: map[types.UID]time.Time{}, absences: map[string][]time.Time{},
		effects: map[types.UID]int{}, accounts: map[string]string{keyID: account, "key-two": account, "key-of-other": otherOwner},
		operatorsAtOnce: 1}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "faults-"}}
	if of.policed {
		namespace.Labels = policed
	}
	if err := admin.Create(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	w.namespace = namespace.Name
	s := ecssim.Scenario{
		AccountID:  account,
		AccessKeys: []ecssim.AccessKey{{ID: keyID, Secret: keySecret}, {ID: "key-two", Secret: "secret-two"}},
		Accounts: []ecssim.Account{{AccountID: otherOwner, AccessKeys: []ecssim.AccessKey{
			{ID: "key-of-other", Secret: "secret-of-other"}}}},
	}
	if of.cloud != nil {
		of.cloud(&s)
	}
	var err error
	if w.sim, err = ecssim.New(s, nil); err != nil {
		t.Fatal(err)
	}
	w.remember()
	t.Cleanup(func() {
		cancel()
		for _, o := range w.allOperators() {
			o.stop()
		}
		w.awaitOperators()
		w.report(false)
		w.sim.Close()
		w.clear()
	})
	return w
}

// awaitOperators gives operators time to end.
func (w *world) awaitOperators() {
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(3 * time.Second):
	}
}

// clear removes what the world leaves in the API server, which others share.
func (w *world) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	images := &v1alpha1.CustomImageList{}
	if err := admin.List(ctx, images, client.InNamespace(w.namespace)); err != nil {
		return
	}
	for i := range images.Items {
		image := &images.Items[i]
		image.Finalizers = nil
		if err := admin.Update(ctx, image); err == nil {
			_ = admin.Delete(ctx, image)
		}
	}
}

func (w *world) allOperators() []*operatorProcess {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.operators)
}

func (w *world) tracef(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.trace) < 4000 && !w.wire.quiet {
		w.trace = append(w.trace, fmt.Sprintf("%6d ms  ", time.Since(w.began).Milliseconds())+fmt.Sprintf(format, args...))
	}
}

// violatedf records that an invariant does not hold.
func (w *world) violatedf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.tracef("VIOLATED: %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, text)
}

func (w *world) hangs(region string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return region != "" && region == w.hungRegion
}

// hang has ECS not answer for a region; "" for none.
func (w *world) hang(region string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hungRegion = region
}

// What users do. Each of these is one change, and comes to the API server between two attempts of the operator: never
// between its last look at an object and the call that rests on it, where nobody could say which of them came first.

func (w *world) create(name, imageID string, change ...func(*v1alpha1.CustomImage)) {
	w.t.Helper()
	image := &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: imageID},
	}
	for _, f := range change {
		f(image)
	}
	w.do("create "+name+" for "+imageID, image, func() error { return admin.Create(w.ctx, image) })
}

func (w *world) edit(name, what string, change func(*v1alpha1.CustomImage)) {
	w.t.Helper()
	if !w.editIfThere(name, what, change) {
		w.t.Errorf("%s: there is no object %s", what, name)
	}
}

// editIfThere changes an object that may end at any moment.
func (w *world) editIfThere(name, what string, change func(*v1alpha1.CustomImage)) bool {
	w.t.Helper()
	image := w.get(name)
	if image == nil {
		return false
	}
	before := image.DeepCopy()
	change(image)
	w.do(what+" of "+name, image, func() error { return admin.Patch(w.ctx, image, client.MergeFrom(before)) })
	return true
}

// whileDown ends all operators like kill -9, makes changes, and starts as many again.
func (w *world) whileDown(change func()) {
	w.t.Helper()
	w.starting.Lock()
	w.down = true
	w.starting.Unlock()
	for _, o := range w.allOperators() {
		o.die()
	}
	change()
	w.starting.Lock()
	w.down = false
	w.starting.Unlock()
	w.startOperators(w.operatorsAtOnce)
}

// attempt has a person try an edit, and returns the object as it would be then.
func (w *world) attempt(person client.Client, name, what string, change func(*v1alpha1.CustomImage)) (*v1alpha1.CustomImage, error) {
	w.t.Helper()
	image := w.get(name)
	if image == nil {
		w.t.Fatalf("%s: there is no object %s", what, name)
	}
	before := image.DeepCopy()
	change(image)
	err := person.Patch(w.ctx, image, client.MergeFrom(before))
	w.tracef("user: tries: %s of %s: %v", what, name, err)
	if !apierrors.IsForbidden(err) {
		w.violatedf("%s of %s is not forbidden: %v", what, name, err)
	}
	return image, err
}

// refuses has a person with a role try an edit that a policy forbids.
func (w *world) refuses(person client.Client, name, what string, change func(*v1alpha1.CustomImage)) {
	w.t.Helper()
	_, _ = w.attempt(person, name, what, change) // which reports what is not forbidden
}

// forces does what Flux does with `force: true` and kubectl with --force: if an object cannot be changed because that is
// invalid, or because a message says so, it is deleted and made anew.
func (w *world) forces(name, what string, change func(*v1alpha1.CustomImage)) {
	w.t.Helper()
	image, err := w.attempt(admin, name, what, change)
	if err != nil && (apierrors.IsInvalid(err) || apierrors.IsConflict(err) || strings.Contains(err.Error(), "is immutable")) {
		w.delete(name)
		w.create(name, image.Spec.ImageID)
	}
}

// keepsImage checks that an image is still there.
func (w *world) keepsImage(imageID string) {
	w.t.Helper()
	if _, exists := w.sim.Image(imageID); !exists {
		w.violatedf("image %s is gone", imageID)
	}
}

func (w *world) delete(name string) {
	w.t.Helper()
	image := w.get(name)
	if image == nil {
		w.t.Errorf("delete: there is no object %s", name)
		return
	}
	w.do("delete "+name, image, func() error {
		if err := admin.Delete(w.ctx, image); err != nil {
			return err
		}
		return client.IgnoreNotFound(admin.Get(w.ctx, client.ObjectKeyFromObject(image), image))
	})
}

// do makes a change, and remembers what the users want from then on.
func (w *world) do(what string, image *v1alpha1.CustomImage, change func() error) {
	w.t.Helper()
	err := w.users.change(image, change)
	w.tracef("user: %s: %v", what, err)
	if client.IgnoreNotFound(err) != nil && (!w.random || !apierrors.IsForbidden(err)) {
		w.t.Errorf("%s: %v", what, err)
	}
}

// setOnDeletion annotates the namespace with what its deletion does to images.
func (w *world) setOnDeletion(value string) {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationOnNamespaceDeletion, value)
	if err := admin.Patch(w.ctx, namespace, client.RawPatch(types.MergePatchType, patch)); err != nil {
		w.t.Error(err)
	}
	w.optsIn.Store(value == string(v1alpha1.DeletionPolicyDelete))
	w.tracef("user: the namespace says %s", value)
}

func (w *world) deleteNamespace() {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	if err := w.users.endNamespace(func() error { return admin.Delete(w.ctx, namespace) }); err != nil {
		w.t.Error(err)
	}
	w.tracef("user: delete the namespace")
}

// putSecret makes or replaces a Secret with an access key.
func (w *world) putSecret(name, id, secret string) {
	w.t.Helper()
	w.put(name, map[string]string{"access-key-id": id, "access-key-secret": secret})
}

// putRole makes or replaces a Secret with a role for the operator to assume.
func (w *world) putRole(name, arn string) {
	w.t.Helper()
	w.put(name, map[string]string{"role-arn": arn})
}

func (w *world) put(name string, fields map[string]string) {
	w.t.Helper()
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: fields}
	err := admin.Create(w.ctx, object)
	if apierrors.IsAlreadyExists(err) {
		err = admin.Update(w.ctx, object)
	}
	w.tracef("user: put Secret %s with %s: %v", name, slices.Sorted(maps.Keys(fields)), err)
	if err != nil {
		w.t.Error(err)
	}
}

func (w *world) putImage(imageID string, change ...func(*ecssim.Image)) {
	w.t.Helper()
	image := ecssim.Image{ImageID: imageID, RegionID: region}
	for _, f := range change {
		f(&image)
	}
	if err := w.sim.PutImage(image); err != nil {
		w.t.Error(err)
	}
	w.tracef("cloud: put %+v", image)
}

// alter changes an image of the cloud, if it is still there.
func (w *world) alter(imageID string, change func(*ecssim.Image)) {
	w.t.Helper()
	w.cloud.Lock()
	defer w.cloud.Unlock()
	image, ok := w.sim.Image(imageID)
	if !ok {
		return
	}
	change(&image)
	if err := w.sim.PutImage(image); err != nil {
		w.t.Error(err)
	}
	w.tracef("cloud: %s: used by %v, shared with %v", imageID, image.UsedBy, image.SharedWith)
}

// configure changes the cloud.
func (w *world) configure(change func(*ecssim.Scenario)) {
	w.t.Helper()
	if err := w.sim.Configure(change); err != nil {
		w.t.Error(err)
	}
	w.tracef("cloud: changed")
}

// What users see.

// get returns an object; nil if there is none.
func (w *world) get(name string) *v1alpha1.CustomImage {
	w.t.Helper()
	image := &v1alpha1.CustomImage{}
	err := admin.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, image)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		w.t.Fatal(err)
	}
	return image
}

// awaitImageGone waits until ECS does not show an image whose deletion it has accepted.
func (w *world) awaitImageGone(imageID string) {
	w.t.Helper()
	for end := time.Now().Add(*patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, exists := w.sim.Image(imageID); !exists {
			return
		}
	}
	w.violatedf("image %s is still there after %s", imageID, *patience)
}

// watched returns an object as the last event had it; nil if there is none.
func (w *world) watched(name string) *v1alpha1.CustomImage {
	w.mu.Lock()
	defer w.mu.Unlock()
	if image, ok := w.latest[name]; ok {
		return &image
	}
	return nil
}

func reasonOf(image *v1alpha1.CustomImage) string {
	if image == nil {
		return "gone"
	}
	if ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.Reason
	}
	return ""
}

// await waits until Ready has one of the reasons; "gone" stands for the end of the object. It returns the reason. The longest
// backoff here is a second, but a call that fails is repeated by the work queue after 1, 2 and 4 s.
func (w *world) await(name string, reasons ...string) string {
	w.t.Helper()
	last := ""
	for end := time.Now().Add(*patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if last = reasonOf(w.watched(name)); slices.Contains(reasons, last) {
			w.tracef("user: %s is %s", name, last)
			return last
		}
	}
	w.tracef("user: %s is still %q", name, last)
	w.violatedf("object %s is %q after %s, not %s", name, last, *patience, strings.Join(reasons, " or "))
	return last
}

// awaitSoon is await after the last obstacle is cleared. Without a fault, the longest backoff is enough.
func (w *world) awaitSoon(name, reason string) {
	w.t.Helper()
	began := time.Now()
	w.await(name, reason)
	busy := busyFor * time.Duration(w.operatorsAtOnce) // two refuse each other's patches
	if took := time.Since(began); w.wire.faults() == 0 && w.lens.kind == "" && took > longestBackoff+busy {
		w.violatedf("object %s is %s only %s after the last obstacle was cleared", name, reason, took)
	}
}

// digest is what a plan's end has to be like: the objects that are left, the images that are left, and those that were
// deleted.
func (w *world) digest() string {
	w.t.Helper()
	images := &v1alpha1.CustomImageList{}
	if err := admin.List(w.ctx, images, client.InNamespace(w.namespace)); err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for i := range images.Items {
		image := &images.Items[i]
		lines = append(lines, fmt.Sprintf("object %s: deleted %t, %v, %+v, %s", image.Name, image.DeletionTimestamp != nil,
			image.Finalizers, specOf(image), reasonOf(image)))
	}
	for _, image := range w.sim.Images() {
		lines = append(lines, "image "+image.ImageID)
	}
	for _, call := range w.sim.Calls() {
		if call.Action == "DeleteImage" && call.Code == "" {
			lines = append(lines, "deleted "+call.ImageID)
		}
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n") // checkEnd counts the calls
}

func specOf(image *v1alpha1.CustomImage) string {
	return fmt.Sprint(image.Spec.RegionID, " ", image.Spec.ImageID, " ", *image.Spec.Force, " ", image.Spec.DeletionPolicy,
		" ", image.Spec.CredentialsSecretRef.Name)
}

// cacheOptions shows an operator the objects through the world's lens.
func (w *world) cacheOptions(o *operatorProcess) cache.Options {
	if w.lens.kind == "" {
		return cache.Options{}
	}
	return cache.Options{NewInformer: func(
		lw toolscache.ListerWatcher, object runtime.Object, resync time.Duration, indexers toolscache.Indexers,
	) toolscache.SharedIndexInformer {
		if _, ok := object.(*v1alpha1.CustomImage); ok {
			lw = &viewer{ListerWatcher: lw, operator: o, lens: w.lens}
		}
		return toolscache.NewSharedIndexInformer(lw, object, resync, indexers)
	}}
}
