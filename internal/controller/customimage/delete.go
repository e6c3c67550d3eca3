package customimage

import (
	"context"
	"time"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// rounds bounds how often an attempt decides: it begins again when the object changes under it.
const rounds = 8

// delete is the flow for a deleted object. It decides by the facts of the cache. If that comes to anything but to wait,
// it decides again by fresh facts, and only then acts. After DeleteImage, what it did is found out and recorded also
// if the manager stops.
func (r *Reconciler) delete(ctx context.Context, image *v1alpha1.CustomImage) (facts, verdict, error) {
	f, err := r.gatherer.cached(ctx, image)
	cloud := session{cloud: r.cloud}
	for range rounds {
		var v verdict
		if err == nil {
			v, err = cloud.decide(ctx, &f)
		}
		if err != nil {
			return f, nil, err
		}
		switch v := v.(type) {
		case waitFor, nothing:
			return f, v, nil
		case note:
			f.fresh, err = false, r.status.write(ctx, f, v.report)
			continue
		}
		_, deletes := v.(deleteImage)
		switch {
		case !f.fresh:
			f, err = r.gatherer.fresh(ctx, f)
		case deletes:
			ctx = context.WithoutCancel(ctx)
			err = cloud.deleteImage(ctx, &f)
		default:
			return f, v, nil
		}
	}
	return f, waitFor(time.Second), err
}
