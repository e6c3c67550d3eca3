package gitops

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/ssa/utils"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// remote is the address of config/gitops/kustomize in docs/gitops.md.
const remote = "https://github.com/imagegc/ecs-image-gc//config/gitops/kustomize?ref=main"

// build builds a kustomization.yaml, with the first CustomImage of docs/gitops.md beside it, and a key. The folder is in the
// project, since kustomize takes relative paths alone.
func build(ctx context.Context, kustomization string) map[string]*unstructured.Unstructured {
	GinkgoHelper()
	Expect(os.MkdirAll(root+"/bin", 0o750)).To(Succeed())
	folder, err := os.MkdirTemp(root+"/bin", "kustomization-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, folder)
	for name, content := range map[string]string{
		"kustomization.yaml": strings.ReplaceAll(kustomization, remote, "../../config/gitops/kustomize"),
		"web-2024-01.yaml":   blocks("kind: CustomImage\nmetadata:")[0],
		"access-key.env":     "access-key-id=id\naccess-key-secret=secret\n",
	} {
		Expect(os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600)).To(Succeed())
	}
	objects, err := utils.ReadObjects(strings.NewReader(cluster.Build(ctx, "bin/"+filepath.Base(folder))))
	Expect(err).NotTo(HaveOccurred())
	byKind := map[string]*unstructured.Unstructured{}
	for _, object := range objects {
		byKind[object.GetKind()] = object
	}
	return byKind
}

func secretOf(image *unstructured.Unstructured) string {
	name, _, _ := unstructured.NestedString(image.Object, "spec", "credentialsSecretRef", "name")
	return name
}

var _ = Describe("A kustomization", func() {
	It("names the Secret as kustomize does", func(ctx SpecContext) {
		kustomizations := blocks("secretGenerator:")
		Expect(kustomizations).To(HaveLen(2))
		generated := kustomizations[0]
		for _, more := range []string{"", "namePrefix: web-\n", "nameSuffix: -web\n"} {
			objects := build(ctx, generated+more)
			Expect(objects["Secret"].GetName()).NotTo(Equal("alibaba-cloud"))
			Expect(secretOf(objects["CustomImage"])).To(Equal(objects["Secret"].GetName()))
		}

		without, _, found := strings.Cut(generated, "components:")
		Expect(found).To(BeTrue())
		Expect(secretOf(build(ctx, without)["CustomImage"])).To(Equal("alibaba-cloud"), "or the component is not required")

		Expect(build(ctx, kustomizations[1])["Secret"].GetName()).To(Equal("alibaba-cloud"))
	})

	It("has Argo CD ask before it deletes, beside the protection", func(ctx SpecContext) {
		kustomizations := blocks("Prune=confirm")
		Expect(kustomizations).To(HaveLen(1))
		Expect(build(ctx, kustomizations[0])["CustomImage"].GetAnnotations()).To(Equal(map[string]string{
			"argocd.argoproj.io/sync-options": "Prune=confirm,Delete=confirm", "ecs.imagegc.io/protected": "true",
		}))
	})

	It("of the installation, also of two operators, marks the CustomResourceDefinition and the namespace, and nothing else",
		func(ctx SpecContext) {
			for _, folder := range []string{"config/default", "config/shards"} {
				objects, err := utils.ReadObjects(strings.NewReader(cluster.Build(ctx, folder)))
				Expect(err).NotTo(HaveOccurred())
				marked := []string{}
				for _, object := range objects {
					annotations := object.GetAnnotations()
					if annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled" &&
						annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false" {
						marked = append(marked, object.GetKind())
					}
				}
				slices.Sort(marked)
				Expect(marked).To(Equal([]string{"CustomResourceDefinition", "Namespace"}), folder)
			}
		})
})
