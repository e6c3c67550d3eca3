package openapi

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// The vector is the one that the vendor publishes with the description of the V3 signature.
func TestSign_matchesThePublishedVector(t *testing.T) {
	g := NewWithT(t)
	query := url.Values{
		"ImageId":  {"win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd"},
		"RegionId": {"cn-shanghai"},
	}
	request := httptest.NewRequest(http.MethodPost, "https://ecs.cn-shanghai.aliyuncs.com/?"+canonicalQuery(query), nil)
	for name, value := range map[string]string{
		"x-acs-action":          "RunInstances",
		"x-acs-version":         "2014-05-26",
		"x-acs-date":            "2023-10-26T10:22:32Z",
		"x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
		"accept":                "application/json", // not signed
	} {
		request.Header.Set(name, value)
	}
	Sign(request, nil, Credentials{AccessKeyID: "YourAccessKeyId", AccessKeySecret: "YourAccessKeySecret"})
	g.Expect(request.Header.Get("Authorization")).To(Equal("ACS3-HMAC-SHA256 Credential=YourAccessKeyId," +
		"SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version," +
		"Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"))
}

func TestCanonicalQuery_isSortedAndEncodedByRFC3986(t *testing.T) {
	NewWithT(t).Expect(canonicalQuery(url.Values{"b": {"a b*c~d+e/f"}, "a": {""}})).To(
		Equal("a=&b=a%20b%2Ac~d%2Be%2Ff"))
}

func TestSign_signsTheTokenOfATemporaryKey(t *testing.T) {
	g := NewWithT(t)
	request := httptest.NewRequest(http.MethodPost, "https://ecs.example/", nil)
	Sign(request, nil, Credentials{AccessKeyID: "STS.id", AccessKeySecret: "secret", SecurityToken: "token"})
	g.Expect(request.Header.Get("X-Acs-Security-Token")).To(Equal("token"))
	g.Expect(request.Header.Get("Authorization")).To(ContainSubstring(";x-acs-security-token,"))
}

func TestCredentials_areHiddenInEveryFormat(t *testing.T) {
	g := NewWithT(t)
	credentials := Credentials{AccessKeyID: "canary-id", AccessKeySecret: "canary-secret", SecurityToken: "canary-token"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		g.Expect(strings.Contains(sprintf(format, credentials), "canary")).To(BeFalse(), format)
		g.Expect(strings.Contains(sprintf(format, &credentials), "canary")).To(BeFalse(), format)
	}
}
