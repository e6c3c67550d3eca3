package credentials

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// pipes is a listener whose connections are in memory, so that synctest can tell when all callers wait.
type pipes chan net.Conn

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	p <- there
	return here, nil
}

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func TestSource_keepsTheCallThatOthersWaitForWhenACallerLeaves(t *testing.T) {
	for _, chosen := range []string{"env", "rrsa"} {
		t.Run(chosen, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				network, release, calls := make(pipes), make(chan struct{}), 0
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					<-release
					calls++
					_, _ = io.WriteString(w, `{"RequestId":"r","AccountId":"`+account+`","Credentials":{"AccessKeyId":"i",`+
						`"AccessKeySecret":"s","SecurityToken":"t","Expiration":"2999-01-01T00:00:00Z"}}`)
				})}
				go func() { _ = server.Serve(network) }()
				defer func() { close(network); _ = server.Close() }()
				source := sourceOn(t, network, chosen)

				ctx, leave := context.WithCancel(t.Context())
				left, got := make(chan error, 1), make(chan error, 1)
				go func() { _, err := source.For(ctx, "home", ""); left <- err }()
				synctest.Wait() // the call is under way
				go func() { _, err := source.For(t.Context(), "home", ""); got <- err }()
				synctest.Wait() // the other caller waits for it too
				leave()
				g.Expect(<-left).To(MatchError(context.Canceled))
				close(release)
				g.Expect(<-got).NotTo(HaveOccurred())
				g.Expect(calls).To(Equal(map[string]int{"env": 1, "rrsa": 2}[chosen]), "of each action, one")
			})
		})
	}
}

// sourceOn returns a source that uses an identity from the environment, and calls STS through a network in memory.
func sourceOn(t *testing.T, network pipes, chosen string) *Source {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	NewWithT(t).Expect(os.WriteFile(token, []byte("token-1"), 0o600)).To(Succeed())
	dialWith(t, network.dial, nil)
	api := openapi.New(openapi.Config{Endpoints: openapi.Endpoints{Override: "http://sts.test"},
		Timeout: time.Minute, Connections: 64, Clock: clock.RealClock{}})
	ambient, _ := Ambient(chosen, (&world{tokenFile: token}).getenv, api, stsRegion, clock.RealClock{})
	return New(Config{Ambient: ambient, AmbientNamespaces: []string{"*"}, API: api, STSRegion: stsRegion, Clock: clock.RealClock{}})
}
