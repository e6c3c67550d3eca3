// Package install checks what config/ installs: built by kustomize, applied by kubectl, judged by a real API
// server, and the manager run as the Deployment runs it, under the service account that it is given.
package install

import (
	"context"
	"path/filepath"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	namespace = cluster.Namespace
	name      = cluster.Name
)

var (
	k8s        *cluster.Cluster
	admin      client.Client // an administrator's
	kubectl    func(ctx context.Context, args ...string) cluster.Output
	manager    string                 // the manager's binary
	auditLog   string                 // of all that the manager asks of the API server
	deployment = &appsv1.Deployment{} // as the API server has it after kubectl has applied config/default
)

func TestInstall(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "install")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	environment := &envtest.Environment{}
	auditLog = filepath.Join(GinkgoT().TempDir(), "audit.log")
	environment.ControlPlane.GetAPIServer().Configure().
		Set("audit-log-path", auditLog).
		Set("audit-policy-file", cluster.Write("audit.yaml", []byte(auditPolicy)))
	k8s = cluster.Start(ctx, environment)
	admin, kubectl = k8s.Admin, k8s.Kubectl
	key := client.ObjectKey{Namespace: namespace, Name: name}
	Expect(admin.Get(ctx, key, deployment)).To(Succeed())
	manager = cluster.BuildManager(ctx)
})

// tell matches the output of a command that printed all of these.
func tell(texts ...string) OmegaMatcher {
	matchers := []OmegaMatcher{}
	for _, text := range texts {
		matchers = append(matchers, ContainSubstring(text))
	}
	return WithTransform(func(o cluster.Output) string { return o.Stdout + o.Stderr }, And(matchers...))
}

// podFromTemplate returns the pod that the Deployment would have made.
func podFromTemplate() *corev1.Pod {
	template := deployment.Spec.Template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.GenerateName = namespace, name+"-"
	return pod
}
