//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What becomes of a connection.
const (
	open    = "open"
	refused = "refused"
	silent  = "silent"
)

const (
	monitoring = "monitoring" // a namespace with the label of those that may read metrics
	other      = "other"      // one without
)

// The first connection of each group shows that the next one fails by the policy.
func networkSpecs() {
	BeforeAll(func(ctx SpecContext) {
		for name, labels := range map[string]map[string]string{monitoring: {"metrics": "enabled"}, other: nil} {
			Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})).To(Succeed())
		}
		// In the operator's image is nothing to probe with, so a pod with its labels stands for it. That has no port of the
		// Service's name, and so gets no connections of it.
		labels := deployment(ctx).Spec.Selector.MatchLabels
		for _, pod := range []*corev1.Pod{probe(monitoring, nil), probe(other, nil), probe(namespace, labels)} {
			Expect(admin.Create(ctx, pod)).To(Succeed())
		}
		for _, in := range []string{monitoring, other, namespace} {
			kubectl(ctx, "wait", "-n", in, "pod/probe", "--for=condition=Ready", "--timeout=60s")
		}
	})

	DescribeTable("has a connection", func(ctx SpecContext, from string, to func(context.Context) string, port int, want ...string) {
		Eventually(connect).WithArguments(ctx, from, to, port).Should(BeElementOf(want))
	},
		Entry("to the metrics opened for a namespace with the label", monitoring, service(metrics), 8443, open),
		Entry("to the simulator opened for a namespace without it", other, service(simulator), 8443, open),
		Entry("to the metrics closed for that", other, service(metrics), 8443, refused, silent),
		Entry("to the pod's metrics closed for that", other, managerIP, 8443, refused, silent),
		Entry("to the pod's health closed for a namespace with the label", monitoring, managerIP, 8081, refused, silent),

		Entry("to the API server opened for the operator", namespace, service("default/kubernetes"), 443, open),
		Entry("to ECS opened for the operator", namespace, service(simulator), 8443, open),
		Entry("to DNS opened for the operator", namespace, service("kube-system/kube-dns"), 53, open),
		Entry("to another port of the DNS pod opened for others", other, dnsIP, 8080, open),
		Entry("to another port of the DNS pod closed for the operator", namespace, dnsIP, 8080, refused, silent),
	)

	It("lets the node read the health", func(ctx SpecContext) {
		response, err := http.Get("http://" + managerIP(ctx) + ":8081/healthz")
		Expect(err).NotTo(HaveOccurred())
		defer response.Body.Close()
		Expect(response.StatusCode).To(Equal(http.StatusOK))
	})

	It("lets the operator resolve names by UDP", func(ctx SpecContext) {
		found := kubectl(ctx, "exec", "-n", namespace, "probe", "--", "nslookup", "ecssim.cloud.svc.cluster.local")
		Expect(found).To(ContainSubstring(address(ctx, simulator)))
	})
}

// probe is a pod to connect from.
func probe(in string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: in, Name: "probe", Labels: labels},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To(int64(0)),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: ptr.To(true), RunAsUser: ptr.To(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "busybox", Image: "localhost/busybox:1",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// connect has the probe of a namespace connect, and returns what came of it. The exit code of nc is the same for all
// failures, so its words have to tell.
func connect(ctx context.Context, from string, to func(context.Context) string, port int) string {
	GinkgoHelper()
	command := fmt.Sprintf("nc -w 3 %s %d 2>&1 </dev/null && echo %s || true", to(ctx), port, open)
	said := strings.TrimSpace(kubectl(ctx, "exec", "-n", from, "probe", "--", "sh", "-c", command))
	switch {
	case strings.HasSuffix(said, open):
		return open
	case strings.Contains(said, "refused"):
		return refused
	case strings.Contains(said, "timed out"):
		return silent
	}
	return said
}

func service(name string) func(context.Context) string {
	return func(ctx context.Context) string { return address(ctx, name) }
}

func managerIP(ctx context.Context) string { return managerPod(ctx).Status.PodIP }

func dnsIP(ctx context.Context) string {
	GinkgoHelper()
	pods := &corev1.PodList{}
	Expect(admin.List(ctx, pods, client.InNamespace("kube-system"), client.MatchingLabels{"k8s-app": "kube-dns"})).To(Succeed())
	Expect(pods.Items).To(HaveLen(1))
	return pods.Items[0].Status.PodIP
}
