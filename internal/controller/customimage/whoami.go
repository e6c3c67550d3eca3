package customimage

import (
	"context"
	"fmt"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// WhoAmI returns who the operator is to the cluster, as the flag that kubectl takes to bind a role to it. Every service
// account may ask that; if the permission was removed, WhoAmI returns a placeholder.
func WhoAmI(ctx context.Context, c client.Client) (string, error) {
	review := &authenticationv1.SelfSubjectReview{}
	if err := c.Create(ctx, review); apierrors.IsForbidden(err) {
		return "--serviceaccount=NAMESPACE:NAME", nil
	} else if err != nil {
		return "", fmt.Errorf("ask the cluster who the operator is: %w", err)
	}
	user := review.Status.UserInfo.Username
	if account, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		return "--serviceaccount=" + account, nil
	}
	return "--user=" + user, nil
}
