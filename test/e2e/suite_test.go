//go:build e2e

// Package e2e checks on a real node what cannot be seen without one: the image that the Dockerfile builds, in pods that a
// kubelet starts, probes, kills and replaces, behind a Service and a network policy. `make e2e` runs it inside the node.
package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var admin client.WithWatch

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "e2e")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	SetDefaultEventuallyTimeout(time.Minute)
	SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	log.SetLogger(zap.New(zap.WriteTo(GinkgoWriter)))
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())
	config, err := ctrl.GetConfig()
	Expect(err).NotTo(HaveOccurred())
	admin, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	kubectl(ctx, "apply", "--server-side", "-k", "test/e2e/cloud")
	kubectl(ctx, "rollout", "status", "-n", "cloud", "deployment/ecssim", "--timeout=60s")
	kubectl(ctx, "apply", "--server-side", "-k", "test/e2e/operator")
	kubectl(ctx, "rollout", "status", "-n", namespace, "deployment/"+cluster.Name, "--timeout=60s")
})

// In this order: the first looks at the pod before anything happens to it, and the last takes it away.
var _ = Describe("The operator", Ordered, ContinueOnFailure, func() {
	Describe("in its first pod", startSpecs)
	Describe("deleting an image", deletionSpecs)
	Describe("serving metrics", metricsSpecs)
	Describe("behind its network policy", networkSpecs)
	Describe("as a release of Helm", helmSpecs)
})

// A line for each check.
var _ = ReportAfterEach(func(report SpecReport) {
	text := strings.Join(append(report.ContainerHierarchyTexts, report.LeafNodeText), " ")
	fmt.Printf("%-7s %6.1f s  %s\n", report.State, report.RunTime.Seconds(), text)
})
