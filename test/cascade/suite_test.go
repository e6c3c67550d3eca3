// Package cascade checks that no image is deleted because something around its object is: the namespace, by a real
// kube-controller-manager as in a cluster, or the CustomResourceDefinition, by the API server. The manager runs under
// the service account and the roles that config/ gives it.
package cascade

import (
	"context"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	region = "cn-hangzhou"
	crd    = "customimages.ecs.imagegc.io"
)

var (
	admin    client.Client
	kubectl  func(ctx context.Context, args ...string) // as an administrator; has to succeed
	sim      *ecssim.Server
	operator *process
)

func TestCascade(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "cascade")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	Expect(v1alpha1.AddToScheme(scheme.Scheme)).To(Succeed())
	environment := &envtest.Environment{}
	k8s := cluster.Start(ctx, environment)
	admin, kubectl = k8s.Admin, k8s.MustKubectl
	startNamespaceController(environment.ControlPlane.KubectlPath, k8s.Kubeconfig)
	startOperator(cluster.BuildManager(ctx), k8s.OperatorKubeconfig(ctx))
})

// startNamespaceController has namespaces deleted as a cluster does it, and by the identity that it has there.
func startNamespaceController(kubectlPath, kubeconfig string) {
	GinkgoHelper()
	controllers := &process{
		path: filepath.Join(filepath.Dir(kubectlPath), "kube-controller-manager"),
		args: []string{"--kubeconfig=" + kubeconfig, "--controllers=namespace-controller",
			"--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"},
	}
	DeferCleanup(controllers.kill)
	controllers.start("Starting namespace controller")
}

// startOperator starts the manager, with a cloud behind it.
func startOperator(manager, kubeconfig string) {
	GinkgoHelper()
	var err error
	sim, err = ecssim.New(ecssim.Scenario{
		AccountID:  "1234567890123456",
		AccessKeys: []ecssim.AccessKey{{ID: "operators-id", Secret: "operators"}, {ID: "tenants-id", Secret: "tenants"}},
	}, nil)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(sim.Close)
	cloud := httptest.NewServer(sim)
	DeferCleanup(cloud.Close)

	operator = &process{
		path: manager,
		// A blocked object is not tried again while the test lasts, unless something wakes it.
		args: []string{"--ecs-endpoint=" + cloud.URL, "--sts-endpoint=" + cloud.URL, "--blocked-backoff=1h,1h",
			"--metrics-bind-address=0", "--health-probe-bind-address=0"},
		env: []string{"KUBECONFIG=" + kubeconfig,
			"ALIBABA_CLOUD_ACCESS_KEY_ID=operators-id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=operators"},
	}
	DeferCleanup(operator.kill)
	operator.start("Starting workers")
}

// process is a program of which one at a time runs.
type process struct {
	path      string
	args, env []string
	*gexec.Session
}

// start runs the program, and waits until it says that it works.
func (p *process) start(ready string) {
	GinkgoHelper()
	command := exec.Command(p.path, p.args...)
	command.Env = append([]string{}, p.env...) // nothing is inherited
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	p.Session = session
	Eventually(session.Err).Should(gbytes.Say(ready))
}

func (p *process) stop() {
	GinkgoHelper()
	Eventually(p.Terminate()).Should(gexec.Exit(0))
}

func (p *process) kill() {
	if p.Session != nil {
		p.Kill().Wait()
	}
}
