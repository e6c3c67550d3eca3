package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// each does something with so many objects, some at a time.
func (b *bench) each(count, atOnce int, do func(ctx context.Context, n int) error) error {
	group, ctx := errgroup.WithContext(b.ctx)
	group.SetLimit(atOnce)
	for n := range count {
		group.Go(func() error { return do(ctx, n) })
	}
	return group.Wait()
}

func name(kind string, n int) string { return fmt.Sprintf("%s%d", kind, n) }

// create makes so many images, and objects for them. Their finalizers are put on by the mutating policy.
func (b *bench) create(kind string, count int, usedBy ...string) error {
	return b.each(count, 32, func(ctx context.Context, n int) error {
		id := "m-" + name(kind, n)
		if err := b.cloud.PutImage(ecssim.Image{ImageID: id, RegionID: region, UsedBy: usedBy}); err != nil {
			return err
		}
		return b.client.Create(ctx, image(name(kind, n), region))
	})
}

func (b *bench) delete(kind string, count int) error {
	return b.each(count, 32, func(ctx context.Context, n int) error { return b.client.Delete(ctx, image(name(kind, n), region)) })
}

// observer follows what becomes of objects by a watch of its own.
type observer struct {
	mu            sync.Mutex
	seen, stalled map[string]time.Time // Ready is not Unknown; Stalled is True
	gone          map[string]time.Time
	stop          func()
}

// observe watches all objects, those that are there included, until the observer is stopped.
func (b *bench) observe() (*observer, error) {
	o := &observer{seen: map[string]time.Time{}, stalled: map[string]time.Time{}, gone: map[string]time.Time{}}
	ctx, stop := context.WithCancel(b.ctx)
	o.stop = stop
	objects, err := cache.New(b.config, cache.Options{Scheme: b.client.Scheme(), DefaultTransform: cache.TransformStripManagedFields(),
		DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	if err != nil {
		return nil, err
	}
	informer, err := objects.GetInformer(ctx, &v1alpha1.CustomImage{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    o.note,
		UpdateFunc: func(_, object any) { o.note(object) },
		DeleteFunc: o.noteGone,
	}); err != nil {
		return nil, err
	}
	go func() { _ = objects.Start(ctx) }()
	if !objects.WaitForCacheSync(ctx) {
		return nil, errors.New("the objects cannot be watched")
	}
	return o, nil
}

func (o *observer) noteGone(object any) {
	if lost, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = lost.Obj
	}
	if image, ok := object.(*v1alpha1.CustomImage); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.gone[image.Name] = time.Now()
	}
}

func (o *observer) note(object any) {
	image, ok := object.(*v1alpha1.CustomImage)
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady)
	if _, known := o.seen[image.Name]; !known && ready != nil && ready.Status != metav1.ConditionUnknown {
		o.seen[image.Name] = now
	}
	if _, known := o.stalled[image.Name]; !known && meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ConditionStalled) {
		o.stalled[image.Name] = now
	}
}

func (o *observer) count(of map[string]time.Time) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(of)
}

// await waits until so many are in one of the maps.
func (o *observer) await(ctx context.Context, of map[string]time.Time, count int, within time.Duration) error {
	for began := time.Now(); o.count(of) < count; time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > within {
			return fmt.Errorf("%d of %d after %s", o.count(of), count, within)
		}
	}
	return nil
}

// span returns the first and the last time in a map.
func (o *observer) span(of map[string]time.Time) (first, last time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range of {
		if first.IsZero() || t.Before(first) {
			first = t
		}
		if t.After(last) {
			last = t
		}
	}
	return first, last
}

// rate is how many there were in a second, from the first to the last.
func (o *observer) rate(of map[string]time.Time) float64 {
	first, last := o.span(of)
	return float64(o.count(of)-1) / last.Sub(first).Seconds()
}

// free removes the finalizer of an object, and does nothing else.
func (b *bench) free(ctx context.Context, object client.Object) error {
	return b.client.Patch(ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
}

// clear removes every object, whatever its state.
func (b *bench) clear() error {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImageList"))
	if err := b.client.List(b.ctx, list, client.InNamespace(namespace)); err != nil {
		return err
	}
	return b.each(len(list.Items), 32, func(ctx context.Context, n int) error {
		object := &list.Items[n]
		if object.DeletionTimestamp.IsZero() {
			if err := b.client.Delete(ctx, object); err != nil {
				return client.IgnoreNotFound(err)
			}
		}
		return client.IgnoreNotFound(b.free(ctx, object))
	})
}
