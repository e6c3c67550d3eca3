// Package admission tests what the API server accepts and refuses, rule by rule, against a real one into which
// config/default is installed.
package admission

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
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// root is the directory that commands run in.
const root = "../.."

var (
	cluster *rest.Config  // of an administrator
	admin   client.Client // an administrator's, who is asked for no permission at all
	kubectl func(ctx context.Context, stdin string, args ...string) (stdout, stderr string)
)

func TestAdmission(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "admission")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	readConfig()
	log.SetLogger(zap.New(zap.WriteTo(GinkgoWriter)))
	environment := &envtest.Environment{}
	var err error
	cluster, err = environment.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	admin, err = client.New(cluster, client.Options{})
	Expect(err).NotTo(HaveOccurred())

	kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
	Expect(os.WriteFile(kubeconfig, environment.KubeConfig, 0o600)).To(Succeed())
	binary := environment.ControlPlane.KubectlPath
	kubectl = func(ctx context.Context, stdin string, args ...string) (string, string) {
		GinkgoHelper()
		return run(ctx, stdin, binary, append([]string{"--kubeconfig", kubeconfig}, args...)...)
	}
	install(ctx)
	bindRoles(ctx)
	awaitRules(ctx)
})

// readConfig reads the files that kustomize is going to read. Without that, `go test` would not know of them, and
// repeat its last result although they have changed.
func readConfig() {
	GinkgoHelper()
	Expect(filepath.WalkDir(filepath.Join(root, "config"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		_, err = os.ReadFile(path)
		return err
	})).To(Succeed())
}

// install applies config/default. What the API server thinks of a rule it says there: one that it cannot compile
// is refused.
func install(ctx context.Context) {
	GinkgoHelper()
	manifests, _ := run(ctx, "", "go", "tool", "-modfile=hack/tools/go.mod", "kustomize", "build", "config/default")
	_, warnings := kubectl(ctx, manifests, "apply", "--server-side", "--validate=strict", "-f", "-")
	Expect(warnings).To(BeEmpty())
	kubectl(ctx, "", "wait", "--for=condition=Established", "crd/customimages.ecs.imagegc.io")
}

func run(ctx context.Context, stdin, command string, args ...string) (string, string) {
	GinkgoHelper()
	var stdout, stderr bytes.Buffer
	process := exec.CommandContext(ctx, command, args...)
	process.Dir, process.Stdin, process.Stdout, process.Stderr = root, strings.NewReader(stdin), &stdout, &stderr
	Expect(process.Run()).To(Succeed(), "%s %v: %s", command, args, &stderr)
	return stdout.String(), stderr.String()
}
