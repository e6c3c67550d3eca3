package install

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var _ = Describe("The manager, told to stop while DeleteImage is under way", func() {
	It("finishes the deletions and writes their events", func(ctx SpecContext) {
		const count, in = 20, "stopped"
		sim := ecssim.Scenario{AccountID: account, AccessKeys: []ecssim.AccessKey{{ID: in, Secret: in + "-secret"}}}
		manifests := ""
		for n := range count {
			id := fmt.Sprint("m-stopped", n)
			sim.Images = append(sim.Images, ecssim.Image{ImageID: id, RegionID: "cn-hangzhou"})
			manifests += manifest(in, id, id, "")
		}
		cloud, err := ecssim.New(sim, nil)
		Expect(err).NotTo(HaveOccurred())
		var held atomic.Int32
		signaled := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Acs-Action") == "DeleteImage" {
				held.Add(1)
				<-signaled
			}
			cloud.ServeHTTP(rw, r)
		}))
		DeferCleanup(func() { cloud.Close(); server.Close() })
		Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: in}})).To(Succeed())
		session := startShardWith(slowEvents(ctx), in, server.URL)
		Expect(kubectl(ctx, "apply", "-f", cluster.Write("stopped.yaml", []byte(manifests)))).To(cluster.BeQuiet())
		Expect(kubectl(ctx, "wait", "-n", in, "cimg", "--all", "--for=condition=Ready", "--timeout=30s").Err).NotTo(HaveOccurred())
		Expect(kubectl(ctx, "delete", "-n", in, "cimg", "--all", "--wait=false").Err).NotTo(HaveOccurred())
		Eventually(held.Load).Should(BeEquivalentTo(count))
		session.Terminate()
		Eventually(session.Err).Should(gbytes.Say("Stopping and waiting for leader election runnables"))
		close(signaled)
		Eventually(session).WithTimeout(30 * time.Second).Should(gexec.Exit(0))

		Expect(cloud.Images()).To(BeEmpty())
		Expect(deletedIn(ctx, in)).To(HaveLen(count))
	})
})

var _ = Describe("The manager, told to stop before it has read the objects", func() {
	It("ends", func(ctx SpecContext) {
		var asked atomic.Bool
		kubeconfig := proxied(ctx, func(rw http.ResponseWriter, r *http.Request, proxy http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/customimages") {
				asked.Store(true)
				<-r.Context().Done()
				return
			}
			proxy.ServeHTTP(rw, r)
		})
		session := startShardWith(kubeconfig, metav1.NamespaceDefault, "http://127.0.0.1:1")
		Eventually(asked.Load).Should(BeTrue())
		session.Terminate()
		Eventually(session).WithTimeout(10 * time.Second).Should(gexec.Exit(0))
	})
})

var _ = Describe("The manager, whose API server stops answering after the finalizer of a deleted object is removed", func() {
	It("ends when the lease is lost, and logs that an event is not written", func(ctx SpecContext) {
		const in = "unheard"
		cloud, err := ecssim.New(ecssim.Scenario{
			AccountID: account, AccessKeys: []ecssim.AccessKey{{ID: in, Secret: in + "-secret"}},
			Images: []ecssim.Image{{ImageID: "m-unheard", RegionID: "cn-hangzhou"}},
		}, nil)
		Expect(err).NotTo(HaveOccurred())
		server := httptest.NewServer(cloud)
		DeferCleanup(func() { cloud.Close(); server.Close() })
		Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: in}})).To(Succeed())
		var isDeleted, isDown atomic.Bool
		kubeconfig := proxied(ctx, func(rw http.ResponseWriter, r *http.Request, proxy http.Handler) {
			if isDown.Load() {
				panic(http.ErrAbortHandler)
			}
			proxy.ServeHTTP(rw, r)
			if r.Method == http.MethodPatch && isDeleted.Load() && !strings.HasSuffix(r.URL.Path, "/status") {
				isDown.Store(true)
			}
		})
		session := startShardWith(kubeconfig, in, server.URL, "--leader-elect", "--leader-election-namespace="+namespace)
		DeferCleanup(func(ctx SpecContext) { // it was not released
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "ecs-image-gc"}}
			Expect(admin.Delete(ctx, lease)).To(Succeed())
		})
		Expect(kubectl(ctx, "apply", "-f", cluster.Write("unheard.yaml", []byte(manifest(in, "m-unheard", "m-unheard", ""))))).To(cluster.BeQuiet())
		Expect(kubectl(ctx, "wait", "-n", in, "cimg", "--all", "--for=condition=Ready", "--timeout=30s").Err).NotTo(HaveOccurred())
		isDeleted.Store(true)
		Expect(kubectl(ctx, "delete", "-n", in, "cimg", "--all", "--timeout=30s").Err).NotTo(HaveOccurred())
		Eventually(session).WithTimeout(30 * time.Second).Should(gexec.Exit(1))

		Expect(cloud.Images()).To(BeEmpty())
		Expect(deletedIn(ctx, in)).To(BeEmpty())
		Expect(session.Err).To(gbytes.Say(`Stopped before all events were written.*"unwritten": *1`))
	})
})

// slowEvents returns a kubeconfig of the operator by which each event takes a second to write.
func slowEvents(ctx context.Context) (kubeconfig string) {
	GinkgoHelper()
	return proxied(ctx, func(rw http.ResponseWriter, r *http.Request, proxy http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
				return
			}
		}
		proxy.ServeHTTP(rw, r)
	})
}

// proxied returns a kubeconfig of the operator by which each request is handled with a proxy of the API server.
func proxied(ctx context.Context, handle func(rw http.ResponseWriter, r *http.Request, proxy http.Handler)) (kubeconfig string) {
	GinkgoHelper()
	target, err := url.Parse(k8s.Config.Host)
	Expect(err).NotTo(HaveOccurred())
	proxy, operator := httputil.NewSingleHostReverseProxy(target), rest.AnonymousClientConfig(k8s.Config)
	operator.BearerToken = k8s.Token(ctx, name) // by http, the manager sends none
	proxy.Transport, err = rest.TransportFor(operator)
	Expect(err).NotTo(HaveOccurred())
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handle(rw, r, proxy) }))
	DeferCleanup(server.Close)
	config, err := os.ReadFile(k8s.OperatorKubeconfig(ctx))
	Expect(err).NotTo(HaveOccurred())
	return cluster.Write("proxied.kubeconfig", bytes.ReplaceAll(config, []byte(k8s.Config.Host), []byte(server.URL)))
}

// deletedIn returns the names of the objects about which the API server has the event Deleted.
func deletedIn(ctx context.Context, in string) map[string]bool {
	GinkgoHelper()
	list, found := &eventsv1.EventList{}, map[string]bool{}
	Expect(admin.List(ctx, list, client.InNamespace(in))).To(Succeed())
	for _, event := range list.Items {
		if event.Reason == "Deleted" {
			found[event.Regarding.Name] = true
		}
	}
	return found
}
