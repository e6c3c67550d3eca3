// Package argocd runs the application controller and the repository server of Argo CD with the examples of
// config/gitops/argocd, against a real API server and the operator: `make gitops-argocd`.
package argocd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	region    = "cn-hangzhou"
	namespace = "argocd"
	tenant    = "team-web" // of config/gitops/tenant
)

var (
	k8s *cluster.Cluster
	sim *ecssim.Server
	// repository is the directory of what the Applications are in.
	repository string
)

func TestArgoCD(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "gitops argocd")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	environment := &envtest.Environment{}
	k8s = cluster.Start(ctx, environment)
	SetDefaultEventuallyTimeout(60 * time.Second)
	SetDefaultEventuallyPollingInterval(200 * time.Millisecond)
	// Argo CD deletes in the foreground, and such an object is there until the garbage collector has seen it.
	cluster.StartProgram(ctx, nil, filepath.Join(filepath.Dir(environment.ControlPlane.KubectlPath), "kube-controller-manager"),
		"--kubeconfig="+k8s.Kubeconfig, "--controllers=garbage-collector-controller", "--leader-elect=false", "--secure-port=0")
	sim = k8s.StartOperator(ctx, "--ambient-namespaces=*")
	Expect(k8s.Apply(ctx, cluster.Build(ctx, "config/gitops/tenant"))).To(cluster.BeQuiet())
	repository = GinkgoT().TempDir()
	git(ctx, "init", "--initial-branch=main")
	startArgoCD(ctx, os.Getenv("ARGOCD"))
})

// startArgoCD installs Argo CD from a directory that run.sh has made, and starts the two parts of it that sync.
func startArgoCD(ctx context.Context, directory string) {
	GinkgoHelper()
	Expect(directory).NotTo(BeEmpty(), "ARGOCD: use make gitops-argocd")
	k8s.MustKubectl(ctx, "create", "namespace", namespace)
	k8s.MustKubectl(ctx, "apply", "--server-side", "-n", namespace, "-f", filepath.Join(directory, "core-install.yaml"))
	Eventually(k8s.Apply).WithArguments(ctx, made).Should(cluster.BeQuiet()) // once the API server serves these kinds

	cache := miniredis.NewMiniRedis()
	Expect(cache.Start()).To(Succeed())
	DeferCleanup(cache.Close)
	address := freeAddress()
	host, port, err := net.SplitHostPort(address)
	Expect(err).NotTo(HaveOccurred())
	home := GinkgoT().TempDir()
	kustomize := cluster.Run(ctx, "go", "tool", "-n", "-modfile=hack/tools/go.mod", "kustomize")
	Expect(kustomize).To(cluster.BeQuiet())
	environment := []string{
		"ARGOCD_FAKE_IN_CLUSTER=true", "ARGOCD_GPG_ENABLED=false", "ARGOCD_PLUGINSOCKFILEPATH=" + home, "HOME=" + home, "TMPDIR=" + home,
		"KUBECONFIG=" + k8s.KubeconfigOf(ctx, namespace, "argocd-application-controller"),
		"PATH=" + directory + ":" + filepath.Dir(strings.TrimSpace(kustomize.Stdout)) + ":" + os.Getenv("PATH"),
	}
	program := filepath.Join(directory, "argocd")
	cluster.StartProgram(ctx, append(environment, "ARGOCD_BINARY_NAME=argocd-repo-server"), program, "--redis="+cache.Addr(),
		"--address="+host, "--port="+port, "--metrics-address="+host, "--metrics-port=0")
	// It has its metrics on all interfaces, whatever one says. The health of each object is in the status of an Application
	// only with the last flag; the user interface shows it without.
	cluster.StartProgram(ctx, append(environment, "ARGOCD_BINARY_NAME=argocd-application-controller"), program, "--redis="+cache.Addr(),
		"--namespace="+namespace, "--repo-server="+address, "--metrics-port=0", "--persist-resource-health")
}

// made is what Argo CD's own API server makes when it starts. It does not run here.
const made = `---
apiVersion: argoproj.io/v1alpha1
kind: AppProject
metadata: {name: default, namespace: argocd}
spec:
  sourceRepos: ['*']
  destinations: [{namespace: '*', server: '*'}]
  clusterResourceWhitelist: [{group: '*', kind: '*'}]
---
apiVersion: v1
kind: Secret
metadata: {name: argocd-secret, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
stringData: {server.secretkey: key}
`

func freeAddress() string {
	GinkgoHelper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	defer listener.Close()
	return listener.Addr().String()
}

func git(ctx context.Context, args ...string) string {
	GinkgoHelper()
	output := cluster.Run(ctx, "git", append([]string{"-C", repository, "-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
	Expect(output.Err).NotTo(HaveOccurred())
	return strings.TrimSpace(output.Stdout)
}

// commit makes files all that there is in the folder of an Application, and tells Argo CD, as a webhook would.
func commit(ctx context.Context, folder string, files map[string]string) {
	GinkgoHelper()
	directory := filepath.Join(repository, folder)
	Expect(os.RemoveAll(directory)).To(Succeed())
	Expect(os.MkdirAll(directory, 0o700)).To(Succeed())
	for name, text := range files {
		Expect(os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600)).To(Succeed())
	}
	git(ctx, "add", "--all")
	git(ctx, "commit", "--quiet", "--message=change")
	refresh(ctx)
}

// refresh has Argo CD look now, and not within three minutes.
func refresh(ctx context.Context) {
	GinkgoHelper()
	k8s.MustKubectl(ctx, "annotate", "applications", "--all", "-n", namespace, "--overwrite", "argocd.argoproj.io/refresh=normal")
}

// apply creates the Application of config/gitops/argocd, with another name and folder, and with a change.
func apply(ctx context.Context, name, change string) {
	GinkgoHelper()
	source := fmt.Sprintf(`{"metadata":{"name":%[1]q},"spec":{"source":{"repoURL":"file://%[2]s","path":%[1]q}}}`, name, repository)
	example := k8s.Kubectl(ctx, "patch", "--local", "-f", "config/gitops/argocd/images.yaml", "--type=merge", "-p", source, "-o", "yaml")
	Expect(example.Err).NotTo(HaveOccurred())
	file := cluster.Write("application.yaml", []byte(example.Stdout))
	patched := k8s.Kubectl(ctx, "patch", "--local", "-f", file, "--type=merge", "-p", change, "-o", "yaml")
	Expect(patched.Err).NotTo(HaveOccurred())
	Expect(k8s.Apply(ctx, patched.Stdout).Err).NotTo(HaveOccurred()) // the API server does not like how the finalizer is called
}

// install creates an Application with files in its folder, and waits until all is well.
func install(ctx context.Context, name string, files map[string]string, change string) {
	GinkgoHelper()
	commit(ctx, name, files)
	apply(ctx, name, change)
	Eventually(state).WithArguments(ctx, name).Should(Equal("Synced Healthy"))
}

// manifest is a CustomImage in Git.
func manifest(name, id, policy string, annotations ...string) string {
	return fmt.Sprintf(`
apiVersion: ecs.imagegc.io/v1alpha1
kind: CustomImage
metadata: {name: %s, namespace: %s, annotations: {%s}}
spec: {imageID: %s, regionID: %s, deletionPolicy: %s}
`, name, tenant, strings.Join(annotations, ", "), id, region, policy)
}

// images are files with a CustomImage each, which has the name of its image.
func images(ids ...string) map[string]string {
	files := map[string]string{}
	for _, id := range ids {
		files[id+".yaml"] = manifest(id, id, "Delete")
	}
	return files
}

// state is what Argo CD shows of an Application, once it has seen the last commit.
func state(ctx context.Context, application string) (string, error) {
	shown, err := get(ctx, "application", application, namespace, "{.status.sync.revision} {.status.sync.status} {.status.health.status}")
	return strings.TrimPrefix(shown, git(ctx, "rev-parse", "HEAD")+" "), err
}

// health is what Argo CD shows of an object in an Application.
func health(ctx context.Context, application, object string) (string, error) {
	resource := fmt.Sprintf("{range .status.resources[?(@.name==%q)]}{.health.status}: {.health.message}{end}", object)
	return get(ctx, "application", application, namespace, resource)
}

// operation is what Argo CD says of the last sync, or of the one that is under way.
func operation(ctx context.Context, application string) (string, error) {
	return get(ctx, "application", application, namespace,
		"{.status.operationState.phase}: {.status.operationState.message} {.status.operationState.syncResult.resources[*].message}")
}

// ready is a field of the condition of a CustomImage that sums up.
func ready(ctx context.Context, name, field string) (string, error) {
	return get(ctx, "cimg", name, tenant, fmt.Sprintf(`{.status.conditions[?(@.type=="Ready")].%s}`, field))
}

func get(ctx context.Context, kind, name, in, jsonpath string) (string, error) {
	got := k8s.Kubectl(ctx, "get", kind, name, "-n", in, "-o", "jsonpath="+jsonpath)
	return got.Stdout, got.Err
}

func inTheCloud(id string) bool {
	_, found := sim.Image(id)
	return found
}
