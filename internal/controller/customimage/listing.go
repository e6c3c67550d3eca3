package customimage

import (
	"context"
	"maps"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

const (
	// listingForNew is how old a listing may be that a new object is looked up in if it was created after the listing, and
	// longestForNew if it was created before.
	listingForNew, longestForNew = 30 * time.Second, 30 * time.Minute

	// resyncShare is the part of the resync interval that a listing is used for: each lookup in it is that much less new.
	resyncShare = 10

	// listingPause is how long at least objects are looked at one by one when listing was not worth it, or failed.
	listingPause = 10 * time.Second
)

// listings answers looks at the images of live objects, by the page, where that takes fewer calls than one look for each.
// Nothing is destroyed on their word: a deleted object is looked at for itself. Only an image that is listed is found; for
// any other the listing is no answer.
type listings struct {
	cache  client.Reader
	clock  clock.PassiveClock
	resync time.Duration

	mu sync.Mutex
	by map[view]*listing
}

// view is what a listing shows: a region, as one access key sees it.
type view struct{ region, account, accessKeyID string }

// manyViews is how many listings are kept, also those that are too old. Temporary keys never come back.
const manyViews = 64

type listing struct {
	renewing sync.Mutex // held while it is read
	paused   time.Time  // until when it is not read again

	// These belong to the lock of listings.
	began   time.Time
	images  map[string]ecs.Image
	dropped map[string]bool // while it is read
}

// find returns the image of a live object, if a listing shows it; none if the object has to be looked at for itself. It also
// reports whether ECS was called.
func (l *listings) find(ctx context.Context, c *ecs.Client, of view, image *v1alpha1.CustomImage) (decision.Showing, bool, error) {
	if !mayBeLookedUp(image) {
		return decision.Showing{}, false, nil
	}
	isNew, oldest := image.Status.Image == nil, l.resync/resyncShare
	if isNew { // what a listing showed since its creation, a look of its own could have shown, had its turn come earlier
		oldest = min(oldest, longestForNew, max(listingForNew, l.clock.Since(image.CreationTimestamp.Time)))
	}
	entry := l.of(of)
	if found, isFresh := l.in(entry, image, oldest); isFresh {
		return found, false, nil
	}
	entry.renewing.Lock()
	defer entry.renewing.Unlock()
	found, isFresh := l.in(entry, image, oldest)
	if isFresh || l.clock.Now().Before(entry.paused) {
		return found, false, nil
	}
	isCalled, err := l.renew(ctx, c, entry, image, isNew)
	entry.paused = l.clock.Now().Add(listingPause)
	if failure.CodeOf(err) == failure.CodeNoAnswer {
		return decision.Showing{}, isCalled, err
	} else if err != nil { // a key may look at single images and not list them
		log.FromContext(ctx).Info("Could not list the images, and looks at them one by one", "region", of.region, "error", err.Error())
		return decision.Showing{}, isCalled, nil
	}
	found, _ = l.in(entry, image, oldest)
	return found, isCalled, nil
}

// in returns the image if the listing has it, and whether the listing is fresh enough to tell. One that began
// before the last look of the object is no answer.
func (l *listings) in(entry *listing, image *v1alpha1.CustomImage, oldest time.Duration) (decision.Showing, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := l.clock.Since(entry.began); age > oldest || age < 0 {
		return decision.Showing{}, false
	}
	synced := image.Status.LastSyncTime // in whole seconds
	if synced != nil && entry.began.Unix() < synced.Unix() {
		return decision.Showing{}, true
	}
	if found, ok := entry.images[image.Spec.ImageID]; ok {
		return decision.Showing{Image: &found, At: entry.began}, true
	}
	return decision.Showing{}, true
}

// mayBeLookedUp is false for an object that is being deleted, whose image was missing, whose user wants it looked at, or
// for which ECS last said something worse than a listing that may be older.
func mayBeLookedUp(image *v1alpha1.CustomImage) bool {
	status := image.Status
	return image.DeletionTimestamp.IsZero() && status.MissingSince == nil &&
		status.LastHandledRetryAt == decision.RetryAt(image) && decision.ObstacleOf(image) == nil
}

// renew makes a listing if that takes fewer calls than the looks that it saves, and reports whether ECS was called.
func (l *listings) renew(ctx context.Context, c *ecs.Client, entry *listing, image *v1alpha1.CustomImage, isNew bool) (bool, error) {
	looks, err := l.looks(ctx, image, isNew)
	if err != nil || looks < 2 {
		return false, err
	}
	began := l.clock.Now().Round(0) // the time of day: the other one stands still while a machine is suspended
	l.mu.Lock()
	entry.dropped = map[string]bool{}
	l.mu.Unlock()
	listed, pages, err := c.ListImages(ctx, image.Spec.RegionID, looks-1)
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped := entry.dropped
	entry.dropped = nil
	if err != nil || pages >= looks {
		return true, err
	}
	entry.began, entry.images = began, make(map[string]ecs.Image, len(listed))
	for _, found := range listed {
		if !dropped[found.ImageID] {
			entry.images[found.ImageID] = found
		}
	}
	return true, nil
}

// looks counts the objects of the same region and key that a listing would spare a look: those that are new now, or
// those whose resync is due while it is used.
func (l *listings) looks(ctx context.Context, of *v1alpha1.CustomImage, isNew bool) (count int, err error) {
	list := &v1alpha1.CustomImageList{}
	if err := l.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return 0, err
	}
	for i := range list.Items {
		image := &list.Items[i]
		if image.Spec.RegionID == of.Spec.RegionID && keyOf(image) == keyOf(of) && mayBeLookedUp(image) &&
			(image.Status.Image == nil) == isNew {
			count++
		}
	}
	if !isNew {
		count /= resyncShare
	}
	return count, nil
}

// drop forgets an image before its deletion is called.
func (l *listings) drop(regionID, imageID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for of, entry := range l.by {
		if of.region != regionID {
			continue
		}
		delete(entry.images, imageID)
		if entry.dropped != nil {
			entry.dropped[imageID] = true
		}
	}
}

func (l *listings) of(v view) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[view]*listing{}
	}
	if len(l.by) >= manyViews {
		maps.DeleteFunc(l.by, func(_ view, entry *listing) bool {
			return entry.dropped == nil && l.clock.Since(entry.began) > l.resync/resyncShare
		})
	}
	if l.by[v] == nil {
		l.by[v] = &listing{}
	}
	return l.by[v]
}
