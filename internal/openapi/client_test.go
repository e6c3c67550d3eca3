package openapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

var sprintf = fmt.Sprintf

var testCall = Call{Product: "ecs", Version: "2014-05-26", Action: "DeleteImage", Region: "cn-hangzhou",
	Query:       url.Values{"ImageId": {"m-bp1"}, "RegionId": {"cn-hangzhou"}},
	Credentials: Credentials{AccessKeyID: "canary-id", AccessKeySecret: "canary-secret", SecurityToken: "canary-token"}}

func testClient(endpoint string, change ...func(*Config)) *Client {
	config := Config{
		Endpoints:   Endpoints{Override: endpoint},
		Timeout:     5 * time.Second,
		Connections: 64,
		Clock:       clock.RealClock{},
	}
	for _, f := range change {
		f(&config)
	}
	return New(config)
}

func answering(t *testing.T, status int, contentType, body string, headers ...string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server
}

const someID = "CEF72CEB-54B6-4AE8-B225-F876FF7BA984"

func TestDo_takesOnlyA2xxWithARequestIDForASuccess(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   string
		want   *failure.Error // nil for a success
	}{
		"JSON":                    {200, `{"RequestId":"` + someID + `"}`, nil},
		"XML":                     {200, `<?xml version="1.0"?><DeleteImageResponse><RequestId>` + someID + `</RequestId></DeleteImageResponse>`, nil},
		"202":                     {202, `{"RequestId":"` + someID + `"}`, nil},
		"an empty body":           {200, ``, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 200: empty response body."}},
		"no RequestId":            {200, `{}`, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 200: unexpected response body (a proxy may have answered)."}},
		"an empty RequestId":      {200, `{"RequestId":""}`, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 200: unexpected response body (a proxy may have answered)."}},
		"a 200 of a login page":   {200, `<html><body>Log in</body></html>`, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 200: unexpected response body (a proxy may have answered)."}},
		"an HTML 502":             {502, `<html><body><h1>502</h1><hr></body></html>`, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 502: unexpected response body (a proxy may have answered)."}},
		"text":                    {503, `upstream connect error`, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 503: unexpected response body (a proxy may have answered)."}},
		"a redirect":              {302, ``, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 302: empty response body."}},
		"an error without a code": {403, `{"RequestId":"` + someID + `"}`, &failure.Error{Code: failure.CodeUnusableAnswer, Message: "HTTP 403: unexpected response body (a proxy may have answered)."}},
		"a 200 with a Code": {200, `{"RequestId":"` + someID + `","Code":"InternalError","Message":"Again."}`,
			&failure.Error{Code: "InternalError", Message: "Again.", RequestID: someID}},
		"a Code without end": {403, `{"RequestId":"` + someID + `","Code":"` + strings.Repeat("x", 9999) + `"}`,
			&failure.Error{Code: strings.Repeat("x", maxCode) + "…", RequestID: someID}},
		"a JSON error": {403, `{"RequestId":"` + someID + `","HostId":"h","Code":"ImageUsingByInstance","Message":"In use.","Recommend":"r"}`,
			&failure.Error{Code: "ImageUsingByInstance", Message: "In use.", RequestID: someID}},
		"an XML error": {403, `<?xml version="1.0"?><Error><RequestId>` + someID + `</RequestId><HostId>h</HostId><Code>ImageUsingByInstance</Code><Message>In use.</Message></Error>`,
			&failure.Error{Code: "ImageUsingByInstance", Message: "In use.", RequestID: someID}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server := answering(t, answer.status, "application/json", answer.body, "Location", "/elsewhere")
			requestID, err := testClient(server.URL).Do(t.Context(), testCall, nil)
			if answer.want == nil {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(requestID).To(Equal(someID))
				return
			}
			got := &failure.Error{}
			g.Expect(errors.As(err, &got)).To(BeTrue())
			g.Expect(got.HTTPStatus).To(Equal(answer.status))
			g.Expect(got.Code).To(Equal(answer.want.Code))
			g.Expect(got.Message).To(Equal(answer.want.Message))
			if answer.want.RequestID != "" {
				g.Expect(got.RequestID).To(Equal(answer.want.RequestID))
			}
		})
	}
}

func TestStableText_isTheSameForTheSameFailure(t *testing.T) {
	g := NewWithT(t)
	for _, text := range []string{
		"In use.",
		"In use. " + someID,
		"In use., request id: " + someID,
		"In use. RequestId:" + strings.ToLower(someID),
		"In use. (Request ID: 11111111-2222-3333-4444-555555555555)",
		"In use. Server CanonicalRequest:POST\n/\nx-acs-security-token:abc",
		"In use. server string to sign is:ACS3-HMAC-SHA256\n06563a9e1b43f5dfe96b81484da74bce",
	} {
		g.Expect(stableText(text, someID, Call{})).To(Equal("In use."), text)
	}
	g.Expect(stableText("id: not-a-uuid", "not-a-uuid", Call{})).NotTo(ContainSubstring("not-a-uuid"))
	secretive := testCall
	secretive.Secret = url.Values{"OIDCToken": {"canary-oidc"}}
	g.Expect(stableText("The key canary-id, its secret canary-secret and token canary-token, for canary-oidc.", "",
		secretive)).NotTo(ContainSubstring("canary"))
	g.Expect(len(stableText(strings.Repeat("ä", 5000), "", Call{}))).To(BeNumerically("<=", maxMessage+len("…")))
}

func TestDo_waitsAsLongAsTheHeadersOfAThrottleSay(t *testing.T) {
	for name, test := range map[string]struct {
		headers []string
		want    time.Duration
	}{
		"of the action":  {[]string{"x-ratelimit-user-api", "Limit:1,Remain:0,TimeLeft:2000,Reset:1234"}, 2 * time.Second},
		"of the account": {[]string{"x-ratelimit-user", "Limit:1,Remain:0,TimeLeft:1500,Reset:1234"}, 1500 * time.Millisecond},
		"the longer":     {[]string{"x-ratelimit-user", "TimeLeft:1500", "x-ratelimit-user-api", "TimeLeft:100"}, 1500 * time.Millisecond},
		"the newer":      {[]string{"x-acs-retry-after", "700"}, 700 * time.Millisecond},
		"a year":         {[]string{"x-acs-retry-after", "31536000000"}, time.Hour},
		"far too long":   {[]string{"x-acs-retry-after", "9000000000000"}, time.Hour},
		"no header":      {nil, 20 * time.Second}, // the rest of the minute
		"nonsense":       {[]string{"x-acs-retry-after", "soon", "x-ratelimit-user", "TimeLeft:-5"}, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			now := clocktesting.NewFakeClock(time.Date(2024, 1, 2, 3, 4, 40, 0, time.UTC))
			var calls atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				calls.Add(1)
				for i := 0; i+1 < len(test.headers); i += 2 {
					w.Header().Set(test.headers[i], test.headers[i+1])
				}
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"RequestId":"`+someID+`","Code":"Throttling.User","Message":"Slow down."}`)
			}))
			defer server.Close()
			client := testClient(server.URL, func(c *Config) { c.Clock = now })
			got := &failure.Error{}
			_, err := client.Do(t.Context(), testCall, nil)
			g.Expect(errors.As(err, &got)).To(BeTrue())
			g.Expect(got.Wait).To(Equal(test.want))

			now.Step(test.want - time.Millisecond)
			_, err = client.Do(t.Context(), testCall, nil)
			g.Expect(errors.As(err, &got)).To(BeTrue())
			g.Expect(got.Wait).To(Equal(time.Millisecond))
			g.Expect(err).To(MatchError("Throttling.User: Slow down."), "in the words of ECS, so that nothing looks new")
			g.Expect(calls.Load()).To(BeEquivalentTo(1), "the gate is closed")
			other := testCall
			other.Region = "cn-beijing"
			_, _ = client.Do(t.Context(), other, nil)
			g.Expect(calls.Load()).To(BeEquivalentTo(2), "another region has a quota of its own")
			now.Step(time.Millisecond)
			_, _ = client.Do(t.Context(), testCall, nil)
			g.Expect(calls.Load()).To(BeEquivalentTo(3), "the gate is open")
		})
	}
}

func TestDo_followsNoRedirect(t *testing.T) {
	g := NewWithT(t)
	var followed atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, _ *http.Request) {
		followed.Store(true)
		_, _ = io.WriteString(w, `{"RequestId":"`+someID+`"}`)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	_, err := testClient(server.URL).Do(t.Context(), testCall, nil)
	g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeUnusableAnswer))
	g.Expect(followed.Load()).To(BeFalse())
}

func TestDo_failsWhenTheTimeoutHasPassed(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	_, err := testClient(server.URL, func(c *Config) { c.Timeout = 100 * time.Millisecond }).Do(t.Context(), testCall, nil)
	g.Expect(err).To(MatchError("NoAnswer: No answer within 100ms."))
	g.Expect(errors.Is(err, context.DeadlineExceeded)).To(BeTrue())
}

func TestDo_failsIfTheAnswerBreaksOff(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"RequestId":"`+someID+`"}`)
	}))
	defer server.Close()
	_, err := testClient(server.URL).Do(t.Context(), testCall, nil)
	g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeNoAnswer))
}

func TestDo_namesNoPortOfABrokenConnection(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(nil)
	server.Close()
	_, err := testClient(server.URL).Do(t.Context(), testCall, nil)
	g.Expect(err).To(MatchError("NoAnswer: The connection failed: connection refused."))
}

func TestDo_tellsNoTimeOfACertificate(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	client := testClient(server.URL)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{
		RootCAs: pool,
		Time:    func() time.Time { return server.Certificate().NotAfter.AddDate(1, 0, 0) },
	}
	_, err := client.Do(t.Context(), testCall, nil)
	g.Expect(err).To(MatchError("NoAnswer: The server's certificate has expired or is not valid."))
}

// With HTTP/2, one broken connection would fail all calls.
func TestDo_usesHTTP1(t *testing.T) {
	g := NewWithT(t)
	var protocol atomic.Value
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(r.Proto)
		_, _ = io.WriteString(w, `{"RequestId":"`+someID+`"}`)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := testClient(server.URL)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client.http.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	_, err := client.Do(t.Context(), testCall, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(protocol.Load()).To(Equal("HTTP/1.1"))
}

func TestDo_hostNameThatDoesNotResolve(t *testing.T) {
	for name, test := range map[string]struct {
		endpoints Endpoints
		central   bool
		proxy     string
		dns       net.DNSError // whose Name is set by the dialer
		want      string
	}{
		"of a region": {dns: net.DNSError{IsNotFound: true},
			want: "EndpointNotFound: The host name ecs.xx-nowhere.aliyuncs.com does not resolve."},
		"of a region, in a VPC": {endpoints: Endpoints{VPC: true}, dns: net.DNSError{IsNotFound: true},
			want: "EndpointNotFound: The host name ecs-vpc.xx-nowhere.aliyuncs.com does not resolve."},
		"of a central product, in a VPC": {endpoints: Endpoints{VPC: true}, central: true, dns: net.DNSError{IsNotFound: true},
			want: "EndpointNotFound: The host name ecs-vpc.xx-nowhere.aliyuncs.com does not resolve."},
		"of a region, overridden for another product": {endpoints: Endpoints{Products: map[string]string{"sts": "http://sts.invalid"}},
			dns: net.DNSError{IsNotFound: true}, want: "EndpointNotFound: The host name ecs.xx-nowhere.aliyuncs.com does not resolve."},
		"of a central product": {central: true, dns: net.DNSError{IsNotFound: true},
			want: "NoAnswer: The host name ecs.aliyuncs.com does not resolve."},
		"of an override": {endpoints: Endpoints{Override: "http://ecs.invalid:80"}, dns: net.DNSError{IsNotFound: true},
			want: "NoAnswer: The host name ecs.invalid does not resolve."},
		"of an override for the product": {endpoints: Endpoints{Products: map[string]string{"ecs": "https://ecs.invalid"}},
			dns: net.DNSError{IsNotFound: true}, want: "NoAnswer: The host name ecs.invalid does not resolve."},
		"of a proxy": {proxy: "http://proxy.invalid:3128", dns: net.DNSError{IsNotFound: true},
			want: "NoAnswer: The host name proxy.invalid does not resolve."},
		"because the DNS server fails": {dns: net.DNSError{IsTemporary: true, Server: "127.0.0.1:53"},
			want: "NoAnswer: The host name ecs.xx-nowhere.aliyuncs.com does not resolve."},
		"because the DNS server does not answer": {dns: net.DNSError{IsTimeout: true, IsTemporary: true},
			want: "NoAnswer: The host name ecs.xx-nowhere.aliyuncs.com does not resolve."},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			client := testClient("", func(c *Config) { c.Endpoints = test.endpoints })
			transport := client.http.Transport.(*http.Transport)
			transport.Proxy = func(*http.Request) (*url.URL, error) {
				if test.proxy == "" {
					return nil, nil
				}
				return url.Parse(test.proxy)
			}
			transport.DialContext = func(_ context.Context, network, address string) (net.Conn, error) {
				failed := test.dns
				failed.Name, _, _ = net.SplitHostPort(address)
				return nil, &net.OpError{Op: "dial", Net: network, Err: &failed}
			}
			call := testCall
			call.Region, call.Central = "xx-nowhere", test.central
			_, err := client.Do(t.Context(), call, nil)
			g.Expect(err).To(MatchError(test.want))
		})
	}
}

// A deletion that took effect and whose answer was lost must not be sent again behind the caller's back.
func TestDo_sendsACallOnceWhenTheConnectionBreaks(t *testing.T) {
	g := NewWithT(t)
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"RequestId":"`+someID+`"}`)
	}))
	defer server.Close()
	client := testClient(server.URL)
	_, err := client.Do(t.Context(), testCall, nil)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = client.Do(t.Context(), testCall, nil) // on the connection that was kept
	g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeNoAnswer))
	g.Expect(calls.Load()).To(BeEquivalentTo(2))
}

func TestDo_showsNoKeyTokenOrSignatureInErrors(t *testing.T) {
	g := NewWithT(t)
	var signature atomic.Value
	handlers := []http.HandlerFunc{
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"RequestId":"r","Code":"SignatureDoesNotMatch","Message":"No, `+
				`canary-id. server string to sign is:`+r.Header.Get("Authorization")+`"}`)
		},
	}
	var next atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, s, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
		signature.Store(s)
		handlers[next.Load()](w, r)
	}))
	defer server.Close()
	client := testClient(server.URL, func(c *Config) { c.Timeout = 200 * time.Millisecond })
	for i := range handlers {
		next.Store(int32(i))
		_, err := client.Do(t.Context(), testCall, nil)
		for ; err != nil; err = errors.Unwrap(err) {
			g.Expect(fmt.Sprintf("%+v %#v", err, err)).NotTo(Or(ContainSubstring("canary"), ContainSubstring(signature.Load().(string))))
		}
	}
}

func TestDo_reusesTheConnectionsOf64Callers(t *testing.T) {
	g := NewWithT(t)
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"RequestId":"`+someID+`"}`)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client := testClient(server.URL)
	var callers sync.WaitGroup
	var started, failed atomic.Int32
	for range 64 {
		callers.Go(func() {
			for started.Add(1) <= 10_000 {
				if _, err := client.Do(t.Context(), testCall, nil); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	callers.Wait()
	g.Expect(failed.Load()).To(BeZero())
	g.Expect(connections.Load()).To(BeNumerically("<=", 70))
}

func TestDo_reportsEachCallToTheObserver(t *testing.T) {
	g := NewWithT(t)
	server := answering(t, 403, "application/json", `{"RequestId":"r","Code":"ImageUseShared","Message":"No."}`)
	var seen bytes.Buffer
	client := testClient(server.URL, func(c *Config) {
		c.Observe = func(action, code string, _ time.Duration) { fmt.Fprint(&seen, action, " ", code) }
	})
	_, err := client.Do(t.Context(), testCall, nil)
	g.Expect(err).To(HaveOccurred())
	g.Expect(seen.String()).To(Equal("DeleteImage ImageUseShared"))
}

func TestEndpoints(t *testing.T) {
	g := NewWithT(t)
	url := func(e Endpoints, product, region string) string {
		target, _ := e.url(Call{Product: product, Region: region, Central: product == "sts"})
		return target
	}
	g.Expect(url(Endpoints{}, "ecs", "cn-hangzhou")).To(Equal("https://ecs-cn-hangzhou.aliyuncs.com"))
	g.Expect(url(Endpoints{}, "ecs", "eu-central-1")).To(Equal("https://ecs.eu-central-1.aliyuncs.com"))
	g.Expect(url(Endpoints{}, "sts", "cn-hangzhou")).To(Equal("https://sts.aliyuncs.com"))
	vpc := Endpoints{VPC: true}
	g.Expect(url(vpc, "ecs", "cn-hangzhou")).To(Equal("https://ecs-vpc.cn-hangzhou.aliyuncs.com"))
	g.Expect(url(vpc, "sts", "cn-hangzhou")).To(Equal("https://sts-vpc.cn-hangzhou.aliyuncs.com"))
	override := Endpoints{Override: "http://127.0.0.1:8089/", Products: map[string]string{"sts": "http://127.0.0.1:8090"}}
	g.Expect(url(override, "ecs", "cn-hangzhou")).To(Equal("http://127.0.0.1:8089"))
	g.Expect(url(override, "sts", "cn-hangzhou")).To(Equal("http://127.0.0.1:8090"))
	g.Expect(url(Endpoints{Override: "http://127.0.0.1:8089/"}, "sts", "x")).To(Equal("http://127.0.0.1:8089"))
	for _, good := range []string{"", "http://127.0.0.1:8089", "https://ecs.example/"} {
		g.Expect(IsEndpoint(good)).To(BeTrue(), good)
	}
	for _, bad := range []string{"127.0.0.1:8089", "ftp://x", "http://", "https://x/path", "https://x?y", "https://x?", "http://x#y",
		"https://u:p@x"} {
		g.Expect(IsEndpoint(bad)).To(BeFalse(), bad)
	}
}

func TestDo_sendsAnUnsignedCallWithoutKeyAndSecretInTheURL(t *testing.T) {
	g := NewWithT(t)
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"RequestId":"`+someID+`"}`)
	}))
	defer server.Close()
	_, err := testClient(server.URL).Do(t.Context(), Call{
		Product: "sts", Version: "2015-04-01", Action: "AssumeRoleWithOIDC", Unsigned: true,
		Query: url.Values{"RoleArn": {"acs:ram::1:role/r"}}, Secret: url.Values{"OIDCToken": {"canary-oidc"}},
	}, nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.Method).To(Equal(http.MethodPost))
	g.Expect(got.URL.Query()).To(And(HaveKeyWithValue("Action", []string{"AssumeRoleWithOIDC"}),
		HaveKeyWithValue("Version", []string{"2015-04-01"}), HaveKeyWithValue("Format", []string{"JSON"}),
		HaveKeyWithValue("RoleArn", []string{"acs:ram::1:role/r"}), HaveKey("Timestamp"), HaveKey("SignatureNonce")))
	g.Expect(got.Header).NotTo(HaveKey("Authorization"))
	g.Expect(got.Header.Get("Content-Type")).To(Equal("application/x-www-form-urlencoded"))
	g.Expect(got.URL.String()).NotTo(ContainSubstring("canary"))
	g.Expect(string(body)).To(Equal("OIDCToken=canary-oidc"))
}
