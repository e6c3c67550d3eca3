package credentials

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

const (
	stsRegion  = "cn-hangzhou"
	account    = "1234567890123456"
	tenant     = "9876543210987654"
	ownRole    = "acs:ram::" + account + ":role/imagegc"
	tenantRole = "acs:ram::" + tenant + ":role/imagegc"
	provider   = "acs:ram::" + account + ":oidc-provider/ack-rrsa"
)

// world is a source, its cloud, and a Secret in each of two namespaces, of which "home" may use the ambient identity.
type world struct {
	source    *Source
	clock     *clocktesting.FakeClock
	sim       *ecssim.Server
	tokenFile string
}

func newWorld(t *testing.T, source string, secret map[string]string) *world {
	t.Helper()
	g := NewWithT(t)
	w := &world{clock: clocktesting.NewFakeClock(time.Now().Truncate(time.Second)),
		tokenFile: filepath.Join(t.TempDir(), "token")}
	var err error
	w.sim, err = ecssim.New(ecssim.Scenario{
		AccountID:  account,
		AccessKeys: []ecssim.AccessKey{{ID: "env-id", Secret: "env-secret"}, {ID: "secret-id", Secret: "secret-secret"}},
		Accounts:   []ecssim.Account{{AccountID: tenant, AccessKeys: []ecssim.AccessKey{{ID: "tenant-id", Secret: "tenant-secret"}}}},
		Roles: []ecssim.Role{
			{ARN: ownRole, OIDCProviderARN: provider, OIDCTokens: []string{"token-1"}},
			{ARN: tenantRole, Trusts: []string{account}, ExternalID: "agreed"},
		},
	}, w.clock)
	g.Expect(err).NotTo(HaveOccurred())
	server := httptest.NewServer(w.sim)
	t.Cleanup(func() { w.sim.Close(); server.Close() })
	w.writeToken(t, "token-1")
	api := openapi.New(openapi.Config{Endpoints: openapi.Endpoints{Override: server.URL}, Timeout: 5 * time.Second,
		Connections: 64, Clock: w.clock})
	ambient, _ := Ambient(source, w.getenv, api, stsRegion, w.clock)
	secrets := fake.NewClientBuilder()
	for _, namespace := range []string{"home", "tenant"} {
		secrets.WithObjects(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "key"}, Data: bytesOf(secret)})
	}
	w.source = New(Config{Secrets: secrets.Build(), Ambient: ambient, AmbientNamespaces: []string{"home"}, API: api,
		STSRegion: stsRegion, Clock: w.clock})
	return w
}

func bytesOf(texts map[string]string) map[string][]byte {
	data := map[string][]byte{}
	for key, text := range texts {
		data[key] = []byte(text)
	}
	return data
}

func (w *world) getenv(name string) string {
	return map[string]string{
		envAccessKeyID: "env-id", envAccessKeySecret: "env-secret",
		envRoleARN: ownRole, envOIDCProviderARN: provider, envOIDCTokenFile: w.tokenFile,
	}[name]
}

func (w *world) writeToken(t *testing.T, token string) {
	t.Helper()
	NewWithT(t).Expect(os.WriteFile(w.tokenFile, []byte(token+"\n"), 0o600)).To(Succeed())
}

func (w *world) accept(t *testing.T, tokens ...string) {
	t.Helper()
	NewWithT(t).Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Roles[0].OIDCTokens = tokens })).To(Succeed())
}

// calls counts the calls of an action, whatever came of them.
func (w *world) calls(action string) int {
	count := 0
	for _, call := range w.sim.Calls() {
		if call.Action == action {
			count++
		}
	}
	return count
}

func (w *world) find(namespace, secret string) (openapi.Credentials, error) {
	return w.source.For(context.Background(), namespace, secret)
}

var key = map[string]string{keyAccessKeyID: "secret-id", keyAccessKeySecret: "secret-secret"}

func TestSource_dependsOnTheObjectOnly(t *testing.T) {
	for name, test := range map[string]struct {
		source            string
		secret            map[string]string
		namespace, named  string
		wantKey, wantCode string
		wantAccount       string
	}{
		"a Secret, where the operator's identity may be used too": {"env", key, "home", "key", "secret-id", "", account},
		"a Secret, where it may not":                              {"env", key, "tenant", "key", "secret-id", "", account},
		"no Secret, where the identity may be used":               {"env", key, "home", "", "env-id", "", account},
		"no Secret, where it may not":                             {"env", key, "tenant", "", "", v1alpha1.ReasonAmbientForbidden, ""},
		"a Secret that is not there":                              {"env", key, "home", "another", "", v1alpha1.ReasonSecretNotFound, ""},
		"a Secret of another account": {"env", map[string]string{keyAccessKeyID: "tenant-id", keyAccessKeySecret: "tenant-secret"},
			"tenant", "key", "tenant-id", "", tenant},
		"no identity":                        {"none", key, "home", "", "", v1alpha1.ReasonNoCredentials, ""},
		"a Secret when there is no identity": {"none", key, "home", "key", "secret-id", "", account},
		"a Secret without the secret": {"env", map[string]string{keyAccessKeyID: "secret-id"}, "home", "key", "",
			v1alpha1.ReasonSecretInvalid, ""},
		"a Secret with a key of two lines": {"env", map[string]string{keyAccessKeyID: "secret-id", keyAccessKeySecret: "a\nb"}, "home",
			"key", "", v1alpha1.ReasonSecretInvalid, ""},
		"an empty Secret": {"env", nil, "home", "key", "", v1alpha1.ReasonSecretInvalid, ""},
		"a Secret with a role and a key": {"env", map[string]string{keyAccessKeyID: "secret-id", keyAccessKeySecret: "secret-secret",
			keyRoleARN: tenantRole}, "home", "key", "", v1alpha1.ReasonSecretInvalid, ""},
		"a Secret with a role, where the identity may not be used": {"env", map[string]string{keyRoleARN: tenantRole,
			keyExternalID: "agreed"}, "tenant", "key", "", v1alpha1.ReasonAmbientForbidden, ""},
		"a Secret with a role, and no identity to assume it": {"none", map[string]string{keyRoleARN: tenantRole}, "home", "key", "",
			v1alpha1.ReasonNoCredentials, ""},
		"a wrong key in a Secret": {"env", map[string]string{keyAccessKeyID: "secret-id", keyAccessKeySecret: "wrong"},
			"home", "key", "", "SignatureDoesNotMatch", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			w := newWorld(t, test.source, test.secret)
			got, err := w.find(test.namespace, test.named)
			g.Expect(failure.CodeOf(err)).To(Equal(test.wantCode))
			g.Expect(got.AccessKeyID).To(Equal(test.wantKey))
			g.Expect(got.AccountID).To(Equal(test.wantAccount))
			for _, call := range w.sim.Calls() {
				g.Expect(call.AccessKeyID).To(Or(Equal(test.wantKey), Equal(test.secret[keyAccessKeyID])), "no other key is tried")
			}
		})
	}
}

func TestSource_assumesTheRoleOfASecretOnce(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", map[string]string{keyRoleARN: tenantRole, keyRoleSessionName: "nightly", keyExternalID: "agreed"})
	var got openapi.Credentials
	for range 3 {
		var err error
		got, err = w.find("home", "key")
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(got.AccessKeyID).To(HavePrefix("STS."))
	g.Expect(got.AccountID).To(Equal(tenant))
	g.Expect(got.Origin).To(Equal("role " + tenantRole + " in Secret key"))
	g.Expect(w.calls("AssumeRole")).To(Equal(1))
	call := w.sim.Calls()[0]
	g.Expect(call.AccessKeyID).To(Equal("env-id"))
	g.Expect(call.Parameters).To(And(HaveKeyWithValue("RoleSessionName", "nightly"), HaveKeyWithValue("ExternalId", "agreed")))
}

func TestSource_failsIfARoleDoesNotTrustTheOperator(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", map[string]string{keyRoleARN: tenantRole, keyExternalID: "guessed"})
	_, err := w.find("home", "key")
	refused := (*failure.Error)(nil)
	g.Expect(errors.As(err, &refused)).To(BeTrue())
	g.Expect(refused.Code).To(Equal("NoPermission"))
	g.Expect(refused.Action).To(Equal("sts:AssumeRole"))
	g.Expect(refused.Origin).To(Equal("the operator's environment (read when it starts)"))
}

func TestSource_callsGetCallerIdentityOnceForManyCallers(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", key)
	g.Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Latency = ecssim.Duration(100 * time.Millisecond) })).To(Succeed())
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			_, err := w.find("home", "key")
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
	all.Wait()
	g.Expect(w.calls("GetCallerIdentity")).To(Equal(1))
}

func TestAmbient_readsTheTokenOfTheServiceAccountAtEachRenewal(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "rrsa", nil)
	first, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(first.AccountID).To(Equal(account))
	g.Expect(first.Origin).To(Equal("role " + ownRole + " of the operator's service account"))
	w.clock.Step(39 * time.Minute)
	same, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(same.AccessKeyID).To(Equal(first.AccessKeyID))
	g.Expect(w.calls(withOIDC)).To(Equal(1))

	w.writeToken(t, "token-2") // as the kubelet does it
	w.accept(t, "token-2")
	w.clock.Step(2 * time.Minute) // two thirds of the hour that a key lasts are over
	g.Eventually(func() string {
		got, _ := w.find("home", "")
		return got.AccessKeyID
	}).ShouldNot(Equal(first.AccessKeyID))
	g.Expect(w.calls(withOIDC)).To(Equal(2))
	for _, call := range w.sim.Calls() {
		g.Expect(call.AccessKeyID).NotTo(Equal("env-id"))
	}
}

const withOIDC = "AssumeRoleWithOIDC"

func TestAmbient_usesAValidKeyWhileSTSFails(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "rrsa", nil)
	first, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.sim.AddFault(ecssim.Fault{Action: withOIDC, Code: "ServiceUnavailable", HTTPStatus: 503, Times: -1})).To(Succeed())
	w.clock.Step(time.Hour - 10*time.Second)
	for range 20 {
		got, err := w.find("home", "")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(got.AccessKeyID).To(Equal(first.AccessKeyID))
	}
	g.Eventually(func() int { return w.calls(withOIDC) }).Should(Equal(2))
	g.Consistently(func() int {
		got, err := w.find("home", "")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(got.AccessKeyID).To(Equal(first.AccessKeyID), "the renewal has failed by now")
		return w.calls(withOIDC)
	}).WithTimeout(200*time.Millisecond).Should(Equal(2), "the next renewal has to wait a little")

	w.clock.Step(10 * time.Second) // the end of the key
	_, err = w.find("home", "")
	g.Expect(failure.CodeOf(err)).To(Equal("ServiceUnavailable"))
	w.sim.ClearFaults()
	w.clock.Step(pause)
	got, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.AccessKeyID).NotTo(Equal(first.AccessKeyID))
}

func TestAmbient_sharesOneRenewalBetweenManyCallers(t *testing.T) {
	for _, fails := range []bool{false, true} {
		g := NewWithT(t)
		w := newWorld(t, "rrsa", nil)
		g.Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Latency = ecssim.Duration(100 * time.Millisecond) })).To(Succeed())
		want := ""
		if fails {
			want = "AuthenticationFail.OIDCToken.Invalid"
			w.writeToken(t, "forged")
		}
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				_, err := w.find("home", "")
				g.Expect(failure.CodeOf(err)).To(Equal(want))
			})
		}
		all.Wait()
		g.Expect(w.calls(withOIDC)).To(Equal(1))
	}
}

func TestAmbient_doesNotWaitForARenewalWhileTheLastKeyIsValid(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "rrsa", nil)
	first, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.sim.AddFault(ecssim.Fault{Action: withOIDC, Kind: ecssim.FaultHang, Times: 1})).To(Succeed())
	w.clock.Step(50 * time.Minute)
	started := time.Now()
	got, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.AccessKeyID).To(Equal(first.AccessKeyID))
	g.Expect(time.Since(started)).To(BeNumerically("<", time.Second))
}

func TestAmbient_namesWhatARoleForServiceAccountsLacks(t *testing.T) {
	for _, lacking := range []string{envRoleARN, envOIDCProviderARN, envOIDCTokenFile} {
		g := NewWithT(t)
		w := newWorld(t, "none", nil)
		identity, source := Ambient("auto", func(name string) string {
			if name == lacking {
				return ""
			}
			return w.getenv(name)
		}, w.source.Config.API, stsRegion, w.clock)
		g.Expect(source).To(Equal("rrsa"), "the access key beside it may belong to another account")
		_, err := identity(t.Context())
		g.Expect(failure.CodeOf(err)).To(Equal(v1alpha1.ReasonNoCredentials))
		g.Expect(err).To(MatchError(ContainSubstring(lacking)))
		g.Expect(w.sim.Calls()).To(BeEmpty())
	}
	g := NewWithT(t)
	w := newWorld(t, "rrsa", nil)
	g.Expect(os.Remove(w.tokenFile)).To(Succeed())
	_, err := w.find("home", "")
	g.Expect(failure.CodeOf(err)).To(Equal(v1alpha1.ReasonNoCredentials))
	g.Expect(err).To(MatchError(ContainSubstring("no such file")))
}

// instance serves metadata as an ECS instance finds it.
func instance(t *testing.T, role string, broken bool) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const roles = "/latest/meta-data/ram/security-credentials/"
		switch {
		case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" &&
			r.Header.Get("X-aliyun-ecs-metadata-token-ttl-seconds") != "":
			_, _ = io.WriteString(w, "metadata-token")
		case r.Header.Get("X-aliyun-ecs-metadata-token") != "metadata-token":
			w.WriteHeader(http.StatusForbidden)
		case role == "" || r.Method != http.MethodGet:
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == roles:
			_, _ = io.WriteString(w, role)
		case broken:
			_, _ = io.WriteString(w, `{"AccessKeyId":"canary-id","AccessKeySecret":"canary-secret","Code":"Success"}`)
		case r.URL.Path == roles+role:
			_, _ = io.WriteString(w, `{"AccessKeyId":"STS.node","AccessKeySecret":"s","SecurityToken":"t","Code":"Success",`+
				`"Expiration":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestFromInstance_readsTheRoleFromTheMetadata(t *testing.T) {
	g := NewWithT(t)
	clk := clocktesting.NewFakeClock(time.Now())
	got, err := fromInstance(instance(t, "NodeRole", false).URL, clk)(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.AccessKeyID).To(Equal("STS.node"))
	_, err = fromInstance(instance(t, "", false).URL, clk)(t.Context())
	g.Expect(failure.CodeOf(err)).To(Equal(v1alpha1.ReasonNoCredentials))
	_, err = fromInstance(instance(t, "NodeRole", true).URL, clk)(t.Context())
	g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeUnusableAnswer))
	g.Expect(err).NotTo(MatchError(ContainSubstring("canary")))
	_, err = fromInstance("http://127.0.0.1:1", clk)(t.Context())
	g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeNoAnswer))
}

func TestAmbient_replacesNoIdentityThatIsTakenAway(t *testing.T) {
	defer func(service string) { metadataService = service }(metadataService)
	for source, takeAway := range map[string]func(w *world) string{ // returns the variable that is not set any more
		"env":  func(*world) string { return envAccessKeyID },
		"rrsa": func(w *world) string { _ = os.Remove(w.tokenFile); return "" },
		"none": func(*world) string { return "" },
		"ecs-role": func(*world) string {
			metadataService = instance(t, "", false).URL
			return ""
		},
	} {
		t.Run(source, func(t *testing.T) {
			g := NewWithT(t)
			w := newWorld(t, "none", key)
			gone := takeAway(w)
			w.source.Config.Ambient, _ = Ambient(source, func(name string) string {
				if name == gone {
					return ""
				}
				return w.getenv(name)
			}, w.source.Config.API, stsRegion, w.clock)
			_, err := w.find("home", "")
			g.Expect(failure.CodeOf(err)).To(Equal(v1alpha1.ReasonNoCredentials))
			g.Expect(w.sim.Calls()).To(BeEmpty(), "with whatever else there is: a key, a role, a Secret")
		})
	}
}

func TestAmbient_choosesOneSource(t *testing.T) {
	for name, test := range map[string]struct {
		source      string
		environment map[string]string
		want        string
	}{
		"auto with nothing":              {"auto", nil, "env"},
		"auto with an access key":        {"auto", map[string]string{envAccessKeyID: "id"}, "env"},
		"auto with a role and a key":     {"auto", map[string]string{envAccessKeyID: "id", envOIDCTokenFile: "f"}, "rrsa"},
		"env although there is a role":   {"env", map[string]string{envRoleARN: "r", envOIDCTokenFile: "f"}, "env"},
		"rrsa although there is a key":   {"rrsa", map[string]string{envAccessKeyID: "id"}, "rrsa"},
		"the instance's, when asked for": {"ecs-role", map[string]string{envAccessKeyID: "id"}, "ecs-role"},
		"none although there is a key":   {"none", map[string]string{envAccessKeyID: "id", envAccessKeySecret: "s"}, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			_, chosen := Ambient(test.source, func(name string) string { return test.environment[name] }, nil, "", nil)
			NewWithT(t).Expect(chosen).To(Equal(test.want))
		})
	}
}

func TestOwnNamespaces(t *testing.T) {
	g := NewWithT(t)
	inPod := func(name string) string { return map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}[name] }
	read := func(text string, err error) func(string) ([]byte, error) {
		return func(string) ([]byte, error) { return []byte(text), err }
	}
	g.Expect(OwnNamespaces(inPod, read("imagegc-system\n", nil))).To(Equal([]string{"imagegc-system"}))
	_, err := OwnNamespaces(inPod, read("", os.ErrNotExist))
	g.Expect(err).To(MatchError(ContainSubstring("--ambient-namespaces")), "not: all")
	g.Expect(OwnNamespaces(func(string) string { return "" }, read("", os.ErrNotExist))).To(Equal([]string{"*"}))
}
