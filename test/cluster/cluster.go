// Package cluster gives a suite a cluster of its own: a real API server into which config/default is installed, as
// kustomize builds it and kubectl applies it. It knows what config/ calls things, and how the project's programs are
// built and run, and can start the operator with a simulated cloud. It knows nothing of images and people: who asks for what
// is the suites' own.
package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// What users, manifests and documentation call these.
const (
	Namespace = "imagegc-system"
	Name      = "imagegc-controller-manager" // of the Deployment and of its service account
)

// Cluster is an API server, and an administrator of it, who is asked for no permission at all.
type Cluster struct {
	Config     *rest.Config
	Admin      client.Client
	Kubeconfig string // the name of a file
	kubectl    string
}

// Start starts a cluster that ends with the suite, and installs config/default.
func Start(ctx context.Context, environment *envtest.Environment) *Cluster {
	ginkgo.GinkgoHelper()
	c := StartEmpty(ctx, environment)
	c.Install(ctx)
	return c
}

// StartEmpty starts a cluster that ends with the suite.
func StartEmpty(ctx context.Context, environment *envtest.Environment) *Cluster {
	ginkgo.GinkgoHelper()
	gomega.SetDefaultEventuallyTimeout(20 * time.Second)
	gomega.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	log.SetLogger(zap.New(zap.WriteTo(ginkgo.GinkgoWriter)))
	config, err := environment.Start()
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	ginkgo.DeferCleanup(environment.Stop)
	admin, err := client.New(config, client.Options{})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	ReadInputs("config", "hack/tools")
	// The first use of a tool on a machine tells on stderr what it downloads.
	gomega.Expect(kustomize(ctx, "version").Err).NotTo(gomega.HaveOccurred())
	return &Cluster{
		Config: config, Admin: admin,
		Kubeconfig: Write("admin.kubeconfig", environment.KubeConfig), kubectl: environment.ControlPlane.KubectlPath,
	}
}

// Install installs config/default without a warning. What the API server thinks of a rule it says there: one that it
// cannot compile is refused.
func (c *Cluster) Install(ctx context.Context) {
	ginkgo.GinkgoHelper()
	gomega.Expect(c.Apply(ctx, Build(ctx, "config/default"))).To(BeQuiet())
	c.AwaitCreation(ctx)
}

// AwaitCreation waits until a CustomImage can be created: for some seconds after it got a CRD, the API server answers 503
// to what a MutatingAdmissionPolicy changes.
func (c *Cluster) AwaitCreation(ctx context.Context) {
	ginkgo.GinkgoHelper()
	c.MustKubectl(ctx, "wait", "--for=condition=Established", "crd/customimages.ecs.imagegc.io")
	image := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "ecs.imagegc.io/v1alpha1", "kind": "CustomImage",
		"metadata": map[string]any{"generateName": "first-", "namespace": metav1.NamespaceDefault},
		"spec":     map[string]any{"regionID": "cn-hangzhou", "imageID": "m-first"},
	}}
	create := func() error { return c.Admin.Create(ctx, image.DeepCopy(), client.DryRunAll) }
	gomega.Eventually(create).Should(gomega.Succeed())
}

// Apply does what `make deploy` does, and has the API server refuse every field that it does not know.
func (c *Cluster) Apply(ctx context.Context, manifests string) Output {
	return run(ctx, strings.NewReader(manifests), c.kubectl, "--kubeconfig", c.Kubeconfig,
		"apply", "--server-side", "--validate=strict", "-f", "-")
}

// Kubectl runs kubectl as the administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) Output {
	return Run(ctx, c.kubectl, append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
}

// MustKubectl runs kubectl as the administrator, and has it succeed.
func (c *Cluster) MustKubectl(ctx context.Context, args ...string) {
	ginkgo.GinkgoHelper()
	gomega.Expect(c.Kubectl(ctx, args...).Err).NotTo(gomega.HaveOccurred())
}

// Token returns a token of a service account in the operator's namespace, as a pod gets it.
func (c *Cluster) Token(ctx context.Context, account string) string {
	ginkgo.GinkgoHelper()
	return c.tokenOf(ctx, Namespace, account)
}

func (c *Cluster) tokenOf(ctx context.Context, namespace, account string) string {
	ginkgo.GinkgoHelper()
	request := &authenticationv1.TokenRequest{}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}
	gomega.Expect(c.Admin.SubResource("token").Create(ctx, owner, request)).To(gomega.Succeed())
	return request.Status.Token
}

// OperatorKubeconfig writes a kubeconfig with a token of the operator's service account, and returns its name.
func (c *Cluster) OperatorKubeconfig(ctx context.Context) string {
	ginkgo.GinkgoHelper()
	return c.KubeconfigOf(ctx, Namespace, Name)
}

// KubeconfigOf writes a kubeconfig with a token of a service account, and returns its name.
func (c *Cluster) KubeconfigOf(ctx context.Context, namespace, account string) string {
	ginkgo.GinkgoHelper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.Config.Host, CertificateAuthorityData: c.Config.CAData}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: c.tokenOf(ctx, namespace, account)}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	data, err := clientcmd.Write(*config)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return Write(account+".kubeconfig", data)
}

// Write writes a file that goes with the node that it is written for, and returns its name.
func Write(name string, content []byte) string {
	ginkgo.GinkgoHelper()
	file := filepath.Join(ginkgo.GinkgoT().TempDir(), name)
	gomega.Expect(os.WriteFile(file, content, 0o600)).To(gomega.Succeed())
	return file
}
