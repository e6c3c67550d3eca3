//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func startSpecs() {
	It("logs the version that its image was built with", func(ctx SpecContext) {
		_, tag, found := strings.Cut(managerPod(ctx).Spec.Containers[0].Image, ":")
		Expect(found).To(BeTrue(), "a tag, which is the version")
		Eventually(startingLine).WithArguments(ctx).Should(HaveKeyWithValue("version", tag))
	})

	It("becomes the leader", func(ctx SpecContext) {
		Eventually(func(g Gomega) {
			lease := &coordinationv1.Lease{}
			g.Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "ecs-image-gc"}, lease)).To(Succeed())
			g.Expect(lease.Spec.HolderIdentity).To(HaveValue(HavePrefix(managerPod(ctx).Name + "_")))
		}).Should(Succeed())
	})

	It("passes each probe from the first on", func(ctx SpecContext) {
		events := &corev1.EventList{}
		Expect(admin.List(ctx, events, client.InNamespace(namespace),
			client.MatchingFields{"involvedObject.name": managerPod(ctx).Name})).To(Succeed())
		reasons := map[string]string{}
		for _, event := range events.Items {
			reasons[event.Reason] = event.Message
		}
		Expect(reasons).To(HaveKey("Started"), "the events of the pod can be seen")
		Expect(reasons).NotTo(HaveKey("Unhealthy"))
	})

	It("has no rights that it does not need, as the kernel sees it", func() {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", managerProcess()))
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Split(string(status), "\n")).To(ContainElements(
			"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000",
			"CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"))
		mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", managerProcess()))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(mounts)).To(MatchRegexp(`(?m)^\S+ / \S+ ro,`))
	})

	It("is in a namespace that refuses pods with more rights", func(ctx SpecContext) {
		pod := probe(namespace, nil)
		pod.Spec.HostNetwork = true
		err := admin.Create(ctx, pod, client.DryRunAll)
		Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		pod.Spec.HostNetwork = false
		Expect(admin.Create(ctx, pod, client.DryRunAll)).To(Succeed())
	})

	It("writes nothing but JSON to its log, even if a client of its metrics speaks no TLS", func(ctx SpecContext) {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", managerPod(ctx).Status.PodIP+":8443")
		Expect(err).NotTo(HaveOccurred())
		_, err = connection.Write([]byte("no TLS\n"))
		Expect(err).NotTo(HaveOccurred())
		Expect(connection.Close()).To(Succeed())
		Eventually(managerLog).WithArguments(ctx).Should(ContainSubstring("TLS handshake error"))
		expectJSON(managerLog(ctx))
	})
}

func managerLog(ctx context.Context) string {
	GinkgoHelper()
	return kubectl(ctx, "logs", "-n", namespace, managerPod(ctx).Name)
}

// startingLine is the line of the log with which the manager starts.
func startingLine(ctx context.Context) map[string]any {
	GinkgoHelper()
	for line := range strings.Lines(managerLog(ctx)) {
		fields := map[string]any{}
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == "Starting" {
			return fields
		}
	}
	return nil
}
