// Package install checks what config/ installs: built by kustomize, applied by kubectl, judged by a real API
// server, and the manager run as the Deployment runs it, under the service account that it is given.
package install

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// What users, manifests and documentation call these.
const (
	namespace = "imagegc-system"
	name      = "imagegc-controller-manager"
)

// root is the directory that commands run in.
const root = "../.."

var (
	cluster    *rest.Config  // of an administrator
	admin      client.Client // an administrator's
	kubectl    func(ctx context.Context, args ...string) output
	manager    string                 // the manager's binary
	auditLog   string                 // of all that the manager asks of the API server
	deployment = &appsv1.Deployment{} // as the API server has it after kubectl has applied config/default
)

func TestInstall(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "install")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	readInputs("config", "hack/tools", "api", "internal", "main.go", "go.mod")
	log.SetLogger(zap.New(zap.WriteTo(GinkgoWriter)))
	environment := &envtest.Environment{}
	auditLog = filepath.Join(GinkgoT().TempDir(), "audit.log")
	environment.ControlPlane.GetAPIServer().Configure().
		Set("audit-log-path", auditLog).
		Set("audit-policy-file", write("audit.yaml", []byte(auditPolicy)))
	var err error
	cluster, err = environment.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	admin, err = client.New(cluster, client.Options{})
	Expect(err).NotTo(HaveOccurred())

	kubeconfig := write("kubeconfig", environment.KubeConfig)
	binary := environment.ControlPlane.KubectlPath
	kubectl = func(ctx context.Context, args ...string) output {
		return run(ctx, binary, append([]string{"--kubeconfig", kubeconfig}, args...)...)
	}
	// The first use of a tool on a machine tells on stderr what it downloads.
	Expect(kustomize(ctx, "version").err).NotTo(HaveOccurred())

	Expect(apply(ctx, build(ctx, "config/default"))).To(beQuiet())
	key := client.ObjectKey{Namespace: namespace, Name: name}
	Expect(admin.Get(ctx, key, deployment)).To(Succeed())

	manager = filepath.Join(GinkgoT().TempDir(), "manager")
	Expect(run(ctx, "go", "build", "-o", manager, ".")).To(beQuiet())
})

// readInputs reads the files that kustomize and the compiler are going to read. Without that, `go test` would not
// know of them, and repeat its last result although they have changed.
func readInputs(paths ...string) {
	GinkgoHelper()
	for _, path := range paths {
		Expect(filepath.WalkDir(filepath.Join(root, path), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			_, err = os.ReadFile(path)
			return err
		})).To(Succeed())
	}
}

// output is what a command printed, and how it ended.
type output struct {
	stdout, stderr string
	err            error
}

func run(ctx context.Context, command string, args ...string) output {
	var stdout, stderr bytes.Buffer
	process := exec.CommandContext(ctx, command, args...)
	process.Dir, process.Stdout, process.Stderr = root, &stdout, &stderr
	err := process.Run()
	return output{stdout: stdout.String(), stderr: stderr.String(), err: err}
}

func kustomize(ctx context.Context, args ...string) output {
	return run(ctx, "go", append([]string{"tool", "-modfile=hack/tools/go.mod", "kustomize"}, args...)...)
}

// build returns the name of a file with the manifests of a kustomization.
func build(ctx context.Context, kustomization string) string {
	GinkgoHelper()
	built := kustomize(ctx, "build", kustomization)
	Expect(built).To(beQuiet())
	return write(filepath.Base(kustomization)+".yaml", []byte(built.stdout))
}

// apply does what `make deploy` does, and has the API server refuse every field that it does not know.
func apply(ctx context.Context, file string) output {
	return kubectl(ctx, "apply", "--server-side", "--validate=strict", "-f", file)
}

func write(name string, content []byte) string {
	GinkgoHelper()
	file := filepath.Join(GinkgoT().TempDir(), name)
	Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
	return file
}

// beQuiet matches the output of a command that succeeded without a warning.
func beQuiet() OmegaMatcher {
	return WithTransform(func(o output) string {
		if o.err != nil {
			return strings.TrimSpace(o.err.Error() + ": " + o.stderr)
		}
		return o.stderr
	}, BeEmpty())
}

// tell matches the output of a command that printed all of these.
func tell(texts ...string) OmegaMatcher {
	matchers := []OmegaMatcher{}
	for _, text := range texts {
		matchers = append(matchers, ContainSubstring(text))
	}
	return WithTransform(func(o output) string { return o.stdout + o.stderr }, And(matchers...))
}

// podFromTemplate returns the pod that the Deployment would have made.
func podFromTemplate() *corev1.Pod {
	template := deployment.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.GenerateName = namespace, name+"-"
	return pod
}
