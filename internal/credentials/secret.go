package credentials

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// The keys of a Secret, as Alibaba Cloud's own tools name them.
const (
	keyAccessKeyID     = "access-key-id"
	keyAccessKeySecret = "access-key-secret" // #nosec G101: a name, not a key
	keySecurityToken   = "security-token"    // #nosec G101: a name, not a token
	keyRoleARN         = "role-arn"
	keyRoleSessionName = "role-session-name"
	keyExternalID      = "external-id"
)

// fromSecret reads the Secret each time, so that a key that was replaced is used at the next attempt.
func (s *Source) fromSecret(ctx context.Context, namespace, name string) (openapi.Credentials, error) {
	none, secret := openapi.Credentials{}, &corev1.Secret{}
	// At a high log level, client-go logs whole answers.
	silent := log.IntoContext(ctx, logr.Discard())
	err := s.Config.Secrets.Get(silent, client.ObjectKey{Namespace: namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return none, refuse(v1alpha1.ReasonSecretNotFound, "There is no Secret %s in namespace %s.", name, namespace)
	case apierrors.IsForbidden(err):
		return none, refuse(v1alpha1.ReasonSecretForbidden,
			"The operator may not read Secret %s in namespace %s.", name, namespace)
	case err != nil:
		return none, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	// A Secret that was made from a file often ends in a line feed.
	value := func(key string) string { return strings.TrimSpace(string(secret.Data[key])) }
	if value(keyRoleARN) != "" {
		return s.assume(ctx, secret, value)
	}
	for _, key := range []string{keyAccessKeyID, keyAccessKeySecret, keySecurityToken} {
		switch text := value(key); {
		case text == "" && key != keySecurityToken:
			return none, refuse(v1alpha1.ReasonSecretInvalid, "Secret %s has no %s.", name, key)
		case strings.ContainsFunc(text, unicode.IsControl): // such as a line feed
			return none, refuse(v1alpha1.ReasonSecretInvalid, "The %s in Secret %s is not a single line.", key, name)
		}
	}
	return openapi.Credentials{
		AccessKeyID:     value(keyAccessKeyID),
		AccessKeySecret: value(keyAccessKeySecret),
		SecurityToken:   value(keySecurityToken),
		Origin:          "Secret " + name,
	}, nil
}

// assume assumes the role that a Secret names, for the namespaces that may use the operator's own identity: in others,
// a user could name any role that trusts the operator.
func (s *Source) assume(
	ctx context.Context, secret *corev1.Secret, value func(key string) string,
) (openapi.Credentials, error) {
	if value(keyAccessKeyID) != "" || value(keyAccessKeySecret) != "" {
		return openapi.Credentials{}, refuse(v1alpha1.ReasonSecretInvalid,
			"Secret %s has both an access key and a %s: remove one of them.", secret.Name, keyRoleARN)
	}
	if !s.mayUseAmbient(secret.Namespace) {
		return openapi.Credentials{}, refuse(v1alpha1.ReasonAmbientForbidden,
			"Namespace %s may not use the operator's own identity, which has to assume the role in Secret %s.",
			secret.Namespace, secret.Name)
	}
	wanted := role{arn: value(keyRoleARN), sessionName: value(keyRoleSessionName), externalID: value(keyExternalID)}
	credentials, err := s.assumed(wanted).credentials(ctx)
	credentials.Origin = "role " + wanted.arn + " in Secret " + secret.Name
	return credentials, err
}

// assumed returns the identity of a role, the same to all callers.
func (s *Source) assumed(wanted role) *renewed {
	s.assuming.Lock()
	defer s.assuming.Unlock()
	if known, ok := s.roles.Get(wanted); ok {
		return known.(*renewed)
	}
	r := &renewed{clock: s.Config.Clock, renew: func(ctx context.Context) (temporary, error) {
		own, err := s.Config.Ambient(ctx)
		if err != nil {
			return temporary{}, err
		}
		return s.sts.assumeRole(ctx, wanted, own)
	}}
	s.roles.Add(wanted, r)
	return r
}
