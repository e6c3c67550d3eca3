// Package controllers runs the whole kustomize-controller of Flux with the examples of config/gitops/flux, against a real
// API server and the operator. Compiling it takes some minutes: `make gitops-controllers`.
package controllers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	region = "cn-hangzhou"
	tenant = "team-web" // of config/gitops/tenant
)

var (
	k8s *cluster.Cluster
	sim *ecssim.Server
	// artifacts are what the source-controller of Flux serves, by the path of the URL.
	artifacts sync.Map
	server    *httptest.Server
)

func TestControllers(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "gitops controllers")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	k8s = cluster.Start(ctx, &envtest.Environment{})
	SetDefaultEventuallyTimeout(60 * time.Second)
	sim = k8s.StartOperator(ctx, "--ambient-namespaces=*")
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if content, found := artifacts.Load(r.URL.Path); found {
			_, _ = w.Write(content.([]byte))
			return
		}
		http.NotFound(w, r)
	}))
	DeferCleanup(server.Close)
	startFlux(ctx)
})

// source is a kind of Flux's source-controller, which does not run here. Its schema is not in a Go module.
const source = `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]s.source.toolkit.fluxcd.io}
spec:
  group: source.toolkit.fluxcd.io
  scope: Namespaced
  names: {kind: %[1]s, plural: %[2]s, singular: %[3]s}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// startFlux compiles and starts kustomize-controller, with the kinds that it watches.
func startFlux(ctx context.Context) {
	GinkgoHelper()
	inModule := func(args ...string) string {
		output := cluster.Run(ctx, "go", append([]string{args[0], "-modfile=hack/gitops-controllers/go.mod"}, args[1:]...)...)
		Expect(output.Err).NotTo(HaveOccurred())
		return strings.TrimSpace(output.Stdout)
	}
	const module = "github.com/fluxcd/kustomize-controller"
	k8s.MustKubectl(ctx, "apply", "--server-side", "-f",
		filepath.Join(inModule("list", "-m", "-f", "{{.Dir}}", module), "config", "crd", "bases"))
	kinds := ""
	for _, kind := range [][3]string{
		{"GitRepository", "gitrepositories", "gitrepository"},
		{"OCIRepository", "ocirepositories", "ocirepository"},
		{"Bucket", "buckets", "bucket"},
		{"ExternalArtifact", "externalartifacts", "externalartifact"},
	} {
		kinds += fmt.Sprintf(source, kind[0], kind[1], kind[2])
	}
	Expect(k8s.Apply(ctx, kinds)).To(cluster.BeQuiet())
	k8s.MustKubectl(ctx, "wait", "--for=condition=Established", "crd", "--all")
	k8s.MustKubectl(ctx, "create", "namespace", "flux-system")
	program := filepath.Join(GinkgoT().TempDir(), "kustomize-controller")
	inModule("build", "-o", program, module)
	environment := []string{"KUBECONFIG=" + k8s.Kubeconfig, "RUNTIME_NAMESPACE=flux-system", "HOME=" + GinkgoT().TempDir()}
	cluster.StartProgram(ctx, environment, program, "--metrics-addr=0", "--health-addr=0", "--requeue-dependency=2s")
}

// commit makes files the newest revision of a GitRepository, as source-controller would.
func commit(ctx context.Context, name, namespace string, files map[string]string) {
	GinkgoHelper()
	archive := archived(files)
	digest := fmt.Sprintf("%x", sha256.Sum256(archive))
	path := "/" + digest + ".tar.gz"
	artifacts.Store(path, archive)
	repository := fmt.Sprintf(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: %s, namespace: %s}
spec: {interval: 1h, url: "https://git.example.com/repository"}
`, name, namespace)
	Expect(k8s.Apply(ctx, repository)).To(cluster.BeQuiet())
	k8s.MustKubectl(ctx, "patch", "gitrepository", name, "-n", namespace, "--subresource=status", "--type=merge", "-p",
		fmt.Sprintf(`{"status":{"observedGeneration":1,
			"conditions":[{"type":"Ready","status":"True","reason":"Succeeded","message":"stored","lastTransitionTime":%[1]q}],
			"artifact":{"path":%[2]q,"url":%[3]q,"revision":"main@sha256:%[4]s","digest":"sha256:%[4]s","lastUpdateTime":%[1]q}}}`,
			time.Now().UTC().Format(time.RFC3339), path, server.URL+path, digest))
}

func archived(files map[string]string) []byte {
	GinkgoHelper()
	var content bytes.Buffer
	zipped := gzip.NewWriter(&content)
	archive := tar.NewWriter(zipped)
	for name, text := range files {
		Expect(archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})).To(Succeed())
		_, err := archive.Write([]byte(text))
		Expect(err).NotTo(HaveOccurred())
	}
	Expect(archive.Close()).To(Succeed())
	Expect(zipped.Close()).To(Succeed())
	return content.Bytes()
}

// apply creates a Kustomization of config/gitops/flux, with a change.
func apply(ctx context.Context, example, change string) {
	GinkgoHelper()
	patched := k8s.Kubectl(ctx, "patch", "--local", "-f", "config/gitops/flux/"+example, "--type=merge", "-p", change, "-o", "yaml")
	Expect(patched.Err).NotTo(HaveOccurred())
	Expect(k8s.Apply(ctx, patched.Stdout)).To(cluster.BeQuiet())
}

// manifest is a CustomImage in Git.
func manifest(id, policy string) string {
	return fmt.Sprintf(`
apiVersion: ecs.imagegc.io/v1alpha1
kind: CustomImage
metadata: {name: %[1]s, namespace: %[2]s}
spec: {imageID: %[1]s, regionID: %[3]s, deletionPolicy: %[4]s}
`, id, tenant, region, policy)
}

// ready reports whether a Kustomization is Ready with the newest revision of its source.
func ready(ctx context.Context, name, namespace string) (bool, error) {
	kustomization := k8s.Kubectl(ctx, "get", "kustomizations.kustomize.toolkit.fluxcd.io", name, "-n", namespace, "-o",
		`jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.lastAppliedRevision} {.spec.sourceRef.name}`)
	state := strings.Split(kustomization.Stdout, " ")
	if kustomization.Err != nil || len(state) != 3 {
		return false, kustomization.Err
	}
	source := k8s.Kubectl(ctx, "get", "gitrepository", state[2], "-n", namespace, "-o", "jsonpath={.status.artifact.revision}")
	return state[0] == "True" && state[1] == source.Stdout, source.Err
}

// reason is that of the condition of a CustomImage that sums up.
func reason(ctx context.Context, name string) (string, error) {
	image := k8s.Kubectl(ctx, "get", "cimg", name, "-n", tenant, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].reason}`)
	return image.Stdout, image.Err
}

func inTheCloud(id string) bool {
	_, found := sim.Image(id)
	return found
}
