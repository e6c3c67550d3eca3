package customimage

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// cloud collects the facts of ECS.
type cloud struct {
	ecs  *ecs.Client
	keys *credentials.Source
}

// attempt is one attempt for one object. ECS is called with one access key, found once: the account that is decided on
// is the account that is called.
type attempt struct {
	cloud cloud
	ecs   *ecs.Client // nil until the key is found
	facts decision.Facts
	// fresh means that the facts of the cluster are new enough to act on, and that no slow step came after them.
	fresh bool
}

// decide finds the key and looks at the image as far as the decision requires it, and returns the verdict.
func (a *attempt) decide(ctx context.Context) (decision.Verdict, error) {
	for {
		step := a.look
		switch v := decision.Decide(a.facts); v.(type) {
		case decision.FindKey:
			step = a.findKey
		case decision.Look:
		default:
			return v, nil
		}
		// These take time, in which the object may change. After the call, it is too late for that.
		a.fresh = a.facts.Call != decision.NotCalled
		if err := step(ctx); err != nil {
			if a.facts.Failure = decision.FailureOf(err); a.facts.Failure == nil {
				return nil, err
			}
		}
	}
}

func (a *attempt) findKey(ctx context.Context) error {
	f := &a.facts
	key, err := a.cloud.keys.For(ctx, f.Image.Namespace, f.Image.Spec.CredentialsSecretRef.Name)
	if err != nil {
		return err
	}
	a.ecs, f.Account = a.cloud.ecs.As(key), key.AccountID
	return nil
}

// look asks ECS for the image. Before an answer without it is believed, a dry run asks whether the key may look at all:
// ECS has answered keys without the permission with an empty list. After ECS accepted a deletion, the acceptance is the
// evidence.
func (a *attempt) look(ctx context.Context) error {
	f, spec := &a.facts, a.facts.Image.Spec
	found, err := a.ecs.FindImage(ctx, spec.RegionID, spec.ImageID)
	if err != nil {
		return err
	}
	if found == nil && f.Call != decision.Accepted {
		if err := a.ecs.CheckDescribe(ctx, spec.RegionID, spec.ImageID); err != nil {
			return err
		}
	}
	if found != nil {
		found.OwnerID = cmp.Or(found.OwnerID, f.Account) // only its own images were asked for
	}
	f.Shown = &decision.Showing{Image: found}
	return nil
}

// deleteImage calls DeleteImage. That it succeeds proves nothing about the image: a look has to show that it is gone.
func (a *attempt) deleteImage(ctx context.Context) error {
	f := &a.facts
	spec, force := f.Image.Spec, ptr.Deref(f.Image.Spec.Force, false)
	requestID, err := a.ecs.DeleteImage(ctx, spec.RegionID, spec.ImageID, force)
	f.Shown = nil
	if err == nil {
		f.Call = decision.Accepted
		log.FromContext(ctx).Info("Called DeleteImage", "imageID", spec.ImageID, "regionID", spec.RegionID,
			"accountID", f.Account, "force", force, "requestID", requestID)
		return nil
	}
	f.Failure = decision.FailureOf(err)
	switch {
	case f.Failure == nil:
		return err
	case decision.MeaningOf(f.Failure.Action, f.Failure.Code).Class == ecs.Gone:
		f.Call, f.Failure = decision.NotThere, nil
	default:
		f.Call = decision.Refused
		a.nameBlockers(ctx)
	}
	return nil
}

// How many instances and accounts a message names. There may be hundreds of instances; an image that is shared has to
// be taken back from each account.
const (
	mostInstances = 5
	mostAccounts  = 100
)

// nameBlockers finds out what uses or shares the image, by one more call, if the access key may make it.
func (a *attempt) nameBlockers(ctx context.Context) {
	f := &a.facts
	ask, what, most := a.ecs.InstancesOf, "instances", mostInstances
	switch decision.MeaningOf(f.Failure.Action, f.Failure.Code).Condition {
	case v1alpha1.ConditionInUse:
	case v1alpha1.ConditionShared:
		ask, what, most = a.ecs.AccountsOf, "accounts", mostAccounts
	default:
		return
	}
	ids, more, err := ask(ctx, f.Image.Spec.RegionID, f.Image.Spec.ImageID)
	refusal := decision.FailureOf(err)
	switch {
	case err == nil:
		f.Blockers = nameFew(what, ids, most, more)
	case refusal != nil && decision.MeaningOf(refusal.Action, refusal.Code).Class == ecs.Denied:
		f.Blockers = fmt.Sprintf(" To list the %s, grant %s.", what, refusal.Action)
	default:
		f.Unnamed = true // better what was known before than another message for each hiccup
	}
}

func nameFew(what string, ids []string, most int, more bool) string {
	if len(ids) == 0 { // an image can be shared by a resource share too, which is not listed here
		return fmt.Sprintf(" ECS lists no %s that this key can see.", what)
	}
	named := ids[:min(len(ids), most)]
	for i, id := range named {
		named[i] = decision.Clip(id, 64)
	}
	text := fmt.Sprintf(" The %s: %s", what, strings.Join(named, ", "))
	switch left := len(ids) - len(named); {
	case more && left > 0:
		text += fmt.Sprintf(" and more than %d more", left)
	case more:
		text += " and more"
	case left > 0:
		text += fmt.Sprintf(" and %d more", left)
	}
	return text + "."
}
