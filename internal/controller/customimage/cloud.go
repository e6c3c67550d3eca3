package customimage

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// cloud collects the facts of ECS.
type cloud struct {
	ecs  *ecs.Client
	keys *credentials.Source
}

// session is ECS as called with one access key, found once for an attempt: the account that is decided on is the
// account that is called.
type session struct {
	cloud
	ecs *ecs.Client
}

// decide finds the key and looks at the image as far as the decision requires it, and returns the verdict.
func (s *session) decide(ctx context.Context, f *facts) (verdict, error) {
	for {
		var err error
		v := decide(*f)
		switch v.(type) {
		case findKey:
			err = s.findKey(ctx, f)
		case look:
			err = s.look(ctx, f)
		default:
			return v, nil
		}
		if err != nil {
			if f.failure = failureOf(err); f.failure == nil {
				return nil, err
			}
		}
	}
}

func (s *session) findKey(ctx context.Context, f *facts) error {
	f.fresh = false // it can take minutes
	key, err := s.keys.For(ctx, f.image.Namespace, f.image.Spec.CredentialsSecretRef.Name)
	if err != nil {
		return err
	}
	s.ecs, f.account = s.cloud.ecs.As(key), key.AccountID
	return nil
}

// look asks ECS for the image. Before an answer without it is believed, ECS is asked whether the key may look at all:
// it has answered keys without the permission with an empty list. After ECS accepted a deletion, the acceptance is the
// evidence.
func (s *session) look(ctx context.Context, f *facts) error {
	f.fresh = f.call != notCalled // after the call, it is too late for second thoughts
	spec := f.image.Spec
	found, err := s.ecs.FindImage(ctx, spec.RegionID, spec.ImageID)
	if err != nil {
		return err
	}
	if found == nil && acceptedAt(*f).IsZero() {
		if err := s.ecs.CheckDescribe(ctx, spec.RegionID, spec.ImageID); err != nil {
			return err
		}
	}
	if found != nil {
		found.OwnerID = cmp.Or(found.OwnerID, f.account) // only its own images were asked for
	}
	f.shown = &showing{found}
	return nil
}

// deleteImage calls DeleteImage. That it succeeds proves nothing about the image: a look has to show that it is gone.
func (s *session) deleteImage(ctx context.Context, f *facts) error {
	spec, force := f.image.Spec, ptr.Deref(f.image.Spec.Force, false)
	requestID, err := s.ecs.DeleteImage(ctx, spec.RegionID, spec.ImageID, force)
	f.shown = nil
	if err == nil {
		f.call = accepted
		log.FromContext(ctx).Info("Called DeleteImage", "imageID", spec.ImageID, "regionID", spec.RegionID,
			"accountID", f.account, "force", force, "requestID", requestID)
		return nil
	}
	f.failure = failureOf(err)
	switch {
	case f.failure == nil:
		return err
	case meaningOf(f.failure.Action, f.failure.Code).Class == ecs.Gone:
		f.call, f.failure = accepted, nil
	default:
		f.call = refused
		s.nameBlockers(ctx, f)
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
func (s *session) nameBlockers(ctx context.Context, f *facts) {
	ask, what, most := s.ecs.InstancesOf, "instances", mostInstances
	switch meaningOf(f.failure.Action, f.failure.Code).Condition {
	case v1alpha1.ConditionInUse:
	case v1alpha1.ConditionShared:
		ask, what, most = s.ecs.AccountsOf, "accounts", mostAccounts
	default:
		return
	}
	ids, more, err := ask(ctx, f.image.Spec.RegionID, f.image.Spec.ImageID)
	refusal := failureOf(err)
	switch {
	case err == nil:
		f.blockers = nameFew(what, ids, most, more)
	case refusal != nil && meaningOf(refusal.Action, refusal.Code).Class == ecs.Denied:
		f.blockers = fmt.Sprintf(" To list the %s, grant %s.", what, refusal.Action)
	default:
		f.unnamed = true // better what was known before than another message for each hiccup
	}
}

func nameFew(what string, ids []string, most int, more bool) string {
	if len(ids) == 0 { // an image can be shared by a resource share too, which is not listed here
		return fmt.Sprintf(" ECS lists no %s that this key can see.", what)
	}
	named := ids[:min(len(ids), most)]
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
