package customimage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

const (
	// recent is how long before a deletion a change of another object must have been made to be respected for certain.
	// A cache that is proven to be at most this old need not be asked about.
	recent = 10 * time.Second

	// apiServerSkew bounds how much the clocks of two API servers differ when they stamp two objects.
	apiServerSkew = 5 * time.Second

	// batchWindow is how long at most a deletion waits to share its read of a namespace with others.
	batchWindow = 200 * time.Millisecond
)

// proofs knows how new the cache is, and reads from the API server what the cache cannot prove. Its arguments are
// in docs/design.md, "Fresh, and cheap".
type proofs struct {
	live  client.Reader
	clock clock.PassiveClock
	// revision returns the resource version up to which the cache has seen all CustomImages. It is nil if the cache has
	// several watches, whose events have no common order.
	revision func() string
	window   time.Duration

	mu       sync.Mutex
	shared   map[string]*sharedRead
	written  []write               // that the cache has not shown yet, in order
	ended    map[types.UID]*ending // the objects that a write of ours ends, until the cache shows that
	asOf     time.Time             // the cache has all that was written before
	observed string                // the highest resource version of a CustomImage that was seen
}

// write is one of our own writes to a CustomImage.
type write struct {
	resourceVersion string
	sent            time.Time
}

// wrote tells of a write that was sent at a time and came back with a resource version.
func (p *proofs) wrote(resourceVersion string, sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.written) < 1024 { // enough to prove the age of any cache that is not far behind
		p.written = append(p.written, write{resourceVersion, sent})
	}
}

// ending is a write that removes the last finalizer. The resource version that comes back is the one from before: the end
// of the object is what the cache shows.
type ending struct {
	sent        time.Time
	done, shown bool
}

// ends tells of a write that is sent now, and ends an object if it succeeds. What it returns is told the result.
func (p *proofs) ends(uid types.UID, sent time.Time) (result func(succeeded bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended == nil {
		p.ended = map[types.UID]*ending{}
	}
	p.ended[uid] = &ending{sent: sent}
	return func(succeeded bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if e := p.ended[uid]; succeeded && e != nil {
			e.done = true
			p.settle(uid, e)
		} else {
			delete(p.ended, uid)
		}
	}
}

// showsEnd tells that the cache shows the end of an object: by an event of the watch, or because a new list lacks it.
// Of such a list the cache may not have all yet, so that proves nothing.
func (p *proofs) showsEnd(uid types.UID, byEvent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := p.ended[uid]; {
	case e == nil:
	case byEvent:
		e.shown = true
		p.settle(uid, e)
	default:
		delete(p.ended, uid)
	}
}

// settle counts an ending as a proof once it has succeeded and come back.
func (p *proofs) settle(uid types.UID, e *ending) {
	if !e.done || !e.shown {
		return
	}
	delete(p.ended, uid)
	if p.revision != nil && e.sent.After(p.asOf) {
		p.asOf = e.sent
	}
}

// isCurrent reports whether the cache is known to have all other objects for an image that count for its deletion.
//
// In one watch, events come in the order of their revisions, so the cache that shows the deletion of this object has
// all that was written before it. It has what was written later if one of our own later writes came back. An object
// that was created later owns nothing of this one's, as far as clocks can be trusted.
func (p *proofs) isCurrent(image *v1alpha1.CustomImage, now time.Time) bool {
	lived := image.DeletionTimestamp.Sub(image.CreationTimestamp.Time)
	if p.revision == nil || lived < apiServerSkew {
		return false
	}
	if image.Status.Image == nil {
		return false
	}
	return isRecent(image.DeletionTimestamp.Time, now) || isRecent(p.provenAsOf(), now)
}

// isRecent compares by the wall clock: the monotonic one stands still while a node is suspended.
func isRecent(t, now time.Time) bool {
	age := now.Round(0).Sub(t.Round(0))
	return age >= -apiServerSkew && age <= recent
}

func (p *proofs) provenAsOf() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, shown := p.revision(), 0
	for ; shown < len(p.written) && atLeast(seen, p.written[shown].resourceVersion); shown++ {
		if sent := p.written[shown].sent; sent.After(p.asOf) {
			p.asOf = sent
		}
	}
	p.written = slices.Delete(p.written, 0, shown)
	return p.asOf
}

// atLeast reports whether a resource version is known to be as new as another one.
func atLeast(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order >= 0
}

// rivals returns the other objects for the image: those that the cache names, each read from the API server and, where
// the cache is not proven to name all of them, a list from there.
func (p *proofs) rivals(
	ctx context.Context, cache client.Reader, image *v1alpha1.CustomImage, now time.Time,
) ([]*v1alpha1.CustomImage, error) {
	var rivals []*v1alpha1.CustomImage
	if !p.isCurrent(image, now) {
		listed, err := rivalsOf(ctx, p.live, image)
		if err != nil {
			return nil, err
		}
		rivals = listed
	}
	named, err := rivalsOf(ctx, cache, image)
	for _, rival := range named {
		if slices.ContainsFunc(rivals, func(known *v1alpha1.CustomImage) bool { return known.UID == rival.UID }) {
			continue
		}
		current := &v1alpha1.CustomImage{}
		err := p.live.Get(ctx, client.ObjectKeyFromObject(rival), current)
		if err != nil && !isAbsent(err) {
			return nil, fmt.Errorf("read CustomImage %s/%s: %w", rival.Namespace, rival.Name, err)
		}
		if err == nil && slices.Contains(imagesOf(current), image.Spec.ImageID) {
			rivals = append(rivals, current)
		}
	}
	return rivals, err
}

// sharedRead is a read of the API server that serves every object that was deleted before it.
type sharedRead struct {
	mu     sync.Mutex
	result *metav1.PartialObjectMetadata // nil: does not exist
	upTo   string                        // the newest CustomImage that was seen before the read
	ended  time.Time
}

// surroundings returns the metadata of CRD and namespace. A cascade deletes these before the objects in them, so a
// read that begins after the deletion of the object was seen shows it. One that the cache shows to be deleted is read
// again: a user may have changed its annotation since.
func (p *proofs) surroundings(
	ctx context.Context, cache client.Reader, image *v1alpha1.CustomImage,
) (crd, namespace *metav1.PartialObjectMetadata, err error) {
	if crd, err = p.read(ctx, cache, definition(), image); err != nil {
		return nil, nil, err
	}
	namespace, err = p.read(ctx, cache, namespaceNamed(image.Namespace), image)
	return crd, namespace, err
}

func (p *proofs) read(
	ctx context.Context, cache client.Reader, of *metav1.PartialObjectMetadata, image *v1alpha1.CustomImage,
) (*metav1.PartialObjectMetadata, error) {
	cached, err := metadata(ctx, cache, of)
	if err != nil {
		return nil, err
	}
	if decision.IsEnding(cached) {
		p.drop(of.Kind + of.Name)
		return metadata(ctx, p.live, of)
	}
	shared := p.readOf(of.Kind + of.Name)
	p.see(image.ResourceVersion)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !atLeast(shared.upTo, image.ResourceVersion) || !isRecent(shared.ended, p.clock.Now()) {
		left := min(p.window-p.clock.Since(shared.ended), p.window) // no more than that after the clock was set back
		if err := pause(ctx, left); err != nil {
			return nil, err
		}
		upTo := p.see(image.ResourceVersion)
		result, err := metadata(ctx, p.live, of)
		if err != nil {
			return nil, err // what was read before still counts, for those that it is new enough for
		}
		shared.result, shared.upTo, shared.ended = result, upTo, p.clock.Now()
	}
	return shared.result, nil
}

func (p *proofs) drop(of string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.shared, of)
}

// pause lets other deletions join a read.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// see tells of a resource version of a CustomImage, and returns the highest one known.
func (p *proofs) see(resourceVersion string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	versions := []string{resourceVersion}
	if p.revision != nil {
		versions = append(versions, p.revision())
	}
	for _, version := range versions {
		if version != "" && !atLeast(p.observed, version) {
			p.observed = version
		}
	}
	return p.observed
}

func (p *proofs) readOf(of string) *sharedRead {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shared[of] == nil {
		p.shared[of] = &sharedRead{}
	}
	return p.shared[of]
}
