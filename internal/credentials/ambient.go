package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/utils/clock"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// Sources are the names that Ambient knows.
var Sources = []string{"auto", "rrsa", "env", "ecs-role", "none"}

// The variables of an access key, of a RAM role for service accounts and of the region, as Alibaba Cloud's own tools
// and the webhook of ACK name them.
const (
	envAccessKeyID     = "ALIBABA_CLOUD_ACCESS_KEY_ID"
	envAccessKeySecret = "ALIBABA_CLOUD_ACCESS_KEY_SECRET" // #nosec G101: a name, not a key
	envSecurityToken   = "ALIBABA_CLOUD_SECURITY_TOKEN"    // #nosec G101: a name, not a token
	envRoleARN         = "ALIBABA_CLOUD_ROLE_ARN"
	envOIDCProviderARN = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN"
	envOIDCTokenFile   = "ALIBABA_CLOUD_OIDC_TOKEN_FILE" // #nosec G101: a name, not a token
	envSTSRegion       = "ALIBABA_CLOUD_STS_REGION"
	envRegionID        = "ALIBABA_CLOUD_REGION_ID"
)

// rrsaVariables are all required for a RAM role for service accounts.
var rrsaVariables = []string{envRoleARN, envOIDCProviderARN, envOIDCTokenFile}

// STSRegion returns the region in which STS is called. ACK's webhook sets ALIBABA_CLOUD_STS_REGION, which Alibaba
// Cloud's own clients read too; without it, ALIBABA_CLOUD_REGION_ID counts. It is "" if neither is set.
func STSRegion(getenv func(string) string) string {
	return cmp.Or(getenv(envSTSRegion), getenv(envRegionID))
}

// Ambient returns the operator's own identity from one of Sources, and the source that was chosen: for "auto", it is
// rrsa if any of its variables is set, else env. The choice never changes. If the identity lacks something, each use
// of it returns the error that names it.
func Ambient(
	source string, getenv func(string) string, api *openapi.Client, stsRegion string, clk clock.PassiveClock,
) (Identity, string) {
	if source == "auto" {
		source = "env"
		if slices.ContainsFunc(rrsaVariables, func(name string) bool { return getenv(name) != "" }) {
			source = "rrsa"
		}
	}
	switch source {
	case "rrsa":
		return fromServiceAccount(getenv, sts{api, stsRegion}, clk), source
	case "env":
		return fromEnvironment(getenv), source
	case "ecs-role":
		return fromInstance(metadataService, clk), source
	}
	return func(context.Context) (openapi.Credentials, error) {
		return openapi.Credentials{}, refuse(v1alpha1.ReasonNoCredentials,
			"The operator has no identity of its own (--credentials=none).")
	}, "none"
}

// namespaceFile holds the namespace of a pod.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// OwnNamespaces returns the namespaces that may use the operator's own identity by default: that of its pod or,
// outside a cluster, all.
func OwnNamespaces(getenv func(string) string, readFile func(string) ([]byte, error)) ([]string, error) {
	if getenv("KUBERNETES_SERVICE_HOST") == "" {
		return []string{"*"}, nil
	}
	name, err := readFile(namespaceFile)
	if err != nil {
		return nil, fmt.Errorf("find the operator's own namespace, or give --ambient-namespaces: %w", err)
	}
	return []string{strings.TrimSpace(string(name))}, nil
}

// fromEnvironment reads an access key from the variables ALIBABA_CLOUD_ACCESS_KEY_ID,
// ALIBABA_CLOUD_ACCESS_KEY_SECRET and, for a temporary key, ALIBABA_CLOUD_SECURITY_TOKEN. If one of the first two
// is missing, each use of the identity returns a *failure.Error that names it.
func fromEnvironment(getenv func(string) string) Identity {
	// A Secret that was made from a file often ends in a line feed.
	credentials := openapi.Credentials{
		AccessKeyID:     strings.TrimSpace(getenv(envAccessKeyID)),
		AccessKeySecret: strings.TrimSpace(getenv(envAccessKeySecret)),
		SecurityToken:   strings.TrimSpace(getenv(envSecurityToken)),
		Origin:          "the operator's environment (read when it starts)",
	}
	return func(context.Context) (openapi.Credentials, error) {
		switch {
		case credentials.AccessKeyID == "":
			return openapi.Credentials{}, missing(envAccessKeyID)
		case credentials.AccessKeySecret == "":
			return openapi.Credentials{}, missing(envAccessKeySecret)
		}
		return credentials, nil
	}
}

// fromServiceAccount assumes the RAM role of the operator's service account (RRSA). The token is read at each
// renewal, since the kubelet replaces it.
func fromServiceAccount(getenv func(string) string, api sts, clk clock.PassiveClock) Identity {
	arn, provider, file := getenv(envRoleARN), getenv(envOIDCProviderARN), getenv(envOIDCTokenFile)
	absent := slices.IndexFunc(rrsaVariables, func(name string) bool { return getenv(name) == "" })
	r := &renewed{clock: clk, renew: func(ctx context.Context) (temporary, error) {
		token, err := os.ReadFile(file) // #nosec G304: ACK's webhook says where it is
		if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
			return temporary{}, refuse(v1alpha1.ReasonNoCredentials,
				"The token of the operator's service account cannot be read from the file in %s: %s.", envOIDCTokenFile, failed.Err)
		}
		return api.assumeRoleWithOIDC(ctx, arn, provider, strings.TrimSpace(string(token)))
	}}
	return func(ctx context.Context) (openapi.Credentials, error) {
		if absent >= 0 {
			return openapi.Credentials{}, missing(rrsaVariables[absent])
		}
		credentials, err := r.credentials(ctx)
		credentials.Origin = "role " + arn + " of the operator's service account"
		return credentials, err
	}
}

func missing(variable string) error {
	return refuse(v1alpha1.ReasonNoCredentials, "The operator's environment has no %s.", variable)
}
