package customimage

import (
	"context"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

// observe is the flow for a live object: make sure of the finalizer, then find out what ECS shows. Nothing in it can
// change the image.
func (r *Reconciler) observe(ctx context.Context, a *attempt) (decision.Verdict, error) {
	exists, err := r.status.addFinalizer(ctx, a.facts.Image)
	if err != nil {
		return nil, err
	}
	if !exists {
		return decision.Nothing{}, nil
	}
	if a.facts, err = r.gatherer.cached(ctx, a.facts.Image); err != nil {
		return nil, err
	}
	return a.decide(ctx)
}
