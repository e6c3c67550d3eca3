// Package chart checks the Helm chart with Helm: that it says the same as config/, refuses what it does not know, and that
// no installation, upgrade or removal of a release deletes an image.
package chart

import (
	"context"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const chart = "charts/ecs-image-gc"

var k8s *cluster.Cluster

func TestChart(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "chart")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	cluster.ReadInputs("charts", "hack/helm")
	k8s = cluster.StartEmpty(ctx, &envtest.Environment{})
	Expect(cluster.Run(ctx, "go", "tool", "-modfile=hack/helm/go.mod", "helm", "version").Err).NotTo(HaveOccurred())
	compiled := cluster.Run(ctx, "go", "tool", "-modfile=hack/helm/go.mod", "-n", "helm")
	Expect(compiled.Err).NotTo(HaveOccurred())
	program = strings.TrimSpace(compiled.Stdout)
})

var program string // of Helm

func helm(ctx context.Context, args ...string) cluster.Output {
	return cluster.Run(ctx, program, args...)
}

// template renders the chart for a cluster of the version that the suites run.
func template(ctx context.Context, release, namespace string, args ...string) cluster.Output {
	return helm(ctx, append([]string{"template", release, chart, "--namespace=" + namespace, "--kube-version=1.37.2"}, args...)...)
}

// manifests are the objects of a text with many documents, by kind and name.
func manifests(text string) map[string]*unstructured.Unstructured {
	GinkgoHelper()
	found := map[string]*unstructured.Unstructured{}
	for _, document := range documents(text) {
		object := &unstructured.Unstructured{}
		Expect(yaml.Unmarshal([]byte(document), &object.Object)).To(Succeed(), document)
		if object.Object != nil {
			found[object.GetKind()+" "+object.GetName()] = object
		}
	}
	return found
}
