// Package credentials knows where access keys come from, and nothing about what is done with them. Today that
// is the environment of the process.
package credentials

import (
	"context"
	"strings"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// The variables that hold the access key, as Alibaba Cloud's own tools name them.
const (
	envAccessKeyID     = "ALIBABA_CLOUD_ACCESS_KEY_ID"
	envAccessKeySecret = "ALIBABA_CLOUD_ACCESS_KEY_SECRET" // #nosec G101: a name, not a key
	envSecurityToken   = "ALIBABA_CLOUD_SECURITY_TOKEN"    // #nosec G101: a name, not a token
)

// FromEnvironment reads the access key from the variables ALIBABA_CLOUD_ACCESS_KEY_ID,
// ALIBABA_CLOUD_ACCESS_KEY_SECRET and, for a temporary key, ALIBABA_CLOUD_SECURITY_TOKEN. Where one of the
// first two is missing, every use of the result is an *openapi.Error that names it.
func FromEnvironment(getenv func(string) string) openapi.CredentialsFunc {
	// A Secret that was made from a file often ends in a line feed.
	credentials := openapi.Credentials{
		AccessKeyID:     strings.TrimSpace(getenv(envAccessKeyID)),
		AccessKeySecret: strings.TrimSpace(getenv(envAccessKeySecret)),
		SecurityToken:   strings.TrimSpace(getenv(envSecurityToken)),
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

func missing(variable string) error {
	return &openapi.Error{
		Code:    openapi.CodeNoCredentials,
		Message: "The operator's environment has no " + variable + ".",
	}
}
