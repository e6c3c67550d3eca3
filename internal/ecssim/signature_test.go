package ecssim_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// The vectors call actions that the simulator lacks. Signatures are looked at first, so that they verify.

func TestThePublishedV3VectorVerifies(t *testing.T) {
	s := vectorServer(t, "YourAccessKeyId", "YourAccessKeySecret", "2023-10-26T10:22:32Z")
	r := newRequest(http.MethodPost, "http://ecs.cn-shanghai.aliyuncs.com/?"+
		"ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai", "")
	for name, value := range map[string]string{
		"x-acs-action": "RunInstances", "x-acs-version": "2014-05-26", "x-acs-date": "2023-10-26T10:22:32Z",
		"x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
		"x-acs-content-sha256":  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"Authorization": "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders=host;x-acs-action;" +
			"x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version," +
			"Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0",
	} {
		r.Header.Set(name, value)
	}
	s.ServeHTTP(httptest.NewRecorder(), r)
	if call := s.Calls()[0]; !call.SignatureValid || call.Code != "InvalidAction.NotFound" {
		t.Errorf("got %+v", call)
	}
}

func TestThePublishedV1VectorVerifies(t *testing.T) {
	s := vectorServer(t, "testid", "testsecret", "2016-02-23T12:46:24Z")
	query := "AccessKeyId=testid&Action=DescribeRegions&Format=XML&SignatureMethod=HMAC-SHA1" +
		"&SignatureNonce=3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf&SignatureVersion=1.0" +
		"&Timestamp=2016-02-23T12%3A46%3A24Z&Version=2014-05-26&Signature=OLeaidS1JvxuMvnyHOwuJ%2BuX5qY%3D"
	s.ServeHTTP(httptest.NewRecorder(), newRequest(http.MethodGet, "http://ecs.aliyuncs.com/?"+query, ""))
	if call := s.Calls()[0]; !call.SignatureValid || call.Code != "InvalidAction.NotFound" {
		t.Errorf("got %+v", call)
	}
}

func vectorServer(t *testing.T, id, secret, now string) *ecssim.Server {
	at, err := time.Parse(time.RFC3339, now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ecssim.New(ecssim.Scenario{AccountID: "1", AccessKeys: []ecssim.AccessKey{{ID: id, Secret: secret}}},
		clocktesting.NewFakePassiveClock(at))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAV3CallIsVerified(t *testing.T) {
	const form = "ImageId=m-bp1&RegionId=cn-hangzhou"
	asForm := func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }
	for name, test := range map[string]struct {
		method, query, body string
		before, after       func(*http.Request) // signing
		id, secret          string
		want                string
	}{
		"GET":                                  {method: "GET"},
		"POST with a query":                    {},
		"POST with a form":                     {query: "x=1", body: form, before: asForm},
		"a form type over an empty body":       {before: asForm},
		"characters that need encoding":        {query: "ImageId=m-bp1&A=%2B+%2A~%2F%3D%26%E4%BD%A0&Z="},
		"keys that sort before an equals sign": {query: "ImageId=m-bp1&T.1=a&T.1.Key=b&T.10=c"},
		"another signed x-acs-* header":        {before: set("X-Acs-Credentials-Provider", "static")},
		"an unsigned header that is no matter": {after: set("X-Acs-Extra", "1")},
		"a changed query": {want: "SignatureDoesNotMatch",
			after: func(r *http.Request) { r.URL.RawQuery += "&Force=true" }},
		"a changed body": {body: "a=1", want: "SignatureDoesNotMatch",
			after: func(r *http.Request) { r.Body = http.NoBody }},
		"a changed header": {want: "SignatureDoesNotMatch", after: set("X-Acs-Action", "DescribeImages")},
		"a changed host": {want: "SignatureDoesNotMatch",
			after: func(r *http.Request) { r.Host = "elsewhere.test" }},
		"a wrong secret":     {secret: "guess", want: "SignatureDoesNotMatch"},
		"an unknown key":     {id: "unknown", want: "InvalidAccessKeyId.NotFound"},
		"an inactive key":    {id: "retired", want: "InvalidAccessKeyId.Inactive"},
		"a token too many":   {before: set("X-Acs-Security-Token", "x"), want: badToken},
		"a temporary key":    {id: "temporary", before: set("X-Acs-Security-Token", "token")},
		"a token too few":    {id: "temporary", want: badToken},
		"no nonce":           {before: set("X-Acs-Signature-Nonce", ""), want: "IncompleteSignature"},
		"no date":            {before: set("X-Acs-Date", ""), want: "IncompleteSignature"},
		"a date in words":    {before: set("X-Acs-Date", "noon"), want: "InvalidTimeStamp.Expired"},
		"an unsigned date":   {after: unsign("x-acs-date"), want: "IncompleteSignature"},
		"half a header":      {after: set("Authorization", schemeV3+" Credential=a"), want: "IncompleteSignature"},
		"no action":          {before: set("X-Acs-Action", ""), want: "MissingParameter"},
		"no version":         {before: set("X-Acs-Version", ""), want: "MissingParameter"},
		"an unknown action":  {before: set("X-Acs-Action", "DropImage"), want: "InvalidAction.NotFound"},
		"an unknown version": {before: set("X-Acs-Version", "2015-01-01"), want: "InvalidVersion"},
		"another method":     {method: "PUT", want: "InvalidAction.NotFound"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScenario(t, ecssim.Scenario{
				Images: []ecssim.Image{image("m-bp1")},
				AccessKeys: []ecssim.AccessKey{
					{ID: "retired", Secret: "demo-secret", Inactive: true},
					{ID: "temporary", Secret: "demo-secret", SecurityToken: "token"},
				},
			})
			r := s.newV3(or(test.method, "POST"), "DeleteImage", or(test.query, "ImageId=m-bp1"), test.body)
			if test.before != nil {
				test.before(r)
			}
			signV3(r, or(test.id, "demo-id"), or(test.secret, "demo-secret"), test.body)
			if test.after != nil {
				test.after(r)
			}
			got := s.do(r)
			_, stillThere := s.Image("m-bp1")
			if got.Code != test.want || stillThere != (test.want != "") || s.last().Code != test.want {
				t.Errorf("got %s, image there: %t, record %+v", got.body, stillThere, s.last())
			}
		})
	}
}

func TestAV1CallIsVerified(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		before func(url.Values)
		after  func(url.Values)
		want   string
	}{
		"GET":                        {method: "GET"},
		"POST with a form":           {method: "POST"},
		"an empty signed parameter":  {before: with("OwnerId", "")},
		"a changed parameter":        {after: with("Force", "true"), want: "SignatureDoesNotMatch"},
		"an unknown key":             {before: with("AccessKeyId", "unknown"), want: "InvalidAccessKeyId.NotFound"},
		"a token too many":           {before: with("SecurityToken", "x"), want: badToken},
		"no signature":               {after: with("Signature", ""), want: "IncompleteSignature"},
		"a signature in no base64":   {after: with("Signature", "*"), want: "SignatureDoesNotMatch"},
		"another method of signing":  {before: with("SignatureMethod", "HMAC-MD5"), want: "IncompleteSignature"},
		"another version of signing": {before: with("SignatureVersion", "2.0"), want: "IncompleteSignature"},
		"no nonce":                   {before: with("SignatureNonce", ""), want: "IncompleteSignature"},
		"no timestamp":               {before: with("Timestamp", ""), want: "IncompleteSignature"},
		"a timestamp in words":       {before: with("Timestamp", "noon"), want: "InvalidTimeStamp.Expired"},
		"no action":                  {before: with("Action", ""), want: "MissingParameter"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, image("m-bp1"))
			p := s.paramsV1("DeleteImage", "ImageId=m-bp1")
			p.Set("Format", "json")
			if test.before != nil {
				test.before(p)
			}
			method := or(test.method, "GET")
			signV1(method, p, "demo-secret")
			if test.after != nil {
				test.after(p)
			}
			r := requestV1(method, p)
			r.Header.Set("X-Acs-Action", "Unsigned") // as real clients do
			got := s.do(r)
			if _, stillThere := s.Image("m-bp1"); got.Code != test.want || stillThere != (test.want != "") {
				t.Errorf("got %s, image there: %t", got.body, stillThere)
			}
		})
	}
}

func TestACallWithoutASignatureIsIncomplete(t *testing.T) {
	s := start(t)
	got := s.do(newRequest(http.MethodGet, "http://ecs.test/", ""))
	if got.Code != "IncompleteSignature" || got.status != 400 {
		t.Errorf("got %+v", got)
	}
}

func TestASignatureThatDoesNotMatchIsAnsweredWithWhatTheServerSigned(t *testing.T) {
	s := start(t)
	p := signV1("GET", s.paramsV1("DescribeImages", ""), "guess")
	got := s.do(requestV1("GET", p))
	const start = "Specified signature is not matched with our calculation. " +
		"server string to sign is:GET&%2F&AccessKeyId%3Ddemo-id"
	if !strings.HasPrefix(got.Message, start) || s.last().SignatureValid {
		t.Errorf("got %q, record %+v", got.Message, s.last())
	}
}

func TestANonceCountsOnce(t *testing.T) {
	s := start(t, image("m-bp1"))
	send := func(secret string) answer {
		r := s.newV3("POST", "DeleteImage", "ImageId=m-none", "")
		r.Header.Set("X-Acs-Signature-Nonce", "same")
		return s.do(signV3(r, "demo-id", secret, ""))
	}
	send("guess") // of another, who must not be able to use it up
	if got := send("demo-secret"); got.Code != "InvalidImageId.NotFound" {
		t.Errorf("first: %+v", got)
	}
	if got := send("demo-secret"); got.Code != "SignatureNonceUsed" || got.status != 400 || !s.last().SignatureValid {
		t.Errorf("second: %+v", got)
	}
}

func TestEachKeyHasItsOwnNonces(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{AccessKeys: []ecssim.AccessKey{{ID: "second", Secret: "s"}}})
	for id, secret := range map[string]string{"demo-id": "demo-secret", "second": "s"} {
		r := s.newV3("GET", "DescribeImages", "", "")
		r.Header.Set("X-Acs-Signature-Nonce", "same")
		if got := s.do(signV3(r, id, secret, "")); got.Code != "" {
			t.Errorf("%s: %+v", id, got)
		}
	}
}

func TestTheClockMayBeFifteenMinutesOff(t *testing.T) {
	for off, want := range map[time.Duration]string{
		0: "", 15 * time.Minute: "", -15 * time.Minute: "",
		15*time.Minute + time.Second:  "InvalidTimeStamp.Expired",
		-15*time.Minute - time.Second: "InvalidTimeStamp.Expired",
	} {
		t.Run(off.String(), func(t *testing.T) {
			s := start(t)
			r := s.newV3("GET", "DescribeImages", "", "")
			s.clock.Step(off)
			if got := s.do(signV3(r, "demo-id", "demo-secret", "")); got.Code != want || !s.last().SignatureValid {
				t.Errorf("got %+v", got)
			}
		})
	}
}

const schemeV3 = "ACS3-HMAC-SHA256"

const badToken = "InvalidSecurityToken.MismatchWithAccessKey"

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func unsign(name string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), name+";", "", 1))
	}
}

func with(name, value string) func(url.Values) {
	return func(p url.Values) { p.Set(name, value) }
}
