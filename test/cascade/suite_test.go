// Package cascade checks that no image is deleted because something around its object is: the namespace, by a real
// kube-controller-manager as in a cluster, or the CustomResourceDefinition, by the API server. The manager runs under
// the service account and the roles that config/ gives it.
package cascade

import (
	"context"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"github.com/onsi/gomega/gexec"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	root   = "../.." // where commands run
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
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "cascade")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	readInputs("config", "hack/tools", "api", "internal", "main.go", "go.mod")
	log.SetLogger(zap.New(zap.WriteTo(GinkgoWriter)))
	environment := &envtest.Environment{}
	config, err := environment.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	scheme := runtime.NewScheme()
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())
	admin, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())

	kubeconfig := write("admin.kubeconfig", environment.KubeConfig)
	kubectl = func(ctx context.Context, args ...string) {
		GinkgoHelper()
		run(ctx, environment.ControlPlane.KubectlPath, append([]string{"--kubeconfig", kubeconfig}, args...)...)
	}
	manifests := run(ctx, "go", "tool", "-modfile=hack/tools/go.mod", "kustomize", "build", "config/default")
	kubectl(ctx, "apply", "--server-side", "-f", write("default.yaml", manifests))
	startNamespaceController(environment.ControlPlane.KubectlPath, kubeconfig)
	prepareOperator(ctx, config)
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

// prepareOperator builds the manager and starts it, with a cloud behind it.
func prepareOperator(ctx context.Context, config *rest.Config) {
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
		path: filepath.Join(GinkgoT().TempDir(), "manager"),
		// A blocked object is not tried again while the test lasts, unless something wakes it.
		args: []string{"--ecs-endpoint=" + cloud.URL, "--sts-endpoint=" + cloud.URL, "--blocked-backoff=1h,1h",
			"--metrics-bind-address=0", "--health-probe-bind-address=0"},
		env: []string{"KUBECONFIG=" + operatorKubeconfig(ctx, config),
			"ALIBABA_CLOUD_ACCESS_KEY_ID=operators-id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=operators"},
	}
	run(ctx, "go", "build", "-o", operator.path, ".")
	DeferCleanup(operator.kill)
	operator.start("Starting workers")
}

func operatorKubeconfig(ctx context.Context, cluster *rest.Config) string {
	GinkgoHelper()
	account := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: "imagegc-system", Name: "imagegc-controller-manager"},
	}
	token := &authenticationv1.TokenRequest{}
	Expect(admin.SubResource("token").Create(ctx, account, token)).To(Succeed())
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: cluster.Host, CertificateAuthorityData: cluster.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	data, err := clientcmd.Write(*config)
	Expect(err).NotTo(HaveOccurred())
	return write("operator.kubeconfig", data)
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

// readInputs reads the files of which programs are made that the test starts: by that `go test` knows that its last
// result no longer holds when they have changed.
func readInputs(paths ...string) {
	GinkgoHelper()
	tree := os.DirFS(root)
	for _, path := range paths {
		Expect(fs.WalkDir(tree, path, func(file string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				_, err = fs.ReadFile(tree, file)
			}
			return err
		})).To(Succeed())
	}
}

func run(ctx context.Context, program string, args ...string) []byte {
	GinkgoHelper()
	command := exec.CommandContext(ctx, program, args...)
	command.Dir, command.Stderr = root, GinkgoWriter
	stdout, err := command.Output()
	Expect(err).NotTo(HaveOccurred(), "%s %v", filepath.Base(program), args)
	return stdout
}

func write(name string, content []byte) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), name)
	Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
	return file
}
