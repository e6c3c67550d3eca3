// Package customimage reconciles CustomImages: it observes the images of live ones, and deletes those of deleted ones.
// It alone calls DeleteImage.
//
// It knows the objects, their finalizer, conditions and events, and when to call ECS. What may happen to an object is
// decided in package decision, from facts about the cluster (gather.go) and ECS (attempt.go); two flows (observe.go,
// delete.go) collect them in order. It does not know how ECS is called, nor where access keys come from.
package customimage

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// Config is what a Reconciler requires.
type Config struct {
	// Client reads from the cache, and writes.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// ECS is called with the keys that Credentials finds.
	ECS         *ecs.Client
	Credentials *credentials.Source
	// Operator names the operator's identity in the cluster, as a flag of kubectl: --serviceaccount=NAMESPACE:NAME.
	Operator string
	Events   events.EventRecorder
	Clock    clock.WithDelayedExecution

	// Waiting and Blocked say how often the operator retries while an obstacle ends without help, and while a user has
	// to clear it.
	Waiting, Blocked Backoff
	// Resync is how often a live image is checked in ECS.
	Resync time.Duration
	// MaxConcurrentReconciles bounds how many objects of one region, account or source of keys are worked on at once, and
	// so the concurrent calls of ECS. A quarter more, and at least 3, is left for others.
	MaxConcurrentReconciles int
	// Namespaces are the watched ones; none for all. With several watches, nothing proves how new the cache is.
	Namespaces []string
}

// Reconciler observes and deletes images.
type Reconciler struct {
	config   Config
	gatherer gatherer
	cloud    cloud
	status   writer
	schedule *schedule
	proofs   *proofs
	failures workqueue.TypedRateLimiter[reconcile.Request]
}

// New returns a reconciler that remembers nothing yet.
func New(config Config) *Reconciler {
	plan := &schedule{
		waiting: config.Waiting, blocked: config.Blocked, resync: config.Resync, clock: config.Clock,
		known: map[types.NamespacedName]due{},
	}
	proofs := &proofs{live: config.Live, clock: config.Clock, window: batchWindow, shared: map[string]*sharedRead{}}
	return &Reconciler{
		config: config,
		gatherer: gatherer{
			cache: config.Client, live: config.Live, proofs: proofs, schedule: plan, operator: config.Operator, clock: config.Clock,
		},
		cloud: cloud{
			ecs: config.ECS, keys: config.Credentials, shares: newShares(config.MaxConcurrentReconciles, config.Clock),
			listings: &listings{cache: config.Client, clock: config.Clock, resync: config.Resync}, clock: config.Clock,
		},
		status: writer{
			client: client.WithFieldOwner(config.Client, fieldOwner), events: config.Events, clock: config.Clock,
			wrote: proofs.wrote, ends: proofs.ends,
		},
		schedule: plan,
		proofs:   proofs,
		failures: newFailureLimiter(),
	}
}

// fieldOwner is the name of the operator in managedFields.
const fieldOwner = "ecs-image-gc"

// +kubebuilder:rbac:groups=ecs.imagegc.io,resources=customimages,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=ecs.imagegc.io,resources=customimages/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,resourceNames=customimages.ecs.imagegc.io,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create

// Reconcile makes at most one attempt for one object.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	image := &v1alpha1.CustomImage{}
	if err := r.config.Client.Get(ctx, request.NamespacedName, image); err != nil {
		if apierrors.IsNotFound(err) {
			r.schedule.forget(request.NamespacedName)
		}
		r.cloud.shares.finish(request, nil)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	flow := flow(r.observe)
	if !image.DeletionTimestamp.IsZero() {
		flow = r.delete
	}
	a := &attempt{cloud: r.cloud, facts: decision.Facts{Image: image, Operator: r.config.Operator}}
	v, err := r.follow(ctx, flow, request, a)
	// What became known is recorded also when the manager stops.
	return r.conclude(context.WithoutCancel(ctx), a.facts, v, err)
}

// follow follows a flow to its verdict. Then the calls are over, and what is left to do takes no worker from others.
func (r *Reconciler) follow(
	ctx context.Context, flow flow, request ctrl.Request, a *attempt,
) (decision.Verdict, error) {
	defer func() { r.cloud.shares.finish(request, a.claim) }()
	return flow(ctx, a)
}

// flow collects the facts about an object, and acts on them up to the verdict that ends the attempt.
type flow func(ctx context.Context, a *attempt) (decision.Verdict, error)

// conclude carries out the verdict that ends an attempt, or reports why there is none, and returns when the next attempt
// is due.
func (r *Reconciler) conclude(
	ctx context.Context, f decision.Facts, v decision.Verdict, err error,
) (result ctrl.Result, _ error) {
	if end, ok := v.(decision.LetGo); ok {
		if err = r.status.release(ctx, f, end); err == nil {
			r.schedule.forget(client.ObjectKeyFromObject(f.Image))
			return ctrl.Result{}, nil
		}
	}
	if failure := decision.FailureOf(err); failure != nil {
		f.Failure = failure
		v, err = decision.Explain(f), nil
	}
	if err == nil {
		result, err = r.tell(ctx, f, v)
	}
	r.keepAcceptance(ctx, f)
	r.keepLook(f)
	if apierrors.IsConflict(err) && f.Call != decision.Refused { // another client changed the object: again when the cache has that
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	return result, err
}

// keepAcceptance records that ECS accepted the deletion if no report did: while another client changes the object, or
// for a hiccup that is not worth a word. What the API server does not take is remembered, and so is a call that may have
// been accepted. An image that neither DeleteImage nor a look finds is deleted, too.
func (r *Reconciler) keepAcceptance(ctx context.Context, f decision.Facts) {
	var accepted, unconfirmed time.Time
	switch {
	case isRecorded(f):
		return
	case f.Call == decision.NotThere && f.Shown != nil && f.Shown.Image == nil: // and the finalizer could not be removed
		accepted = f.Now
	case !f.AcceptedAt().IsZero():
		if err := r.status.recordAcceptance(ctx, f); err != nil {
			log.FromContext(ctx).Error(err, "Could not record that ECS accepted the deletion", "imageID", f.Image.Spec.ImageID)
			accepted = f.AcceptedAt()
		}
	case f.Call == decision.Refused && decision.IsUnanswered(f.Failure):
		unconfirmed = f.Now
	case f.Call != decision.Refused || !decision.Judges(f.Failure):
		return
	}
	r.schedule.remember(f.Image, func(d *due) { d.accepted, d.unconfirmed = accepted, unconfirmed })
}

// keepLook remembers a look that did not show the image if the status could not be told: DeleteImage must not be called on
// the word of an older look.
func (r *Reconciler) keepLook(f decision.Facts) {
	if f.Shown != nil && f.Call != decision.Accepted && f.Call != decision.NotThere {
		unshown := f.Shown.Image == nil && f.Image.Status.MissingSince == nil
		r.schedule.remember(f.Image, func(d *due) { d.unshown = unshown })
	}
}

// isRecorded reports whether the status says when ECS accepted the deletion, in this life of the object.
func isRecorded(f decision.Facts) bool {
	recorded, accepted := f.Image.Status.DeletionAcceptedTime, f.AcceptedAt()
	return recorded != nil && recorded.Unix() == accepted.Unix()
}

// tell writes a report where it is due.
func (r *Reconciler) tell(ctx context.Context, f decision.Facts, v decision.Verdict) (ctrl.Result, error) {
	switch v := v.(type) {
	case decision.WaitFor:
		return ctrl.Result{RequeueAfter: time.Duration(v)}, nil
	case decision.Report:
		if err := r.status.write(ctx, f, v); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{RequeueAfter: r.schedule.plan(f.Image)}, nil
	case decision.Retry:
		switch {
		case v.Throttled:
			return r.tellThrottled(ctx, f, v)
		case v.Err.Wait > 0:
			return r.tellInLine(ctx, f, v)
		}
		return ctrl.Result{}, r.tellFailed(ctx, f, v)
	}
	return ctrl.Result{}, nil
}

// tellThrottled says nothing as long as the quota keeps an object waiting for less than a minute.
func (r *Reconciler) tellThrottled(ctx context.Context, f decision.Facts, v decision.Retry) (ctrl.Result, error) {
	if r.schedule.throttled(f.Image, v.Err.Wait) >= time.Minute {
		if err := r.status.write(ctx, f, v.Report); err != nil {
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{RequeueAfter: max(v.Err.Wait, time.Millisecond)}, nil
}

// tellInLine says why an object waits that was not attempted, since others get no answer.
func (r *Reconciler) tellInLine(ctx context.Context, f decision.Facts, v decision.Retry) (ctrl.Result, error) {
	if err := r.status.write(ctx, f, v.Report); err != nil {
		return ctrl.Result{}, err
	}
	r.schedule.failed(f.Image)
	return ctrl.Result{RequeueAfter: v.Err.Wait}, nil
}

// tellFailed returns the error, which has the work queue space the attempts. One hiccup is not worth a word, the
// second is.
func (r *Reconciler) tellFailed(ctx context.Context, f decision.Facts, v decision.Retry) error {
	if r.failures.NumRequeues(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(f.Image)}) > 0 {
		if err := r.status.write(ctx, f, v.Report); err != nil {
			return err
		}
	}
	r.schedule.failed(f.Image)
	return fmt.Errorf("image %s in %s: %w", f.Image.Spec.ImageID, f.Image.Spec.RegionID, v.Err)
}
