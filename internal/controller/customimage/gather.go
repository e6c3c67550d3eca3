package customimage

import (
	"context"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

// gatherer collects the facts of the cluster.
type gatherer struct {
	cache    client.Reader
	live     client.Reader // reads from the API server
	proofs   *proofs
	schedule *schedule
	operator string
	clock    clock.PassiveClock
}

// cached returns the facts as the cache has them.
func (g *gatherer) cached(ctx context.Context, image *v1alpha1.CustomImage) (f decision.Facts, err error) {
	f = decision.Facts{Image: image, Operator: g.operator}
	g.tellTime(&f)
	if f.CRD, err = metadata(ctx, g.cache, definition()); err != nil {
		return f, err
	}
	if f.Namespace, err = metadata(ctx, g.cache, namespaceNamed(image.Namespace)); err != nil {
		return f, err
	}
	f.Rivals, err = rivalsOf(ctx, g.cache, image)
	return f, err
}

// refresh replaces the facts of the cluster by some that are new enough to delete an image, and reports whether they
// are: what the object is deleted together with and its rivals, of which proofs knows when the cache suffices, and last
// the object itself, from the API server. If ECS would now be asked about something else, or with another key, what it
// answered is dropped, and the facts are not fresh yet.
func (g *gatherer) refresh(ctx context.Context, f decision.Facts) (_ decision.Facts, fresh bool, err error) {
	cached := f.Image
	if f.CRD, f.Namespace, err = g.proofs.surroundings(ctx, g.cache, cached); err != nil {
		return f, false, err
	}
	if f.Rivals, err = g.proofs.rivals(ctx, g.cache, cached, g.clock.Now()); err != nil {
		return f, false, err
	}
	current, err := g.current(ctx, cached)
	if err != nil {
		return f, false, err
	}
	if current == nil || current.DeletionTimestamp.IsZero() {
		f.Absent = true
		return f, true, nil
	}
	fresh = asked(cached) == asked(current)
	if !fresh {
		f = decision.Facts{Operator: f.Operator, CRD: f.CRD, Namespace: f.Namespace}
	}
	f.Image = current
	g.tellTime(&f)
	return f, fresh, nil
}

// current returns the object as the API server has it; nil if it does not exist, or another one has its name. The metadata
// is enough if it is the known one: a resource version stands for one state of the whole object. After etcd was restored,
// versions are given out again, so what decides is compared too.
func (g *gatherer) current(ctx context.Context, known *v1alpha1.CustomImage) (*v1alpha1.CustomImage, error) {
	key := client.ObjectKeyFromObject(known)
	found, err := metadata(ctx, g.live, metadataOf(customImageKind, key))
	switch {
	case err != nil || found == nil || found.UID != known.UID:
		return nil, err
	case found.ResourceVersion == known.ResourceVersion && found.DeletionTimestamp.Equal(known.DeletionTimestamp) &&
		!isChanged(known, found):
		return known, nil
	}
	image := &v1alpha1.CustomImage{}
	err = g.live.Get(ctx, key, image)
	if isAbsent(err) || err == nil && image.UID != known.UID {
		return nil, nil
	}
	return image, err
}

func (g *gatherer) tellTime(f *decision.Facts) {
	f.Now, f.Wait = g.clock.Now(), g.schedule.until(f.Image)
	f.Waited = g.schedule.waited(f.Image)
	f.Accepted, f.Unconfirmed, f.Unshown = g.schedule.found(f.Image)
}

// asked is what a call of ECS about an object is about, and with which key.
func asked(image *v1alpha1.CustomImage) [3]string {
	return [3]string{image.Spec.ImageID, image.Spec.RegionID, image.Spec.CredentialsSecretRef.Name}
}
