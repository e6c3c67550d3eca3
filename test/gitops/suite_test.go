// Package gitops checks what docs/gitops.md says: what GitOps tools do with CustomImages, by the libraries and commands
// that they are made of, against a real API server and the operator. Their force options delete an object when an edit is
// answered with 422, 409 or the words "is immutable". Deleting the object would delete its image.
package gitops

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/fluxcd/pkg/ssa"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var k8s *cluster.Cluster

func TestGitOps(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "gitops")
}

// The rules are waited for here, so that no edit comes before them.
var _ = BeforeSuite(func(ctx SpecContext) {
	k8s = cluster.Start(ctx, &envtest.Environment{})
	object := parse(manifest("first", ""))
	Expect(flux(ctx, object)).To(Succeed())
	Eventually(func() error {
		return k8s.Admin.Update(ctx, with("imageID", "m-other")(stored(ctx, object)), client.DryRunAll)
	}).
		ShouldNot(Succeed())
	annotated := stored(ctx, object)
	annotated.SetAnnotations(map[string]string{"ecs.imagegc.io/protected": "true"})
	Expect(k8s.Admin.Update(ctx, annotated)).To(Succeed())
	Eventually(func() error { return k8s.Admin.Delete(ctx, object.DeepCopy(), client.DryRunAll) }).ShouldNot(Succeed())
	startOperator(ctx)
})

// tool applies a manifest from Git, and returns what it says.
type tool func(context.Context, *unstructured.Unstructured) error

var tools = map[string]tool{
	"Flux with force":                               flux,
	"kubectl apply --force":                         kubectl("apply", "--force", "--timeout=1s"),
	"kubectl apply --server-side --force-conflicts": kubectl("apply", "--server-side", "--force-conflicts"),
}

// flux does what kustomize-controller does with a Kustomization that says force.
func flux(ctx context.Context, object *unstructured.Unstructured) error {
	manager := ssa.NewResourceManager(k8s.Admin, nil,
		ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"})
	options := ssa.DefaultApplyOptions()
	options.Force, options.WaitInterval = true, 100*time.Millisecond
	// Without the deadline it waits for ever for an object that it has deleted.
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := manager.ApplyAll(ctx, []*unstructured.Unstructured{object.DeepCopy()}, options)
	return err
}

func kubectl(command ...string) tool {
	return func(ctx context.Context, object *unstructured.Unstructured) error {
		content, err := yaml.Marshal(object.Object)
		Expect(err).NotTo(HaveOccurred())
		file := filepath.Clean(cluster.Write("image.yaml", content))
		return k8s.Kubectl(ctx, append(command, "-f", file)...).Err
	}
}

// manifest is a file in Git, with more lines of its spec.
func manifest(name, spec string) string {
	return fmt.Sprintf(`
apiVersion: ecs.imagegc.io/v1alpha1
kind: CustomImage
metadata:
  name: %s
  namespace: default
  labels: {team: web}
spec:
  regionID: cn-hangzhou
  imageID: m-bp67acfmxazb4p0001
  accountID: "1234567890123456"
  credentialsSecretRef: {name: alibaba-cloud}
%s`, name, spec)
}

func parse(text string) *unstructured.Unstructured {
	GinkgoHelper()
	object := &unstructured.Unstructured{}
	Expect(yaml.Unmarshal([]byte(text), &object.Object)).To(Succeed())
	return object
}

func stored(ctx context.Context, object *unstructured.Unstructured) *unstructured.Unstructured {
	GinkgoHelper()
	found := object.DeepCopy()
	Expect(k8s.Admin.Get(ctx, client.ObjectKeyFromObject(object), found)).To(Succeed())
	return found
}
