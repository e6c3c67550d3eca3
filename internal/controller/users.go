package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

// How many instances and accounts a message names. There may be hundreds of instances; an image that is shared has to
// be taken back from each account.
const (
	mostInstances = 5
	mostAccounts  = 100
)

// nameUsers adds to the message who stands in the way of the deletion, by one more call, if the access key may make
// it. Without the permission the message says what it lacks; nothing else depends on it.
func (a *attempt) nameUsers(ctx context.Context, o *outcome) {
	ask, users, most := a.cloud.InstancesOf, "instances", mostInstances
	switch o.meaning.Condition {
	case v1alpha1.ConditionInUse:
	case v1alpha1.ConditionShared:
		ask, users, most = a.cloud.AccountsOf, "accounts", mostAccounts
	default:
		return
	}
	ids, more, err := ask(ctx, a.image.Spec.RegionID, a.image.Spec.ImageID)
	failure := (*ecs.Error)(nil)
	switch {
	case err == nil:
		o.message += nameFew(users, ids, most, more)
	case errors.As(err, &failure) && ecs.Lookup(failure.Code).Class == ecs.Denied:
		o.message += fmt.Sprintf(" Which %s these are is not known: that takes the permission %s.", users, failure.Action)
	default:
		o.keep = true // better what was known before than another message for each hiccup
	}
}

func nameFew(users string, ids []string, most int, more bool) string {
	if len(ids) == 0 { // an image can be shared by a resource share too, which is not listed here
		return fmt.Sprintf(" ECS lists no %s that this key can see.", users)
	}
	named := ids[:min(len(ids), most)]
	text := fmt.Sprintf(" The %s: %s", users, strings.Join(named, ", "))
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
