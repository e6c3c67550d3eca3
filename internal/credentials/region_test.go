package credentials

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// dialWith replaces, for the clients that a test makes from now on, the way to open connections.
func dialWith(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error), roots *x509.CertPool) {
	t.Helper()
	original := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = original })
	// The certificate of httptest is for this name.
	http.DefaultTransport = &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
}

// hosts are those to which connections were opened.
type hosts struct {
	sync.Mutex
	names map[string]int
}

// inVPC has the source call STS in a region by the endpoints of a VPC. No other host exists.
func (w *world) inVPC(t *testing.T, source, stsRegion string) (*openapi.Client, *hosts) {
	t.Helper()
	server := httptest.NewTLSServer(w.sim)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	seen := &hosts{names: map[string]int{}}
	dialWith(t, func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, _ := net.SplitHostPort(address)
		seen.Lock()
		defer seen.Unlock()
		seen.names[host]++
		if host != "sts-vpc.cn-beijing.aliyuncs.com" {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
		}
		return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
	}, roots)
	api := openapi.New(openapi.Config{Endpoints: openapi.Endpoints{VPC: true}, Timeout: 5 * time.Second, Connections: 64, Clock: w.clock})
	config := w.source.Config
	config.API, config.STSRegion = api, stsRegion
	config.Ambient, _ = Ambient(source, w.getenv, api, stsRegion, w.clock)
	w.source = New(config)
	return api, seen
}

// An object of a region that does not exist must not keep the identity from all other objects.
func TestSource_callsSTSInItsOwnRegionWhateverTheRegionOfAnObject(t *testing.T) {
	for name, test := range map[string]struct {
		source, secret string
		fields         map[string]string
	}{
		"for the account of a key":      {source: "env"},
		"for a service account":         {source: "rrsa"},
		"for the role of a Secret":      {source: "env", secret: "key", fields: map[string]string{keyRoleARN: tenantRole, keyExternalID: "agreed"}},
		"for the key of a Secret":       {source: "none", secret: "key", fields: key},
		"for a role, with two renewals": {source: "rrsa", secret: "key", fields: map[string]string{keyRoleARN: tenantRole, keyExternalID: "agreed"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			w := newWorld(t, "none", test.fields)
			api, seen := w.inVPC(t, test.source, "cn-beijing")
			for _, region := range []string{"xx-nowhere", "cn-hangzhou"} {
				w.clock.Step(50 * time.Minute) // a renewal is due
				found, err := w.find("home", test.secret)
				g.Expect(err).NotTo(HaveOccurred())
				_, err = ecs.New(api).As(found).FindImage(t.Context(), region, "m-bp1")
				g.Expect(failure.CodeOf(err)).To(Equal(failure.CodeEndpointNotFound))
			}
			g.Eventually(func(g Gomega) {
				seen.Lock()
				defer seen.Unlock()
				g.Expect(seen.names).To(HaveKey("sts-vpc.cn-beijing.aliyuncs.com"))
				g.Expect(seen.names).To(HaveLen(3), "and ECS in both regions")
			}).Should(Succeed())
		})
	}
}

func TestSource_failsIfTheEndpointOfSTSDoesNotExist(t *testing.T) {
	g := NewWithT(t)
	w := newWorld(t, "none", nil)
	w.inVPC(t, "env", "xx-nowhere")
	_, err := w.find("home", "")
	refused := (*failure.Error)(nil)
	g.Expect(errors.As(err, &refused)).To(BeTrue())
	g.Expect(refused.Code).To(Equal(failure.CodeEndpointNotFound))
	g.Expect(refused.Action).To(Equal("sts:GetCallerIdentity"), "which tells it from an object's region")
}
