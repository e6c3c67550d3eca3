package customimage

import (
	"context"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// observe is the flow for a live object: make sure of the finalizer, then find out what ECS shows. Nothing in it can
// change the image.
func (r *Reconciler) observe(ctx context.Context, image *v1alpha1.CustomImage) (facts, verdict, error) {
	if err := r.status.addFinalizer(ctx, image); err != nil {
		return facts{image: image, operator: r.config.Operator}, nil, err
	}
	f, err := r.gatherer.cached(ctx, image)
	if err != nil {
		return f, nil, err
	}
	cloud := session{cloud: r.cloud}
	v, err := cloud.decide(ctx, &f)
	return f, v, err
}
