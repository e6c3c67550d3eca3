package cluster

import (
	"context"
	"net/http/httptest"
	"os/exec"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// Account is the one that the simulated cloud of StartOperator belongs to.
const Account = "1234567890123456"

// StartOperator starts the manager with further flags, under its service account, and returns the cloud that it calls. It
// retries within a second. Both end with the suite.
func (c *Cluster) StartOperator(ctx context.Context, flags ...string) *ecssim.Server {
	ginkgo.GinkgoHelper()
	sim, err := ecssim.New(ecssim.Scenario{
		AccountID: Account, AccessKeys: []ecssim.AccessKey{{ID: "key", Secret: "secret"}},
	}, nil)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	cloud := httptest.NewServer(sim)
	ginkgo.DeferCleanup(func() { sim.Close(); cloud.Close() })
	StartProgram(ctx, []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=key", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=secret"}, BuildManager(ctx),
		append([]string{"--kubeconfig=" + c.OperatorKubeconfig(ctx), "--ecs-endpoint=" + cloud.URL, "--blocked-backoff=200ms,1s",
			"--waiting-backoff=200ms,1s", "--metrics-bind-address=0", "--health-probe-bind-address=0"}, flags...)...)
	return sim
}

// StartProgram starts a program that ends with the suite, whenever the context does. It has this environment, and inherits nothing.
func StartProgram(ctx context.Context, environment []string, program string, args ...string) {
	ginkgo.GinkgoHelper()
	command := exec.CommandContext(context.WithoutCancel(ctx), program, args...)
	command.Env = append([]string{}, environment...) // nil would inherit
	session, err := gexec.Start(command, ginkgo.GinkgoWriter, ginkgo.GinkgoWriter)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	ginkgo.DeferCleanup(func() { session.Terminate().Wait(20 * time.Second) })
}
