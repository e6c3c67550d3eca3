package install

import (
	"context"
	"net"
	"os/exec"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var _ = Describe("The manager, run as the Deployment runs it", Ordered, func() {
	var (
		session         *gexec.Session
		health, metrics string
	)

	BeforeAll(func(ctx SpecContext) {
		health, metrics = freeAddress(ctx), freeAddress(ctx)
		// The Deployment's probes and ports hold the defaults of these; here they would be taken.
		args := append(deployment.Spec.Template.Spec.Containers[0].Args,
			"--health-probe-bind-address="+health, "--metrics-bind-address="+metrics,
			"--leader-election-namespace="+namespace, "--kubeconfig="+k8s.OperatorKubeconfig(ctx))
		command := exec.Command(manager, args...)
		command.Env = []string{} // as without the Secret
		var err error
		session, err = gexec.Start(command, GinkgoWriter, GinkgoWriter)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { session.Kill().Wait() })
	})

	It("answers the Deployment's probes", func(ctx SpecContext) {
		container := deployment.Spec.Template.Spec.Containers[0]
		for _, probe := range []*corev1.Probe{container.LivenessProbe, container.ReadinessProbe} {
			Eventually(cluster.Get).WithArguments(ctx, "http://"+health+probe.HTTPGet.Path, "").Should(HavePrefix("200 "))
		}
	})

	It("becomes the leader and says so", func(ctx SpecContext) {
		Eventually(holder).WithArguments(ctx).ShouldNot(BeEmpty())
		Eventually(func(g Gomega) {
			events := &corev1.EventList{}
			g.Expect(admin.List(ctx, events, client.InNamespace(namespace))).To(Succeed())
			reasons := []string{}
			for _, event := range events.Items {
				reasons = append(reasons, event.Reason)
			}
			g.Expect(reasons).To(ContainElement("LeaderElection"))
		}).Should(Succeed())
		Eventually(session.Err).Should(gbytes.Say("Starting workers"))
	})

	It("says in an object, and by an event, that it has no access key", func(ctx SpecContext) {
		image := &unstructured.Unstructured{Object: map[string]any{
			"spec": map[string]any{"regionID": "cn-hangzhou", "imageID": "m-bp1keyless"},
		}}
		image.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImage"))
		image.SetNamespace(metav1.NamespaceDefault)
		image.SetName("keyless")
		Expect(admin.Create(ctx, image)).To(Succeed())
		Eventually(kubectl).WithArguments(ctx, "get", "cimg", "-n", "default", "keyless", "-o", "wide").
			Should(tell("NoCredentials", "ALIBABA_CLOUD_ACCESS_KEY_ID"))
		Eventually(kubectl).WithArguments(ctx, "events", "-n", "default", "--for", "customimage/keyless").
			Should(tell("Warning", "ALIBABA_CLOUD_ACCESS_KEY_ID"))
	})

	It("shows its metrics to those alone who may read them", func(ctx SpecContext) {
		url := "https://" + metrics + "/metrics"
		scraper := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "scraper"}}
		Expect(admin.Create(ctx, scraper)).To(Succeed())
		Expect(cluster.Get(ctx, url, "")).To(HavePrefix("401 "))
		Expect(cluster.Get(ctx, url, k8s.Token(ctx, scraper.Name))).To(HavePrefix("403 "))

		bindMetrics(ctx, scraper.Name)
		bound := k8s.Token(ctx, scraper.Name) // the answer about the other one is remembered for a while
		Eventually(cluster.Get).WithArguments(ctx, url, bound).Should(And(HavePrefix("200 "), ContainSubstring("leader_election"),
			ContainSubstring(`imagegc_customimages{reason="NoCredentials"}`), ContainSubstring("imagegc_images_deleted_total 0")))
	})

	It("stops in time when told to, hands over, and was never refused anything", func(ctx SpecContext) {
		grace := time.Duration(*deployment.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
		Expect(grace).To(BeNumerically(">", 120*time.Second),
			"two calls of 45 s, and 10 s each to record them, to release the lease, and for the last events")
		session.Signal(syscall.SIGTERM)
		Eventually(session).Should(gexec.Exit(0))
		Expect(holder(ctx)).To(BeEmpty())
		Expect(string(session.Err.Contents())).NotTo(ContainSubstring("forbidden"))
	})
})

// bindMetrics lets a service account read the metrics.
func bindMetrics(ctx context.Context, account string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "imagegc-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: namespace, Name: account}},
	})).To(Succeed())
}

func holder(ctx context.Context) (string, error) {
	lease := &coordinationv1.Lease{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "ecs-image-gc"}, lease)
	if err != nil || lease.Spec.HolderIdentity == nil {
		return "", client.IgnoreNotFound(err)
	}
	return *lease.Spec.HolderIdentity, nil
}

func freeAddress(ctx context.Context) string {
	GinkgoHelper()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	return listener.Addr().String()
}
