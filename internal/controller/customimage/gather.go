package customimage

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// refresh replaces the facts of the cluster by some that are new enough to delete an image: the object is read from the
// API server; for the others, proofs knows when the cache suffices. Facts about ECS that were found for another image
// or with another key are dropped.
func (g *gatherer) refresh(ctx context.Context, f decision.Facts) (decision.Facts, error) {
	cached, current := f.Image, &v1alpha1.CustomImage{}
	switch err := g.live.Get(ctx, client.ObjectKeyFromObject(cached), current); {
	case apierrors.IsNotFound(err):
		f.Absent = true
		return f, nil
	case err != nil:
		return f, err
	case current.UID != cached.UID || current.DeletionTimestamp.IsZero():
		f.Absent = true
		return f, nil
	}
	if asked(cached) != asked(current) {
		f = decision.Facts{Operator: g.operator}
	}
	f.Image = current
	g.tellTime(&f)
	var err error
	if f.CRD, f.Namespace, err = g.proofs.surroundings(ctx, g.cache, current); err != nil {
		return f, err
	}
	f.Rivals, err = g.proofs.rivals(ctx, g.cache, current, f.Now)
	return f, err
}

func (g *gatherer) tellTime(f *decision.Facts) {
	f.Now, f.Wait = g.clock.Now(), g.schedule.until(f.Image)
}

// asked is what a call of ECS about an object is about, and with which key.
func asked(image *v1alpha1.CustomImage) [3]string {
	return [3]string{image.Spec.ImageID, image.Spec.RegionID, image.Spec.CredentialsSecretRef.Name}
}
