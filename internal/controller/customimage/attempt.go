package customimage

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// cloud collects the facts of ECS.
type cloud struct {
	ecs      *ecs.Client
	keys     *credentials.Source
	shares   *shares
	listings *listings
	clock    clock.PassiveClock
}

// attempt is one attempt for one object. ECS is called with one access key, found once: the account that is decided on
// is the account that is called.
type attempt struct {
	cloud cloud
	ecs   *ecs.Client // has no key until it is found
	view  view        // of that key
	facts decision.Facts
	// fresh means that the facts of the cluster are new enough to act on, and that no slow step came after them.
	fresh bool
	// claim is what the attempt has a part of while it may call; nil if it may not.
	claim *claim
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
		if a.claim == nil {
			if wait := a.admit(); wait > 0 {
				return decision.WaitFor(wait), nil
			} else if a.facts.Failure != nil {
				continue
			}
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

// admit asks for a turn in the quota of the account and for a worker, before the attempt reads or calls anything. If it
// has to wait for a reason that a user may be told, that is the failure of the attempt.
func (a *attempt) admit() (wait time.Duration) {
	f := &a.facts
	image, spec := f.Image, f.Image.Spec
	account, deletes := decision.AccountOf(*f), decision.CallsDeleteImage(*f)
	c := claim{region: "region " + spec.RegionID, key: keyOf(image), quota: fmt.Sprint("quota ", account, spec.RegionID, deletes)}
	a.ecs = a.cloud.ecs.For(string(image.UID))
	if account != "" {
		c.account = "account " + account
		f.Failure = decision.FailureOf(a.ecs.Reserve(account, spec.RegionID, deletes))
		if f.Failure != nil {
			return 0
		}
	}
	began := image.CreationTimestamp
	if image.DeletionTimestamp != nil {
		began = *image.DeletionTimestamp
	}
	// Those that were there before this process, and those that were refused before, let the others have every second turn.
	isPatient := began.Time.Before(a.cloud.shares.started) || meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ConditionStalled)
	refusal, entered := a.cloud.shares.enter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(image)}, c, isPatient)
	switch {
	case entered:
		a.claim = &c
	case refusal == nil:
		return longestLine
	}
	f.Failure = refusal
	return 0
}

// keyOf names where an object's access key comes from.
func keyOf(image *v1alpha1.CustomImage) string {
	secret := image.Spec.CredentialsSecretRef.Name
	if secret == "" {
		return "key"
	}
	return "key " + image.Namespace + "/" + secret
}

// heard tells what a call of ECS concerned whether it was answered.
func (a *attempt) heard(err error) {
	if e := decision.FailureOf(err); err == nil || e != nil {
		a.cloud.shares.heard(a.claim.region, unanswered(e))
		a.cloud.shares.heard(a.claim.quota, unanswered(e))
	}
}

// unanswered returns a failure if it is that no answer came.
func unanswered(e *failure.Error) *failure.Error {
	if e != nil && e.Code == failure.CodeNoAnswer {
		return e
	}
	return nil
}

func (a *attempt) findKey(ctx context.Context) error {
	f := &a.facts
	key, err := a.cloud.keys.For(ctx, f.Image.Namespace, f.Image.Spec.CredentialsSecretRef.Name)
	if e := decision.FailureOf(err); err == nil || e != nil {
		a.cloud.shares.heard(a.claim.key, unanswered(e))
	}
	if err != nil {
		return err
	}
	a.ecs, f.Account = a.ecs.As(key), key.AccountID
	a.view = view{f.Image.Spec.RegionID, key.AccountID, key.AccessKeyID}
	return nil
}

// look finds out whether ECS has the image. Before an answer without it is believed, a dry run asks whether the key may
// look at all: ECS has answered keys without the permission with an empty list. After ECS accepted a deletion, the
// acceptance is the evidence.
func (a *attempt) look(ctx context.Context) error {
	f, spec := &a.facts, a.facts.Image.Spec
	shown, err := a.show(ctx)
	switch {
	case err != nil:
		return err
	case shown.Image != nil:
		shown.Image.OwnerID = cmp.Or(shown.Image.OwnerID, f.Account) // only its own images were asked for
	case f.Call != decision.Accepted:
		if err := a.ecs.CheckDescribe(ctx, spec.RegionID, spec.ImageID); err != nil {
			return err
		}
	}
	f.Shown = &shown
	return nil
}

// show returns what a listing shows of the image or, if that has not shown it, what ECS answers for this image alone.
func (a *attempt) show(ctx context.Context) (decision.Showing, error) {
	if !a.facts.Unshown { // else the last look may be newer than a listing
		shown, isCalled, err := a.cloud.listings.find(ctx, a.ecs, a.view, a.facts.Image)
		if isCalled { // what a listing in memory shows is no answer of a region
			a.heard(err)
		}
		if shown.Image != nil || err != nil {
			return shown, err
		}
	}
	at, spec := a.cloud.clock.Now(), a.facts.Image.Spec
	image, err := a.ecs.FindImage(ctx, spec.RegionID, spec.ImageID)
	a.heard(err)
	return decision.Showing{Image: image, At: at}, err
}

// deleteImage calls DeleteImage. That it succeeds proves nothing about the image: a look has to show that it is gone.
func (a *attempt) deleteImage(ctx context.Context) error {
	f := &a.facts
	spec, force := f.Image.Spec, ptr.Deref(f.Image.Spec.Force, false)
	a.cloud.listings.drop(spec.RegionID, spec.ImageID) // also a call without an answer may take effect
	requestID, err := a.ecs.DeleteImage(ctx, spec.RegionID, spec.ImageID, force)
	a.heard(err)
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
