package customimage

import (
	"context"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

// rounds bounds how often an attempt decides: it begins again when the object changes under it.
const rounds = 8

// delete is the flow for a deleted object. It decides by the facts of the cache. If that comes to anything but to wait,
// it decides again by fresh facts, and only then acts. After DeleteImage, what it did is found out and recorded also
// if the manager stops.
func (r *Reconciler) delete(ctx context.Context, a *attempt) (decision.Verdict, error) {
	var err error
	a.facts, err = r.gatherer.cached(ctx, a.facts.Image)
	for range rounds {
		var v decision.Verdict
		if err == nil {
			v, err = a.decide(ctx)
		}
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case decision.WaitFor, decision.Nothing:
			return v, nil
		case decision.Retry:
			if v.Err.Wait > 0 { // for the quota or for answers: nothing fresh is required to say that
				return v, nil
			}
		case decision.Note:
			a.fresh, err = false, r.status.write(ctx, a.facts, v.Report)
			continue
		}
		_, deletes := v.(decision.DeleteImage)
		switch {
		case !a.fresh:
			a.facts, a.fresh, err = r.gatherer.refresh(ctx, a.facts)
		case deletes:
			ctx = context.WithoutCancel(ctx)
			err = a.deleteImage(ctx)
		default:
			return v, nil
		}
	}
	return decision.WaitFor(time.Second), err
}
