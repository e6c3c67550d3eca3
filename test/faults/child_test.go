package faults

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// childOrder is the environment variable that makes the test program an operator, in a process of its own.
const childOrder = "FAULTS_CHILD"

// order is what a child needs: where the API server and ECS are, and at which call it dies.
type order struct {
	Host, User, Namespace, Cloud string
	CA, Cert, Key                []byte
	Groups                       []string
	What                         string
	N                            int
	Before                       bool
}

// runChild is an operator that kills itself with SIGKILL at the call that it is told.
func runChild(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	cluster := &rest.Config{Host: o.Host}
	cluster.CAData, cluster.CertData, cluster.KeyData = o.CA, o.Cert, o.Key
	cluster.Impersonate.UserName, cluster.Impersonate.Groups = o.User, o.Groups
	calls := &wire{}
	cluster.Wrap(func(next http.RoundTripper) http.RoundTripper { return childTransport{o, calls, next} })
	api := openapi.New(openapi.Config{
		Endpoints: openapi.Endpoints{Override: o.Cloud}, Timeout: callLimit, Connections: 16, Clock: clock.RealClock{},
	})
	return runOperator(context.Background(), cluster, api, cache.Options{})
}

type childTransport struct {
	order order
	calls *wire
	next  http.RoundTripper
}

func (t childTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c := kubeCallOf(r)
	n, _, _ := t.calls.call(c.what)
	strikes := t.order.What == c.what && t.order.N == n
	if strikes && t.order.Before {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	response, err := t.next.RoundTrip(narrow(r, c, t.order.Namespace, readBody(r)))
	if strikes {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return response, err
}

// startChild starts an operator as a process of its own, which ends with the context.
func (w *world) startChild(ctx context.Context, o *operatorProcess) error {
	orders := order{
		Host: operator.Host, User: operator.Impersonate.UserName, Groups: operator.Impersonate.Groups,
		CA: operator.CAData, Cert: operator.CertData, Key: operator.KeyData, Namespace: w.namespace, Cloud: o.cloud.URL,
	}
	if o.number == 1 && !isECS(w.child.what) {
		orders.What, orders.N, orders.Before = w.child.what, w.child.n, w.child.way == diesBefore
	}
	text, err := json.Marshal(orders)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	process := exec.CommandContext(ctx, program)
	process.Env = append(os.Environ(), childOrder+"="+string(text))
	return process.Run()
}

// TestKilled kills an operator that is a process of its own with SIGKILL, at one call after the other. Its calls of the API
// server are not checked here, only those of ECS, and the end.
func TestKilled(t *testing.T) {
	if *onlyPlan != "" || *seed != 0 {
		t.Skip("asked for something else")
	}
	t.Parallel()
	killed := []string{"plain", "in-use", "missing", "veto", "created-again"}
	for _, s := range scenarios {
		if !slices.Contains(killed, s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			recorded := record(t, s)
			for _, what := range recorded.order {
				if isRead(what) {
					continue
				}
				for n := range min(recorded.counts[what], 2) {
					for _, how := range []way{diesBefore, diesAfter} {
						f := fault{what: what, n: n + 1, way: how}
						t.Run(f.String(), func(t *testing.T) {
							t.Parallel()
							kill(t, s, recorded, f)
						})
					}
				}
			}
		})
	}
}

func kill(t *testing.T, s scenario, recorded reference, f fault) {
	p := plan{scenario: s, fault: f}
	w := newWorld(t, s, &wire{choose: p.choose}, lens{})
	w.child = &f
	w.startOperator()
	s.play(w)
	w.settle(recorded.digest)
	w.checkEnd()
	if len(w.allOperators()) < 2 && slices.Contains([]string{"DeleteImage", "patch-customimages"}, f.what) {
		w.violatedf("the operator was not killed")
	}
	w.report(false)
}
