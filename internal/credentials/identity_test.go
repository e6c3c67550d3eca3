package credentials

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

func TestSource_tellsNothingToASecretThatHoldsTheIDOfAKeyOnly(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", map[string]string{keyAccessKeyID: "env-id", keyAccessKeySecret: "guessed"})
	_, err := w.find("home", "")
	g.Expect(err).NotTo(HaveOccurred())
	got, err := w.find("tenant", "key")
	g.Expect(failure.CodeOf(err)).To(Equal("SignatureDoesNotMatch"))
	g.Expect(got.AccountID).To(BeEmpty())
}

func TestSource_refusesNoOtherKeyForASecretThatHoldsItsIDOnly(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", map[string]string{keyAccessKeyID: "env-id", keyAccessKeySecret: "guessed"})
	g.Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Latency = ecssim.Duration(200 * time.Millisecond) })).To(Succeed())
	var all sync.WaitGroup
	all.Go(func() { _, _ = w.find("tenant", "key") })
	g.Eventually(w.sim.Calls).Should(HaveLen(1), "the tenant asks first")
	all.Go(func() {
		_, err := w.find("home", "")
		g.Expect(err).NotTo(HaveOccurred())
	})
	all.Wait()
}

func TestSource_sharesNothingBetweenSecretsOfTheSameName(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", key)
	guessed := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant", Name: "key"},
		Data: bytesOf(map[string]string{keyAccessKeyID: "secret-id", keyAccessKeySecret: "guessed"})}
	g.Expect(w.source.Config.Secrets.(client.Client).Update(t.Context(), guessed)).To(Succeed())
	_, err := w.find("home", "key")
	g.Expect(err).NotTo(HaveOccurred())
	got, err := w.find("tenant", "key")
	g.Expect(failure.CodeOf(err)).To(Equal("SignatureDoesNotMatch"))
	g.Expect(got.AccountID).To(BeEmpty())
}

func TestSource_sharesARoleBetweenCallersWithTheSameExternalID(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "env", map[string]string{keyRoleARN: tenantRole, keyExternalID: "agreed"})
	_, err := w.find("home", "key")
	g.Expect(err).NotTo(HaveOccurred())
	_, err = w.source.assumed(role{arn: tenantRole, externalID: "guessed"}).credentials(t.Context())
	g.Expect(failure.CodeOf(err)).To(Equal("NoPermission"))
	agreed := role{arn: tenantRole, externalID: "agreed"}
	g.Expect(w.source.assumed(agreed)).To(BeIdenticalTo(w.source.assumed(agreed)))
	for round := range 200 {
		start, all, made := make(chan struct{}), sync.WaitGroup{}, sync.Map{}
		for range 16 {
			all.Go(func() {
				<-start
				made.Store(w.source.assumed(role{arn: fmt.Sprint(round)}), true)
			})
		}
		close(start)
		all.Wait()
		count := 0
		made.Range(func(any, any) bool { count++; return true })
		g.Expect(count).To(Equal(1), "or a role is assumed by each of those who ask at once")
	}
}

func TestRenewed_returnsWhenTheContextEnds(t *testing.T) {
	g, hang := NewWithT(t), make(chan struct{})
	t.Cleanup(func() { close(hang) })
	r := &renewed{clock: clocktesting.NewFakePassiveClock(time.Now()), renew: func(context.Context) (temporary, error) {
		<-hang
		return temporary{}, nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { _, err := r.credentials(ctx); ended <- err }()
	g.Eventually(ended).Should(Receive(MatchError(context.DeadlineExceeded)))
}

func TestRenewed_expiresByTheWallClock(t *testing.T) {
	g, now := NewWithT(t), time.Now()
	r := &renewed{clock: clocktesting.NewFakePassiveClock(now), renew: func(context.Context) (temporary, error) {
		return temporary{ends: now.Round(0).Add(time.Hour)}, nil
	}}
	_, err := r.credentials(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.next.String()).NotTo(ContainSubstring("m="), "or it is judged by a clock that stood still")
}

func TestRenewed_refusesANewKeyThatHasExpired(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "rrsa", nil)
	g.Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.Roles[0].SessionDuration = ecssim.Duration(time.Nanosecond) })).To(Succeed())
	_, err := w.find("home", "")
	g.Expect(err).To(MatchError(ContainSubstring("check the clock")))
}

func TestSTS_failsOnAnIncompleteAnswer(t *testing.T) {
	whole := map[string]string{"AccessKeyId": "i", "AccessKeySecret": "s", "SecurityToken": "t", "Expiration": "2999-01-01T00:00:00Z"}
	for lacking := range whole {
		g := NewWithT(t)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answer := map[string]string{}
			for key, value := range whole {
				if key != lacking {
					answer[key] = value
				}
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"RequestId": "R-1", "Credentials": answer})
		}))
		t.Cleanup(server.Close)
		api := sts{api: openapi.New(openapi.Config{Endpoints: openapi.Endpoints{Override: server.URL}, Timeout: time.Second,
			Connections: 1, Clock: clocktesting.NewFakePassiveClock(time.Now())})}
		_, err := api.assumeRole(t.Context(), role{arn: "a"}, openapi.Credentials{})
		g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeUnusableAnswer), lacking)
		_, err = api.accountOf(t.Context(), openapi.Credentials{})
		g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeUnusableAnswer), "no AccountId")
	}
}

func TestSTS_sendsNoSecretInAURL(t *testing.T) {
	g, urls := NewWithT(t), ""
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { urls += r.URL.String() }))
	t.Cleanup(server.Close)
	api := sts{api: openapi.New(openapi.Config{Endpoints: openapi.Endpoints{Override: server.URL}, Timeout: time.Second,
		Connections: 1, Clock: clocktesting.NewFakePassiveClock(time.Now())})}
	key := openapi.Credentials{AccessKeyID: "canary-id", AccessKeySecret: "canary-secret", SecurityToken: "canary-token"}
	_, _ = api.assumeRole(t.Context(), role{arn: "a", externalID: "canary-external"}, key)
	_, _ = api.assumeRoleWithOIDC(t.Context(), "a", "p", "canary-oidc")
	_, _ = api.accountOf(t.Context(), key)
	g.Expect(urls).To(And(ContainSubstring("RoleArn=a"), Not(ContainSubstring("canary"))))
}

func TestSTS_showsNoSecretThatAServerEchoes(t *testing.T) {
	const secret = "canary/secret+11111111-2222-3333-4444-555555555555"
	for name, answer := range map[string]func(r *http.Request) map[string]string{
		"its code": func(r *http.Request) map[string]string {
			return map[string]string{"Code": r.Header.Get("X-Acs-Security-Token")}
		},
		"its request ID": func(r *http.Request) map[string]string {
			return map[string]string{"Code": "C", "RequestId": r.Header.Get("X-Acs-Security-Token")}
		},
		"its message": func(r *http.Request) map[string]string {
			return map[string]string{"Code": "C", "Message": r.Header.Get("X-Acs-Security-Token")}
		},
		"the body": func(r *http.Request) map[string]string {
			body, _ := io.ReadAll(r.Body)
			return map[string]string{"Code": "C", "Message": string(body)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusBadRequest)
				_ = json.NewEncoder(w).Encode(answer(r))
			}))
			t.Cleanup(server.Close)
			api := sts{api: openapi.New(openapi.Config{Endpoints: openapi.Endpoints{Override: server.URL}, Timeout: time.Second,
				Connections: 1, Clock: clocktesting.NewFakePassiveClock(time.Now())})}
			_, err := api.assumeRole(t.Context(), role{arn: "a", externalID: "canary/external"},
				openapi.Credentials{AccessKeyID: "some-id", AccessKeySecret: "some-secret", SecurityToken: secret})
			shown, _ := json.Marshal(err)
			NewWithT(t).Expect(string(shown)).To(And(ContainSubstring("[hidden]"), Not(ContainSubstring("canary"))))
		})
	}
}

func TestFromInstance_followsNoRedirect(t *testing.T) {
	g, asked := NewWithT(t), 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	t.Cleanup(elsewhere.Close)
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	_, err := fromInstance(server.URL, clocktesting.NewFakePassiveClock(time.Now()))(t.Context())
	g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeUnusableAnswer))
	g.Expect(asked).To(BeZero())
}
