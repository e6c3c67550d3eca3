package credentials

import (
	"cmp"
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// sts makes calls of Alibaba Cloud's Security Token Service in one region.
type sts struct {
	api    *openapi.Client
	region string
}

// sessionName names the operator in the audit log of an assumed role.
const sessionName = "ecs-image-gc"

// role is a RAM role and the parameters to assume it with.
type role struct{ arn, sessionName, externalID string }

// accountOf returns the account that an access key belongs to. That needs no permission.
func (s sts) accountOf(ctx context.Context, key openapi.Credentials) (string, error) {
	var answer struct {
		AccountID string `json:"AccountId" xml:"AccountId"`
	}
	call := openapi.Call{Action: "GetCallerIdentity", Query: url.Values{}, Credentials: key}
	err := s.do(ctx, call, &answer)
	if err == nil && answer.AccountID == "" {
		err = refuse(failure.CodeUnusableAnswer, "GetCallerIdentity returned no AccountId.")
	}
	return answer.AccountID, err
}

func (s sts) assumeRole(ctx context.Context, r role, own openapi.Credentials) (temporary, error) {
	call := openapi.Call{Action: "AssumeRole", Credentials: own,
		Query: url.Values{"RoleArn": {r.arn}, "RoleSessionName": {cmp.Or(r.sessionName, sessionName)}}}
	if r.externalID != "" {
		call.Secret = url.Values{"ExternalId": {r.externalID}}
	}
	return s.key(ctx, call)
}

// assumeRoleWithOIDC assumes a role for a token of the cluster instead of an access key.
func (s sts) assumeRoleWithOIDC(ctx context.Context, arn, providerARN, token string) (temporary, error) {
	return s.key(ctx, openapi.Call{
		Action:      "AssumeRoleWithOIDC",
		Query:       url.Values{"RoleArn": {arn}, "OIDCProviderArn": {providerARN}, "RoleSessionName": {sessionName}},
		Secret:      url.Values{"OIDCToken": {token}},
		Unsigned:    true,
		Credentials: openapi.Credentials{Origin: "the operator's environment"},
	})
}

// key makes a call that returns a temporary access key.
func (s sts) key(ctx context.Context, call openapi.Call) (temporary, error) {
	var answer struct {
		Credentials issued `json:"Credentials" xml:"Credentials"`
	}
	if err := s.do(ctx, call, &answer); err != nil {
		return temporary{}, err
	}
	return answer.Credentials.temporary(call.Action)
}

func (s sts) do(ctx context.Context, call openapi.Call, out any) error {
	call.Product, call.Version, call.Central, call.Region = "sts", "2015-04-01", true, s.region
	_, err := s.api.Do(ctx, call, out)
	return err
}

// issued is an access key as STS and the metadata of an ECS instance spell it.
type issued struct {
	AccessKeyID     string `json:"AccessKeyId" xml:"AccessKeyId"`
	AccessKeySecret string `json:"AccessKeySecret" xml:"AccessKeySecret"`
	SecurityToken   string `json:"SecurityToken" xml:"SecurityToken"`
	Expiration      string `json:"Expiration" xml:"Expiration"`
}

func (i issued) temporary(from string) (temporary, error) {
	ends, err := time.Parse(time.RFC3339, strings.TrimSpace(i.Expiration))
	if err != nil || i.AccessKeyID == "" || i.AccessKeySecret == "" || i.SecurityToken == "" {
		return temporary{}, refuse(failure.CodeUnusableAnswer, "%s returned an incomplete access key.", from)
	}
	return temporary{ends: ends, credentials: openapi.Credentials{
		AccessKeyID: i.AccessKeyID, AccessKeySecret: i.AccessKeySecret, SecurityToken: i.SecurityToken,
	}}, nil
}
