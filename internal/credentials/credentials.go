// Package credentials finds access keys and the accounts that they belong to. A key comes from a Secret beside the
// object, from a RAM role that such a Secret names, or from the operator's own identity. Which of these an object
// uses follows from the object and the operator's flags only. When one fails, no other is tried: it may belong to
// another account.
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

// Identity returns the access key of one identity. If there is none, the error is a *failure.Error.
type Identity func(ctx context.Context) (openapi.Credentials, error)

// Config is what a Source needs.
type Config struct {
	// Secrets reads single Secrets from the API server, without a cache. They are never listed, watched or kept.
	Secrets client.Reader
	// Ambient is the operator's own identity.
	Ambient Identity
	// AmbientNamespaces are those whose objects may use Ambient. "*" stands for all.
	AmbientNamespaces []string
	// API is used for calls of STS.
	API *openapi.Client
	// STSRegion is the region in which STS is called, whatever the regions of the objects. With the public endpoints
	// it does not matter.
	STSRegion string
	Clock     clock.PassiveClock
}

// Source finds the access key for an object. It is safe for concurrent use.
type Source struct {
	Config   Config
	sts      sts
	assuming sync.Mutex // or two callers would each make an entry
	roles    *lru.Cache // of role, to *renewed
	accounts *lru.Cache // of an access key, by its fingerprint, to the account's ID
	asking   singleflight.Group
}

// remembered bounds how many roles, and the accounts of how many keys, are kept.
const remembered = 4096

// New returns a source that has made no call yet.
func New(config Config) *Source {
	return &Source{
		Config: config, sts: sts{config.API, config.STSRegion}, roles: lru.New(remembered), accounts: lru.New(remembered),
	}
}

// For returns the access key, and its account, for the objects of a namespace that name this Secret or, without
// one, use the operator's own identity. If there is no key, the error is a *failure.Error; if the API server failed,
// it is not.
func (s *Source) For(ctx context.Context, namespace, secret string) (openapi.Credentials, error) {
	find := s.ambient
	if secret != "" {
		find = s.fromSecret
	}
	credentials, err := find(ctx, namespace, secret)
	if err == nil {
		credentials.AccountID, err = s.account(ctx, credentials)
	}
	if err != nil {
		return openapi.Credentials{}, err
	}
	return credentials, nil
}

func (s *Source) ambient(ctx context.Context, namespace, _ string) (openapi.Credentials, error) {
	if !s.mayUseAmbient(namespace) {
		return openapi.Credentials{}, refuse(v1alpha1.ReasonAmbientForbidden,
			"Namespace %s may not use the operator's own identity.", namespace)
	}
	return s.Config.Ambient(ctx)
}

func (s *Source) mayUseAmbient(namespace string) bool {
	allowed := s.Config.AmbientNamespaces
	return slices.Contains(allowed, "*") || slices.Contains(allowed, namespace)
}

// account returns the account that a key belongs to. One call for each key is enough: the account never changes.
func (s *Source) account(ctx context.Context, of openapi.Credentials) (string, error) {
	key := fingerprint(of)
	if known, ok := s.accounts.Get(key); ok {
		return known.(string), nil
	}
	asked := s.asking.DoChan(key, func() (any, error) {
		return s.sts.accountOf(context.WithoutCancel(ctx), of)
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

// fingerprint stands for a key and its origin. With the ID only, a Secret that holds the ID of another key and a wrong
// secret would share that key's answers, and that key would get the answers to the wrong secret.
func fingerprint(of openapi.Credentials) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{of.AccessKeyID, of.AccessKeySecret, of.SecurityToken, of.Origin}))
	return string(sum[:])
}

func refuse(code, format string, args ...any) error {
	return &failure.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
