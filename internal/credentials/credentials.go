// Package credentials knows where access keys come from, and which account they belong to: a Secret beside the
// object, a RAM role that such a Secret names, or the operator's own identity. It knows nothing about what is done
// with them. Which of these an object uses follows from the object and the operator's flags alone: when one fails,
// no other is tried, since it might be that of somebody else.
package credentials

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// Identity returns the access key of one identity, to be used for calls in a region. What keeps it from that is
// a *failure.Error.
type Identity func(ctx context.Context, regionID string) (openapi.Credentials, error)

// Config is what a Source needs.
type Config struct {
	// Secrets reads single Secrets straight from the API server. They are never listed, watched or kept.
	Secrets client.Reader
	// Ambient is the operator's own identity.
	Ambient Identity
	// AmbientNamespaces are those whose objects may use it. "*" stands for all.
	AmbientNamespaces []string
	// API is used for calls of STS.
	API   *openapi.Client
	Clock clock.PassiveClock
}

// Source finds the access key for an object. It is safe for concurrent use.
type Source struct {
	Config
	sts      sts
	assuming sync.Mutex // or two would each make an entry of their own
	roles    *lru.Cache // of role, to *renewed
	accounts *lru.Cache // of an access key, by its fingerprint, to the account's ID
	asking   singleflight.Group
}

// remembered bounds how many roles, and how many keys' accounts, are kept in mind.
const remembered = 4096

// New returns a source that has asked nobody yet.
func New(config Config) *Source {
	return &Source{Config: config, sts: sts{config.API}, roles: lru.New(remembered), accounts: lru.New(remembered)}
}

// For returns the access key for the objects of a namespace that name this Secret or, with none, use the operator's
// own identity. Its account is known. A key that cannot be had is a *failure.Error; that the API server could not
// be asked is not.
func (s *Source) For(ctx context.Context, regionID, namespace, secret string) (openapi.Credentials, error) {
	find := s.ambient
	if secret != "" {
		find = s.fromSecret
	}
	credentials, err := find(ctx, regionID, namespace, secret)
	if err == nil {
		credentials.AccountID, err = s.account(ctx, regionID, credentials)
	}
	if err != nil {
		return openapi.Credentials{}, err
	}
	return credentials, nil
}

func (s *Source) ambient(ctx context.Context, regionID, namespace, _ string) (openapi.Credentials, error) {
	if !s.mayUseAmbient(namespace) {
		return openapi.Credentials{}, refuse(v1alpha1.ReasonAmbientForbidden,
			"Namespace %s may not use the operator's own identity.", namespace)
	}
	return s.Ambient(ctx, regionID)
}

func (s *Source) mayUseAmbient(namespace string) bool {
	return slices.Contains(s.AmbientNamespaces, "*") || slices.Contains(s.AmbientNamespaces, namespace)
}

// account asks once for each key whose it is: that never changes.
func (s *Source) account(ctx context.Context, regionID string, of openapi.Credentials) (string, error) {
	key := fingerprint(of)
	if known, ok := s.accounts.Get(key); ok {
		return known.(string), nil
	}
	asked := s.asking.DoChan(key, func() (any, error) {
		return s.sts.accountOf(context.WithoutCancel(ctx), regionID, of)
	})
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case answer := <-asked:
		if answer.Err != nil {
			return "", answer.Err
		}
		s.accounts.Add(key, answer.Val)
		return answer.Val.(string), nil
	}
}

// fingerprint stands for a key and where it came from. The ID alone would let whoever knows that of another's key
// share its answers, and give it the answers to a wrong secret.
func fingerprint(of openapi.Credentials) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{of.AccessKeyID, of.AccessKeySecret, of.SecurityToken, of.Origin}))
	return string(sum[:])
}

func refuse(code, format string, args ...any) error {
	return &failure.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
