package customimage

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// facts are all that a decision about one object rests on.
type facts struct {
	now time.Time
	// image is the object.
	image *v1alpha1.CustomImage
	// fresh means that the facts of the cluster are new enough to act on, and that no slow step came after them.
	fresh bool
	// absent means that a fresh read did not find the object, or another one of its name.
	absent bool
	// wait is how long the schedule has the object wait for its next attempt.
	wait time.Duration
	// crd and namespace are what the object is deleted together with; nil if they do not exist.
	crd, namespace *metav1.PartialObjectMetadata
	// rivals are the other objects for the same image.
	rivals []*v1alpha1.CustomImage
	// operator names the operator's identity in the cluster, as a flag of kubectl.
	operator string

	// account is the one that the access key belongs to; "" until the key is found.
	account string
	// shown is what ECS shows in this attempt; nil until it is asked.
	shown *showing
	// call is what became of DeleteImage in this attempt.
	call call
	// failure is what kept the attempt from the next fact or step.
	failure *failure.Error
	// blockers names the instances or accounts that block the deletion, as a sentence.
	blockers string
	// unnamed means that the blockers could not be listed, for no reason that lasts.
	unnamed bool
}

// showing is an answer of DescribeImages.
type showing struct{ image *ecs.Image } // nil if it shows no such image

// call is the state of DeleteImage in one attempt.
type call int

const (
	notCalled call = iota
	accepted       // ECS accepted the deletion, or answered that there is no such image
	refused        // ECS, or the way to it, answered anything else
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
func (g *gatherer) cached(ctx context.Context, image *v1alpha1.CustomImage) (f facts, err error) {
	f = facts{image: image, operator: g.operator}
	g.tellTime(&f)
	if f.crd, err = metadata(ctx, g.cache, crdMetadata(), crdName); err != nil {
		return f, err
	}
	if f.namespace, err = metadata(ctx, g.cache, namespaceMetadata(), image.Namespace); err != nil {
		return f, err
	}
	f.rivals, err = rivalsOf(ctx, g.cache, image)
	return f, err
}

// fresh replaces the facts of the cluster by some that are new enough to delete an image: the object is read from the
// API server; for the others, proofs knows when the cache suffices. Facts about ECS that were found for another image
// or with another key are dropped.
func (g *gatherer) fresh(ctx context.Context, f facts) (facts, error) {
	cached := f.image
	current := &v1alpha1.CustomImage{}
	err := g.live.Get(ctx, client.ObjectKeyFromObject(cached), current)
	f.absent = apierrors.IsNotFound(err) || err == nil && (current.UID != cached.UID || current.DeletionTimestamp.IsZero())
	if f.absent || err != nil {
		f.fresh = true
		return f, client.IgnoreNotFound(err)
	}
	if asksDifferently(cached, current) {
		f = facts{operator: f.operator}
	}
	f.image, f.fresh = current, true
	g.tellTime(&f)
	if f.crd, f.namespace, err = g.proofs.surroundings(ctx, g.cache, current); err != nil {
		return f, err
	}
	f.rivals, err = g.proofs.rivals(ctx, g.cache, current, f.now)
	return f, err
}

func (g *gatherer) tellTime(f *facts) { f.now, f.wait = g.clock.Now(), g.schedule.until(f.image) }

// asksDifferently reports whether the same question to ECS would now be another one.
func asksDifferently(before, after *v1alpha1.CustomImage) bool {
	a, b := before.Spec, after.Spec
	return a.ImageID != b.ImageID || a.RegionID != b.RegionID || a.CredentialsSecretRef != b.CredentialsSecretRef
}

// metadata reads the metadata of an object; nil if it does not exist.
func metadata(
	ctx context.Context, reader client.Reader, of *metav1.PartialObjectMetadata, name string,
) (*metav1.PartialObjectMetadata, error) {
	err := reader.Get(ctx, client.ObjectKey{Name: name}, of)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", of.Kind, name, err)
	}
	return of, nil
}
