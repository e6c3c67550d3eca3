package gitops

import (
	"os"
	"regexp"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

func page() string {
	GinkgoHelper()
	text, err := os.ReadFile(root + "/docs/gitops.md")
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

var fenced = regexp.MustCompile("(?s)\n```yaml\n(.*?)```")

// blocks returns the blocks of YAML of docs/gitops.md with a text in them.
func blocks(with string) (found []string) {
	GinkgoHelper()
	for _, block := range fenced.FindAllStringSubmatch(page(), -1) {
		if strings.Contains(block[1], with) {
			found = append(found, block[1])
		}
	}
	Expect(found).NotTo(BeEmpty(), with)
	return found
}

var _ = Describe("docs/gitops.md", func() {
	It("has no manifest that is not checked here", func() {
		kinds := map[string]int{}
		for _, block := range blocks("") {
			kind, _ := parse(block).Object["kind"].(string)
			kinds[kind]++
		}
		Expect(kinds).To(Equal(map[string]int{"": 1, "CustomImage": 2, "ConfigMap": 1, "Kustomization": 3}))
	})

	It("has CustomImages that can be created", func(ctx SpecContext) {
		for _, image := range blocks("kind: CustomImage\nmetadata:") {
			file := cluster.Write("image.yaml", []byte(image))
			Expect(k8s.Kubectl(ctx, "create", "-n", tenant, "--dry-run=server", "--validate=strict", "-f", file)).To(cluster.BeQuiet())
		}
	})

	It("has the health checks of config/gitops/flux/images.yaml", func() {
		example, err := os.ReadFile(root + "/config/gitops/flux/images.yaml")
		Expect(err).NotTo(HaveOccurred())
		Expect(parse(blocks("healthCheckExprs:")[0]).Object["healthCheckExprs"]).
			To(Equal(parse(string(example)).Object["spec"].(map[string]any)["healthCheckExprs"]))
	})

	It("has the ConfigMap that config/gitops/argocd makes", func(ctx SpecContext) {
		Expect(parse(blocks("kind: ConfigMap")[0])).To(Equal(parse(cluster.Build(ctx, "config/gitops/argocd"))))
	})

	It("has examples of a HelmRelease and a repository with fields that Flux knows", func() {
		for file, object := range map[string]any{"helm.yaml": &helmv2.HelmRelease{}, "source.yaml": &sourcev1.GitRepository{}} {
			example, err := os.ReadFile(root + "/config/gitops/flux/" + file)
			Expect(err).NotTo(HaveOccurred())
			Expect(yaml.UnmarshalStrict(example, object)).To(Succeed(), file)
		}
	})

	It("has examples that force nothing", func() {
		for _, file := range []string{"operator.yaml", "tenant.yaml", "images.yaml"} {
			Expect(fluxExample(file).Spec).To(And(HaveField("Force", false), HaveField("Prune", true), HaveField("Wait", true)), file)
		}
		application, err := os.ReadFile(root + "/config/gitops/argocd/images.yaml")
		Expect(err).NotTo(HaveOccurred())
		example := parse(string(application))
		Expect(example.GetFinalizers()).To(BeEmpty())
		policy, _, err := unstructured.NestedMap(example.Object, "spec", "syncPolicy")
		Expect(err).NotTo(HaveOccurred())
		Expect(policy).To(Equal(map[string]any{
			"automated": map[string]any{"prune": true, "selfHeal": true}, "syncOptions": []any{"ServerSideApply=true"},
		}))
	})
})
