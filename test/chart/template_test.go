package chart

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const root = "../../"

var between = regexp.MustCompile(`(?m)^---$`)

func documents(text string) []string { return between.Split(text, -1) }

var _ = Describe("The chart", func() {
	It("says what config/default and config/prometheus say, for a release imagegc", func(ctx SpecContext) {
		rendered := template(ctx, "imagegc", "imagegc-system", "--set=serviceMonitor.enabled=true,image.tag=latest")
		Expect(rendered.Err).NotTo(HaveOccurred())
		charted := manifests(rendered.Stdout)
		configured := manifests(cluster.Build(ctx, "config/default") + "---\n" + cluster.Build(ctx, "config/prometheus"))
		delete(configured, "Namespace imagegc-system")                  // Helm creates it, if asked to
		delete(configured, "PrometheusRule imagegc-controller-manager") // docs/gitops.md: its alerts are an example
		for _, kind := range []string{"", "Binding"} {
			delete(charted, "ValidatingAdmissionPolicy"+kind+" imagegc-uninstall-warning") // kustomize removes nothing
		}
		Expect(names(charted)).To(Equal(names(configured)))
		for name := range configured {
			Expect(essence(charted[name].Object)).To(Equal(essence(configured[name].Object)), name)
		}
	})

	It("accepts the values of the example for Flux", func(ctx SpecContext) {
		example, err := os.ReadFile(root + "config/gitops/flux/helm.yaml")
		Expect(err).NotTo(HaveOccurred())
		values, err := yaml.Marshal(manifests(string(example))["HelmRelease imagegc"].Object["spec"].(map[string]any)["values"])
		Expect(err).NotTo(HaveOccurred())
		rendered := template(ctx, "imagegc", "imagegc-system", "--values="+cluster.Write("flux.yaml", values))
		Expect(rendered.Err).NotTo(HaveOccurred())
		Expect(rendered.Stdout).To(ContainSubstring(`image: "registry.example.com/ecs-image-gc:v0.1.0"`))
	})

	It("passes helm lint without a warning, with every set of values", func(ctx SpecContext) {
		Expect(helm(ctx, "lint", "--strict", chart, "--kube-version=1.37.2").Err).NotTo(HaveOccurred())
		for _, values := range valueFiles() {
			Expect(helm(ctx, "lint", "--strict", chart, "--kube-version=1.37.2", "--values="+values).Err).NotTo(HaveOccurred(), values)
		}
	})

	It("renders what is in testdata (UPDATE_GOLDEN=1 writes it)", func(ctx SpecContext) {
		for _, values := range append(valueFiles(), chart+"/values.yaml") {
			// The generated templates are compared with config/ above.
			rendered := template(ctx, "imagegc", "imagegc-system", "--values="+values,
				"--set=crds.enabled=false,roles.enabled=false,admission.enabled=false")
			Expect(rendered).To(cluster.BeQuiet(), values)
			golden := "testdata/" + filepath.Base(values)
			if os.Getenv("UPDATE_GOLDEN") != "" {
				Expect(os.WriteFile(golden, []byte(rendered.Stdout), 0o600)).To(Succeed())
			}
			want, err := os.ReadFile(golden) // #nosec G304: a file of this package
			Expect(err).NotTo(HaveOccurred())
			Expect(rendered.Stdout).To(Equal(string(want)), golden)
		}
	})

	It("has a schema that knows each value and nothing else", func() {
		values, schema := map[string]any{}, map[string]any{}
		Expect(yaml.Unmarshal(file("values.yaml"), &values)).To(Succeed())
		Expect(json.Unmarshal(file("values.schema.json"), &schema)).To(Succeed())
		known := leaves("", schema["properties"].(map[string]any), func(v any) (map[string]any, bool) {
			properties, ok := v.(map[string]any)["properties"].(map[string]any)
			return properties, ok
		})
		for _, leaf := range known {
			if leaf == ".global" || strings.HasPrefix(leaf, ".resources.") { // Helm's own, and Kubernetes's
				continue
			}
			Expect(has(values, strings.Split(leaf[1:], "."))).To(BeTrue(), leaf)
		}
		Expect(len(known)).To(BeNumerically(">", 50))
	})
})

var _ = DescribeTable("Helm refuses a value that makes no sense, and names it",
	func(ctx SpecContext, set, message string) {
		refused := template(ctx, "imagegc", "imagegc-system", set)
		Expect(refused.Err).To(HaveOccurred())
		Expect(refused.Stderr).To(ContainSubstring(message))
	},
	Entry(nil, "--set=replicaCuont=2", "additional properties 'replicaCuont' not allowed"),
	Entry(nil, "--set=image.tga=v1", "at '/image': additional properties 'tga' not allowed"),
	Entry(nil, "--set=crds.keep=maybe", "at '/crds/keep': got string, want boolean"),
	Entry(nil, "--set=credentials.source=vault", "at '/credentials/source': value must be one of"),
	Entry(nil, "--set=network=private", "at '/network': value must be one of"),
	Entry(nil, "--set=requestTimeoutSeconds=45s", "at '/requestTimeoutSeconds': got string, want integer"),
	Entry(nil, "--set=waitingBackoff=5s", "at '/waitingBackoff'"),
	Entry(nil, "--set=fullnameOverride="+strings.Repeat("a", 37), "at '/fullnameOverride': maxLength: got 37, want 36"),
	Entry(nil, "--set=namespaces={Team_A}", "at '/namespaces/0'"),
	Entry(nil, "--set=extraArgs={--leader-elect=false}", "at '/extraArgs/0'"),
	Entry(nil, "--set=networkPolicy.egressPorts=null", "networkPolicy"),
	Entry(nil, "--set-json=networkPolicy.egressPorts=[]", "at '/networkPolicy/egressPorts': minItems"),
	Entry(nil, "--set-json=podLabels={\"app.kubernetes.io/name\":\"x\"}", "invalid propertyName 'app.kubernetes.io/name'"),
	Entry(nil, "--set=ecsEndpoint=http://x #y", "at '/ecsEndpoint'"),
	Entry(nil, "--set=serviceAccount.create=false", "serviceAccount.name is required with serviceAccount.create=false"),
	Entry(nil, "--set=image.repository=registry.example.com:5000/imagegc/ecs-image-gc:v1", "at '/image/repository'"),
	Entry(nil, "--set=image.tag=v1,image.digest=sha256:"+strings.Repeat("0", 64), "leave image.tag empty, or set image.digest"),
	Entry(nil, "--set=resyncInterval=0s", "at '/resyncInterval'"),
	Entry(nil, "--set=waitingBackoff=0s\\,5m", "at '/waitingBackoff'"),
	Entry(nil, "--set=image.repository=registry.example.com/", "at '/image/repository'"),
	Entry(nil, "--set=network=vpc,credentials.source=env", "stsRegion is required with network=vpc"),
	Entry(nil, "--set=serviceMonitor.enabled=true,metrics.service.enabled=false", "serviceMonitor.enabled requires metrics.service.enabled"),
	Entry(nil, "--set=leaderElection.enabled=false,replicaCount=2", "replicaCount: more than one pod requires leaderElection.enabled"),
)

var _ = DescribeTable("Helm accepts a value that is unusual and makes sense", func(ctx SpecContext, args ...string) {
	Expect(template(ctx, "imagegc", "imagegc-system", args...).Err).NotTo(HaveOccurred())
},
	Entry(nil, "--set=image.repository=registry.example.com:5000/imagegc/ecs-image-gc"),
	Entry(nil, "--set=image.repository=localhost/ecs-image-gc"),
	Entry(nil, "--set=network=vpc,credentials.source=env,ecsEndpoint=http://ecs.example.com"),
	Entry(nil, "--set=image.repository=[::1]:5000/ecs-image-gc"),
	Entry(nil, "--set=extraArgs=null,extraEnv=null"),
	Entry(nil, "--set=network=vpc,credentials.source=rrsa"),
	Entry(nil, "--set=network=vpc,credentials.source=env", "--set-json=extraEnv=[{\"name\":\"ALIBABA_CLOUD_REGION_ID\",\"value\":\"cn-hangzhou\"}]"),
	Entry(nil, "--set=network=vpc,credentials.source=env", "--set=extraArgs={--sts-endpoint=http://sts.example.com}"),
	Entry(nil, "--set=waitingBackoff=10s\\,10m"),
)

// notes are what Helm prints after an installation in the namespace default, in one line.
func notes(ctx context.Context, args ...string) string {
	GinkgoHelper()
	installed := helm(ctx, append(args, "install", "imagegc", chart, "--kubeconfig="+k8s.Kubeconfig, "--namespace=default",
		"--dry-run=server")...)
	Expect(installed.Err).NotTo(HaveOccurred())
	_, text, found := strings.Cut(installed.Stdout, "\nNOTES:\n")
	Expect(found).To(BeTrue())
	return strings.Join(strings.Fields(text), " ")
}

var _ = DescribeTable("The notes say which promise is smaller", func(ctx SpecContext, set string, texts ...string) {
	for _, text := range texts {
		Expect(notes(ctx)).NotTo(ContainSubstring(text))
		Expect(notes(ctx, set)).To(ContainSubstring(text))
	}
},
	Entry("without the policies", "--set=admission.enabled=false", "can force deletions, remove finalizers", "removed, and its image is kept"),
	Entry("without the finalizer at creation", "--set=admission.addFinalizer=false", "removed, and its image is kept"),
	Entry("without the roles", "--set=roles.enabled=false", "can read no Secret"),
)

var _ = DescribeTable("The notes have the commands that fit the values", func(ctx SpecContext, set, has, hasNot string) {
	Expect(notes(ctx, set)).To(And(ContainSubstring(has), Not(ContainSubstring(hasNot))))
},
	Entry("of the only release", "--set=crds.keep=true", "kubectl delete crd customimages.ecs.imagegc.io", "belong to this release"),
	Entry("of a release that does not own the CRD", "--set=crds.enabled=false", "helm uninstall imagegc -n default", "kubectl delete crd"),
	Entry("of an access key", "--set=credentials.source=env", "kubectl -n default create secret generic alibaba-cloud", "RAM role"),
	Entry("of a role", "--set=credentials.source=rrsa", "rollout restart deployment imagegc-controller-manager", "create secret"),
	Entry("without an identity", "--set=credentials.source=none",
		"kubectl -n default create rolebinding imagegc-credentials-reader --clusterrole=imagegc-credentials-reader \\ "+
			"--serviceaccount=default:imagegc-controller-manager", "alibaba-cloud"),
	Entry("in a namespace that is watched and may use the operator's identity",
		"--set=namespaces={team-a,team-b},credentials.ambientNamespaces={team-b}", "kubectl -n team-b apply -f -", "credentialsSecretRef"),
	Entry("in the first namespace that is watched, if all may", "--set=namespaces={team-a,team-b},credentials.ambientNamespaces={*}",
		"kubectl -n team-a apply -f -", "credentialsSecretRef"),
	Entry("in a namespace that needs a Secret", "--set=namespaces={team-a}",
		"imageID: IMAGE-ID, credentialsSecretRef: {name: ecs}} END kubectl -n team-a get cimg", "alibaba-cloud"),
)

var _ = Describe("On an older Kubernetes", func() {
	It("the chart is refused before 1.32", func(ctx SpecContext) {
		refused := template(ctx, "imagegc", "imagegc-system", "--kube-version=1.31.9")
		Expect(refused.Err).To(HaveOccurred())
		Expect(refused.Stderr).To(ContainSubstring("chart requires kubeVersion: >=1.32.0-0"))
	})

	It("before 1.36, it says which promise is smaller, and how to accept that", func(ctx SpecContext) {
		refused := template(ctx, "imagegc", "imagegc-system", "--kube-version=1.35.0")
		Expect(refused.Err).To(HaveOccurred())
		Expect(refused.Stderr).To(ContainSubstring("admission.addFinalizer requires Kubernetes 1.36, and this is v1.35.0. Set it to false"))
		accepted := template(ctx, "imagegc", "imagegc-system", "--kube-version=1.35.0", "--set=admission.addFinalizer=false")
		Expect(accepted.Err).NotTo(HaveOccurred())
		Expect(accepted.Stdout).NotTo(ContainSubstring("MutatingAdmissionPolicy"))
		Expect(accepted.Stdout).To(ContainSubstring("ValidatingAdmissionPolicy"))
	})
})

func file(name string) []byte {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join(root, chart, name))
	Expect(err).NotTo(HaveOccurred())
	return content
}

// valueFiles are the values that the chart is checked with, as seen from the project's root.
func valueFiles() []string {
	GinkgoHelper()
	found, err := filepath.Glob(root + chart + "/ci/*.yaml")
	Expect(err).NotTo(HaveOccurred())
	Expect(found).NotTo(BeEmpty())
	for n := range found {
		found[n] = strings.TrimPrefix(found[n], root)
	}
	return found
}

func names[V any](of map[string]V) []string {
	all := []string{}
	for name := range of {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// essence returns the text of a manifest without what Helm adds and kustomize adds.
func essence(object map[string]any) string {
	GinkgoHelper()
	if strings.HasPrefix(object["kind"].(string), "Mutating") {
		delete(object["metadata"].(map[string]any), "namespace") // kustomize's, of an object that has none
	}
	strip(object)
	text, err := yaml.Marshal(object)
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

func strip(value any) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version",
			"helm.sh/chart", "helm.sh/resource-policy", "revisionHistoryLimit"} {
			delete(value, key)
		}
		for _, inner := range value {
			strip(inner)
		}
	case []any:
		for _, inner := range value {
			strip(inner)
		}
	}
}

// leaves are the paths of what has nothing below it.
func leaves(path string, of map[string]any, below func(any) (map[string]any, bool)) (found []string) {
	for name, value := range of {
		if inner, ok := below(value); ok {
			found = append(found, leaves(path+"."+name, inner, below)...)
		} else {
			found = append(found, path+"."+name)
		}
	}
	return found
}

func has(values map[string]any, path []string) bool {
	value, ok := values[path[0]]
	if len(path) == 1 || !ok {
		return ok
	}
	inner, ok := value.(map[string]any)
	return ok && has(inner, path[1:])
}
