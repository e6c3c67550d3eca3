package gitops

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/cli-utils/pkg/kstatus/polling/engine"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// fluxExample returns a Kustomization of config/gitops/flux.
func fluxExample(file string) *kustomizev1.Kustomization {
	GinkgoHelper()
	content, err := os.ReadFile(root + "/config/gitops/flux/" + file)
	Expect(err).NotTo(HaveOccurred())
	example := &kustomizev1.Kustomization{}
	Expect(yaml.UnmarshalStrict(content, example)).To(Succeed())
	return example
}

// kustomization does what kustomize-controller does with a Kustomization like config/gitops/flux/images.yaml, and with the
// options that it uses.
type kustomization struct {
	manager   *ssa.ResourceManager
	inventory []*unstructured.Unstructured
}

func newKustomization(as client.Client) *kustomization {
	GinkgoHelper()
	readers, err := cel.NewStatusReader(fluxExample("images.yaml").Spec.HealthCheckExprs)
	Expect(err).NotTo(HaveOccurred())
	poller := polling.NewStatusPoller(as, as.RESTMapper(),
		polling.Options{CustomStatusReaders: []engine.StatusReader{readers(as.RESTMapper())}})
	owner := ssa.Owner{Field: "kustomize-controller", Group: kustomizev1.GroupVersion.Group}
	return &kustomization{manager: ssa.NewResourceManager(as, poller, owner)}
}

// reconcile applies what is in Git, prunes what is no longer there, and waits.
func (k *kustomization) reconcile(ctx context.Context, git ...*unstructured.Unstructured) error {
	for n := range git {
		git[n] = git[n].DeepCopy()
	}
	k.manager.SetOwnerLabels(git, "images", tenant)
	applied, err := k.manager.ApplyAll(ctx, git, k.applyOptions())
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	stale := slices.DeleteFunc(k.inventory, func(known *unstructured.Unstructured) bool {
		return slices.ContainsFunc(git, func(o *unstructured.Unstructured) bool {
			return utils.FmtUnstructured(o) == utils.FmtUnstructured(known)
		})
	})
	if _, err := k.prune(ctx, stale); err != nil {
		k.inventory = append(git, stale...)
		return fmt.Errorf("prune: %w", err)
	}
	k.inventory = git
	return k.manager.WaitForSetWithContext(ctx, applied.ToObjMetadataSet(),
		ssa.WaitOptions{Interval: 50 * time.Millisecond, Timeout: 3 * time.Second, FailFast: true})
}

func (k *kustomization) applyOptions() ssa.ApplyOptions {
	options := ssa.DefaultApplyOptions()
	options.Cleanup = ssa.ApplyCleanupOptions{
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
		},
		Exclusions: map[string]string{kustomizev1.GroupVersion.Group + "/ssa": kustomizev1.MergeValue},
	}
	return options
}

func (k *kustomization) prune(ctx context.Context, stale []*unstructured.Unstructured) (*ssa.ChangeSet, error) {
	return k.manager.DeleteAll(ctx, stale, ssa.DeleteOptions{
		PropagationPolicy: metav1.DeletePropagationBackground,
		Exclusions:        map[string]string{kustomizev1.GroupVersion.Group + "/prune": kustomizev1.DisabledValue},
	})
}

// committed applies a manifest, and has it healthy.
func (k *kustomization) committed(ctx context.Context, manifest *unstructured.Unstructured) *unstructured.Unstructured {
	GinkgoHelper()
	Expect(k.reconcile(ctx, manifest)).To(Succeed())
	DeferCleanup(forget, manifest)
	return manifest
}

// stuck has the object of an image pruned that is in use.
func (k *kustomization) stuck(ctx context.Context) *unstructured.Unstructured {
	GinkgoHelper()
	manifest := k.committed(ctx, inCloud(ecssim.Image{UsedBy: []string{"i-bp1"}}))
	Expect(k.reconcile(ctx)).To(Succeed())
	return becomes(ctx, manifest, "ImageUsingByInstance")
}

// release ends the use of an image.
func release(id string) {
	GinkgoHelper()
	Expect(sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
}

var _ = Describe("A Kustomization of Flux", func() {
	var flux *kustomization

	BeforeEach(func() { flux = newKustomization(k8s.Admin) })

	It("is Ready when all images are there, changes nothing after that, and deletes the images of what is pruned",
		func(ctx SpecContext) {
			kept, removed := inCloud(ecssim.Image{}), inCloud(ecssim.Image{})
			Expect(flux.reconcile(ctx, kept, removed)).To(Succeed())
			DeferCleanup(forget, kept)
			before := stored(ctx, kept).GetResourceVersion()
			Expect(flux.reconcile(ctx, kept)).To(Succeed())
			Eventually(gone).WithArguments(ctx, removed).Should(BeTrue())
			Expect(inTheCloud(removed.GetName())).To(BeFalse())
			Expect(inTheCloud(kept.GetName())).To(BeTrue())
			Expect(stored(ctx, kept).GetResourceVersion()).To(Equal(before))
		})

	It("is Ready although a pruned object is stuck", func(ctx SpecContext) {
		object := flux.stuck(ctx)
		Expect(flux.reconcile(ctx)).To(Succeed())
		Expect(stored(ctx, object).GetDeletionTimestamp()).NotTo(BeNil())
	})

	It("fails at once for an image that does not exist", func(ctx SpecContext) {
		manifest := inCloud(ecssim.Image{})
		sim.DeleteImage(manifest.GetName())
		DeferCleanup(forget, manifest)
		Expect(flux.reconcile(ctx, manifest)).To(MatchError(ContainSubstring("failed early due to stalled resources")))
	})
})

var _ = Describe("The image of an object that Flux pruned", func() {
	var flux *kustomization

	BeforeEach(func() { flux = newKustomization(k8s.Admin) })

	It("is rescued by the manifest with Retain", func(ctx SpecContext) {
		pruned := flux.stuck(ctx)
		manifest := manifestOf(pruned.GetName(), region, with("deletionPolicy", "Retain"))
		Eventually(flux.reconcile).WithArguments(ctx, manifest).Should(Succeed())
		Expect(stored(ctx, manifest).GetUID()).NotTo(Equal(pruned.GetUID()))
		release(pruned.GetName())
		Consistently(inTheCloud).WithArguments(pruned.GetName()).WithTimeout(2 * time.Second).Should(BeTrue())
		Expect(readyReason(ctx, manifest)).To(Equal(v1alpha1.ReasonAvailable))
	})

	It("is rescued by a person who sets Retain", func(ctx SpecContext) {
		pruned := flux.stuck(ctx)
		k8s.MustKubectl(ctx, "patch", "cimg", pruned.GetName(), "-n", namespace, "--type=merge",
			"-p", `{"spec":{"deletionPolicy":"Retain"}}`)
		Eventually(gone).WithArguments(ctx, pruned).Should(BeTrue())
		Expect(inTheCloud(pruned.GetName())).To(BeTrue())
	})

	It("is not rescued by the manifest as it was", func(ctx SpecContext) {
		pruned := flux.stuck(ctx)
		manifest := manifestOf(pruned.GetName(), region)
		Expect(flux.reconcile(ctx, manifest)).To(MatchError(And(
			ContainSubstring("failed early due to stalled resources"), ContainSubstring(pruned.GetName()))))
		release(pruned.GetName())
		Eventually(inTheCloud).WithArguments(pruned.GetName()).Should(BeFalse())
		Eventually(gone).WithArguments(ctx, pruned).Should(BeTrue())
		Expect(flux.reconcile(ctx, manifest)).NotTo(Succeed())
		becomes(ctx, manifest, "InvalidImageIdNotFound")
	})

	It("of a protected object is refused, until a commit has removed the annotation", func(ctx SpecContext) {
		manifest := flux.committed(ctx, inCloud(ecssim.Image{}, annotated(v1alpha1.AnnotationProtected, "true")))
		Expect(flux.reconcile(ctx)).To(MatchError(And(ContainSubstring("prune: "),
			ContainSubstring("protects the CustomImage "+manifest.GetName()+" and the image "+manifest.GetName()))))
		Expect(stored(ctx, manifest).GetDeletionTimestamp()).To(BeNil())
		Expect(flux.reconcile(ctx, manifestOf(manifest.GetName(), region))).To(Succeed())
		Expect(flux.reconcile(ctx)).To(Succeed())
		Eventually(gone).WithArguments(ctx, manifest).Should(BeTrue())
		Expect(inTheCloud(manifest.GetName())).To(BeFalse())
	})

	It("is stuck if its Secret is pruned with it, until the Secret is back", func(ctx SpecContext) {
		key := parse(`
apiVersion: v1
kind: Secret
metadata: {name: alibaba-cloud, namespace: team-web}
stringData: {access-key-id: key, access-key-secret: secret}`)
		manifest := inCloud(ecssim.Image{UsedBy: []string{"i-bp1"}}, in(tenant), secret("alibaba-cloud"))
		DeferCleanup(forget, manifest)
		Expect(flux.reconcile(ctx, key, manifest)).To(Succeed())
		Expect(flux.reconcile(ctx)).To(Succeed())
		becomes(ctx, manifest, v1alpha1.ReasonSecretNotFound)
		release(manifest.GetName())
		Expect(flux.reconcile(ctx, key)).To(Succeed())
		Eventually(gone).WithArguments(ctx, manifest).Should(BeTrue())
	})
})

var _ = Describe("Flux", func() {
	var flux *kustomization

	BeforeEach(func() { flux = newKustomization(k8s.Admin) })

	protect := func(ctx context.Context, object *unstructured.Unstructured) {
		GinkgoHelper()
		k8s.MustKubectl(ctx, "annotate", "cimg", object.GetName(), "-n", namespace, v1alpha1.AnnotationProtected+"=true")
		Expect(stored(ctx, object).GetAnnotations()).To(HaveKey(v1alpha1.AnnotationProtected))
	}

	It("undoes what a person annotated with kubectl", func(ctx SpecContext) {
		manifest := flux.committed(ctx, inCloud(ecssim.Image{}))
		protect(ctx, manifest)
		Expect(flux.reconcile(ctx, manifest)).To(Succeed())
		Expect(stored(ctx, manifest).GetAnnotations()).NotTo(HaveKey(v1alpha1.AnnotationProtected))
	})

	It("leaves that alone where the manifest says ssa: Merge", func(ctx SpecContext) {
		manifest := flux.committed(ctx, inCloud(ecssim.Image{}, annotated("kustomize.toolkit.fluxcd.io/ssa", "Merge")))
		protect(ctx, manifest)
		Expect(flux.reconcile(ctx, manifest)).To(Succeed())
		Expect(stored(ctx, manifest).GetAnnotations()).To(HaveKey(v1alpha1.AnnotationProtected))
	})

	// The rest would be deleted, which the other specs need: so the second part is a dry run.
	It("leaves the CustomResourceDefinition and the namespace in place", func(ctx SpecContext) {
		objects, err := utils.ReadObjects(strings.NewReader(cluster.Build(ctx, "config/default")))
		Expect(err).NotTo(HaveOccurred())
		marked := slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
			return o.GetKind() != "CustomResourceDefinition" && o.GetKind() != "Namespace"
		})
		Expect(marked).To(HaveLen(2))
		_, err = flux.prune(ctx, marked)
		Expect(err).NotTo(HaveOccurred())
		for _, object := range marked {
			Expect(stored(ctx, object).GetDeletionTimestamp()).To(BeNil())
			Expect(object.GetAnnotations()).To(HaveKeyWithValue("argocd.argoproj.io/sync-options", "Prune=false,Delete=false"))
		}

		changes, err := newKustomization(client.NewDryRunClient(k8s.Admin)).prune(ctx, objects)
		Expect(err).NotTo(HaveOccurred())
		skipped := []string{}
		for _, change := range changes.Entries {
			if change.Action == ssa.SkippedAction {
				skipped = append(skipped, change.Subject)
			}
		}
		Expect(skipped).To(ConsistOf("CustomResourceDefinition/customimages.ecs.imagegc.io", "Namespace/"+cluster.Namespace))
	})
})

var _ = Describe("The commits", func() {
	It("of a tenant do what its role allows, and no more", func(ctx SpecContext) {
		as := rest.CopyConfig(k8s.Config)
		as.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:" + tenant + ":" + fluxExample("images.yaml").Spec.ServiceAccountName,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + tenant, "system:authenticated"},
		}
		account, err := client.New(as, client.Options{})
		Expect(err).NotTo(HaveOccurred())
		flux := newKustomization(account)

		manifest := inCloud(ecssim.Image{}, in(tenant))
		DeferCleanup(forget, manifest)
		Expect(flux.reconcile(ctx, manifest)).To(MatchError(ContainSubstring("stalled resources")), "it has no key here")
		becomes(ctx, manifest, v1alpha1.ReasonAmbientForbidden)
		Expect(flux.reconcile(ctx, with("force", true)(manifest.DeepCopy()))).To(MatchError(
			ContainSubstring(`requires the verb "force" on customimages`)))
		Expect(flux.reconcile(ctx, inCloud(ecssim.Image{}, in(namespace)))).To(MatchError(ContainSubstring("forbidden")))
		Expect(flux.reconcile(ctx)).To(Succeed())
		Expect(stored(ctx, manifest).GetDeletionTimestamp()).NotTo(BeNil())
	})
})
