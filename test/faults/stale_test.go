package faults

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// lens is what an operator's cache is shown of the objects instead of what is there.
type lens struct {
	kind  string // one of those below; "" for the truth
	after int    // so many events
}

const (
	// frozen shows nothing new for staleFor.
	frozen = "frozen"
	// coalesced shows nothing new for staleFor, and then only how things stand: events in between are never seen.
	coalesced = "coalesced"
	// expired ends the watch, and has the cache list again.
	expired = "expired"
	// oldList starts operators after the first one from how things stood after so many events.
	oldList = "old-list"
)

// staleFor is how long a cache is behind. Users and cloud do not wait for it.
const staleFor = 1500 * time.Millisecond

// viewer is between the API server and a cache.
type viewer struct {
	toolscache.ListerWatcher
	operator *operatorProcess
	lens     lens

	mu     sync.Mutex
	listed bool
	events int
}

// snapshot is how things stood after an event.
type snapshot struct {
	resourceVersion string
	images          map[string]v1alpha1.CustomImage
}

// remember follows the world's objects until the world ends.
func (w *world) remember() {
	go func() {
		for w.ctx.Err() == nil {
			if err := w.follow(); err != nil && w.ctx.Err() == nil {
				w.tracef("the suite lists the objects again: %v", err)
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
}

// follow lists the objects, and watches them until the API server ends that.
func (w *world) follow() error {
	list := &v1alpha1.CustomImageList{}
	if err := admin.List(w.ctx, list, client.InNamespace(w.namespace)); err != nil {
		return err
	}
	w.forgetMissing(list)
	for i := range list.Items {
		w.happened(&list.Items[i], false)
	}
	events, err := admin.Watch(w.ctx, list, client.InNamespace(w.namespace), &client.ListOptions{
		Raw: &metav1.ListOptions{ResourceVersion: list.ResourceVersion},
	})
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		image, ok := event.Object.(*v1alpha1.CustomImage)
		if !ok {
			return apierrors.FromObject(event.Object)
		}
		w.happened(image, event.Type == watch.Deleted)
	}
	return nil
}

func (w *world) forgetMissing(list *v1alpha1.CustomImageList) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.latest, func(name string, _ v1alpha1.CustomImage) bool {
		return !slices.ContainsFunc(list.Items, func(image v1alpha1.CustomImage) bool { return image.Name == name })
	})
}

func (w *world) happened(image *v1alpha1.CustomImage, ends bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.latest == nil {
		w.latest = map[string]v1alpha1.CustomImage{}
	}
	w.latest[image.Name] = *image
	if hasFinalizer(image) {
		w.finalized[image.Spec.ImageID] = true
	}
	if _, known := w.sightings[image.UID]; !known && image.Status.Image != nil {
		w.sightings[image.UID] = time.Now()
	}
	if ends {
		delete(w.latest, image.Name)
		w.ended = append(slices.DeleteFunc(w.ended, ending.isLongAgo), ending{*image, time.Now()})
	}
	if !w.wire.quiet {
		w.history = append(w.history, snapshot{image.ResourceVersion, maps.Clone(w.latest)})
	}
}

// ending is the end of an object.
type ending struct {
	image v1alpha1.CustomImage
	at    time.Time
}

// isLongAgo is false if an attempt that is under way may have read the object.
func (e ending) isLongAgo() bool { return time.Since(e.at) > callLimit }

// recentFor returns the objects for an image that an attempt may have read: those that the suite last saw, and those that have
// just ended because another worker let them go.
func (w *world) recentFor(imageID string) (recent []v1alpha1.CustomImage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, image := range w.latest {
		recent = append(recent, image)
	}
	for _, e := range w.ended {
		if !e.isLongAgo() {
			recent = append(recent, e.image)
		}
	}
	return slices.DeleteFunc(recent, func(image v1alpha1.CustomImage) bool { return image.Spec.ImageID != imageID })
}

// old returns how things stood after so many events, or after the last one but one if there were fewer.
func (w *world) old(after int) (snapshot, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(after, len(w.history)-1)
	if n < 1 {
		return snapshot{}, false
	}
	return w.history[n-1], true
}

// startsOld says once that this cache is to begin with an old list.
func (v *viewer) startsOld() (snapshot, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lens.kind != oldList || v.operator.number == 1 || v.listed {
		return snapshot{}, false
	}
	v.listed = true
	return v.operator.world.old(v.lens.after)
}

// ListWithContext lists what the cache begins with.
func (v *viewer) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	old, ok := v.startsOld()
	if !ok {
		return toolscache.ToListerWatcherWithContext(v.ListerWatcher).ListWithContext(ctx, options)
	}
	v.operator.world.shown.Store(true)
	v.operator.world.tracef("operator %d: lists the objects as of %s", v.operator.number, old.resourceVersion)
	list := &v1alpha1.CustomImageList{ListMeta: metav1.ListMeta{ResourceVersion: old.resourceVersion}}
	for name := range old.images {
		image := old.images[name]
		list.Items = append(list.Items, *image.DeepCopy()) // the cache changes what it gets
	}
	return list, nil
}

// WatchWithContext watches what happens after that.
func (v *viewer) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if v.lens.kind == oldList && v.operator.number > 1 {
		if options.SendInitialEvents != nil {
			return nil, errors.New("list instead")
		}
		v.mu.Lock()
		first := v.events == 0
		v.events++
		v.mu.Unlock()
		if first {
			time.Sleep(staleFor)
		}
	}
	events, err := toolscache.ToListerWatcherWithContext(v.ListerWatcher).WatchWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	return v.through(events), nil
}

// through passes the events of a watch on, through the lens.
func (v *viewer) through(events watch.Interface) watch.Interface {
	if v.lens.kind == oldList {
		return events
	}
	out := make(chan watch.Event)
	passed := watch.NewProxyWatcher(out)
	go func() {
		defer events.Stop()
		defer close(out)
		v.pass(events, out, passed.StopChan())
	}()
	return passed
}

func (v *viewer) pass(events watch.Interface, out chan<- watch.Event, stopped <-chan struct{}) {
	again := watch.Event{Type: watch.Error, Object: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old",
	}}
	for event := range events.ResultChan() {
		select {
		case out <- event:
		case <-stopped:
			return
		}
		if event.Type == watch.Bookmark || !v.isDue() {
			continue
		}
		v.operator.world.shown.Store(true)
		v.operator.world.tracef("operator %d: the cache is %s after event %d", v.operator.number, v.lens.kind, v.lens.after)
		if v.lens.kind != expired {
			select {
			case <-time.After(staleFor):
			case <-stopped:
				return
			}
		}
		if v.lens.kind != frozen {
			select {
			case out <- again:
			case <-stopped:
			}
			return
		}
	}
}

// isDue counts an event, and reports whether it is the one after which the view changes.
func (v *viewer) isDue() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events++
	return v.events == v.lens.after
}
