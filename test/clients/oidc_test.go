package clients

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/AliyunContainerService/ack-ram-tool/pkg/credentials/provider"
	"github.com/alibabacloud-go/darabonba-openapi/v2/models"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	oidcRole     = "acs:ram::1234567890123456:role/web"
	oidcProvider = "acs:ram::1234567890123456:oidc-provider/ack"
	oidcToken    = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJzdHMifQ.c2ln-_"
)

// exchanges are clients that trade a token for a temporary key, without a signature. The first is the library of ACK,
// with the token alone in its body; the second sends everything in it, and the action in headers.
var exchanges = map[string]func(t *testing.T, url, token string) (ecssim.AccessKey, error){
	"ack-ram-tool": func(t *testing.T, url, token string) (ecssim.AccessKey, error) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		client := provider.NewOIDCProvider(provider.OIDCProviderOptions{
			STSEndpoint: url, RoleArn: oidcRole, OIDCProviderArn: oidcProvider, OIDCTokenFile: file, SessionName: "gc",
		})
		got, err := client.Credentials(t.Context())
		if err != nil {
			return ecssim.AccessKey{}, err
		}
		return ecssim.AccessKey{ID: got.AccessKeyId, Secret: got.AccessKeySecret, SecurityToken: got.SecurityToken}, nil
	},
	"darabonba-openapi": func(t *testing.T, url, token string) (ecssim.AccessKey, error) {
		t.Helper()
		client := newDarabonba(t, strings.TrimPrefix(url, "http://"), goodKey).(*darabonba)
		body, err := client.do("AssumeRoleWithOIDC", "2015-04-01", "Anonymous", &models.OpenApiRequest{
			Body: map[string]any{
				"RoleArn": oidcRole, "OIDCProviderArn": oidcProvider, "OIDCToken": token, "RoleSessionName": "gc",
			},
		})
		if err != nil {
			return ecssim.AccessKey{}, err
		}
		got := body["Credentials"].(map[string]any)
		return ecssim.AccessKey{
			ID: got["AccessKeyId"].(string), Secret: got["AccessKeySecret"].(string),
			SecurityToken: got["SecurityToken"].(string),
		}, nil
	},
}

func TestATokenIsTradedForATemporaryKeyThatWorks(t *testing.T) {
	for name, exchange := range exchanges {
		t.Run(name, func(t *testing.T) {
			simulator, err := ecssim.New(ecssim.Scenario{
				AccountID: "1234567890123456", AccessKeys: []ecssim.AccessKey{goodKey},
				Roles:  []ecssim.Role{{ARN: oidcRole, OIDCProviderARN: oidcProvider, OIDCTokens: []string{oidcToken}}},
				Images: []ecssim.Image{image("m-bp1", nil)},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(simulator)
			t.Cleanup(server.Close)
			key, err := exchange(t, server.URL, oidcToken)
			if err != nil {
				t.Fatal(err)
			}
			client := newDarabonba(t, strings.TrimPrefix(server.URL, "http://"), key)
			if _, arn, err := client.callerIdentity(); err != nil || arn != "acs:ram::1234567890123456:assumed-role/web/gc" {
				t.Errorf("the key is of %q, %v", arn, err)
			}
			if total, _, err := client.describeImages(1, 10); err != nil || total != 1 {
				t.Errorf("the key sees %d images, %v", total, err)
			}
			_, err = exchange(t, server.URL, "another."+oidcToken)
			if err == nil || lastCall(t, simulator).Code != "AuthenticationFail.OIDCToken.Invalid" {
				t.Errorf("another token: %v, record %+v", err, lastCall(t, simulator))
			}
		})
	}
}
