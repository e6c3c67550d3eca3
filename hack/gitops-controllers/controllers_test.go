package controllers

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var _ = Describe("Flux", Ordered, func() {
	used := ecssim.Image{ImageID: "m-used", RegionID: region, UsedBy: []string{"i-bp1"}}
	images := func(manifests ...string) map[string]string {
		files := map[string]string{"images/kustomization.yaml": "resources:"}
		if len(manifests) == 0 {
			files["images/kustomization.yaml"] += " []"
		}
		for _, id := range manifests {
			files["images/"+id+".yaml"] = manifest(id, "Delete")
			files["images/kustomization.yaml"] += "\n- " + id + ".yaml"
		}
		return files
	}

	BeforeAll(func(ctx SpecContext) {
		Expect(sim.PutImage(ecssim.Image{ImageID: "m-kept", RegionID: region})).To(Succeed())
		Expect(sim.PutImage(ecssim.Image{ImageID: "m-free", RegionID: region})).To(Succeed())
		Expect(sim.PutImage(used)).To(Succeed())
		commit(ctx, "flux-system", "flux-system", map[string]string{
			"imagegc/install.yaml":         cluster.Build(ctx, "config/default"),
			"tenants/team-web/tenant.yaml": cluster.Build(ctx, "config/gitops/tenant"),
		})
		// Nothing in this cluster runs the pod of the Deployment.
		apply(ctx, "operator.yaml", `{"spec":{"wait":false}}`)
		apply(ctx, "tenant.yaml", `{"spec":{"retryInterval":"2s"}}`)
		Eventually(ready).WithArguments(ctx, "team-web", "flux-system").Should(BeTrue())
	})

	It("installs the operator, a tenant, and its CustomImages", func(ctx SpecContext) {
		commit(ctx, "images", tenant, images("m-kept", "m-free", "m-used"))
		apply(ctx, "images.yaml", `{"spec":{"retryInterval":"2s","timeout":"10s"}}`)
		Eventually(ready).WithArguments(ctx, "images", tenant).Should(BeTrue())
	})

	It("deletes the image of a removed manifest, and is Ready also when that is blocked", func(ctx SpecContext) {
		commit(ctx, "images", tenant, images("m-kept"))
		Eventually(ready).WithArguments(ctx, "images", tenant).Should(BeTrue())
		Eventually(inTheCloud).WithArguments("m-free").Should(BeFalse())
		Eventually(reason).WithArguments(ctx, "m-used").Should(Equal("ImageUsingByInstance"))
		Expect(ready(ctx, "images", tenant)).To(BeTrue())
		Expect(inTheCloud("m-kept")).To(BeTrue())
	})

	// The object is gone when it is looked at again, and that is waited for until the timeout.
	It("rescues an image by a manifest with Retain", func(ctx SpecContext) {
		files := images("m-kept", "m-used")
		files["images/m-used.yaml"] = manifest("m-used", "Retain")
		commit(ctx, "images", tenant, files)
		Eventually(reason).WithArguments(ctx, "m-used").Should(Equal("Available"))
		Eventually(ready).WithArguments(ctx, "images", tenant).Should(BeTrue())
		used.UsedBy = nil
		Expect(sim.PutImage(used)).To(Succeed())
		Expect(inTheCloud("m-used")).To(BeTrue())
	})

	It("waits for a blocked object until the timeout when its Kustomization is deleted, and then ends", func(ctx SpecContext) {
		Expect(sim.PutImage(ecssim.Image{ImageID: "m-busy", RegionID: region, UsedBy: []string{"i-bp1"}})).To(Succeed())
		commit(ctx, "waiting", tenant, images("m-busy"))
		apply(ctx, "images.yaml", `{"metadata":{"name":"waiting"},"spec":{
			"sourceRef":{"name":"waiting"},"deletionPolicy":"WaitForTermination","timeout":"30s"}}`) // Flux takes less for 30 s
		Eventually(ready).WithArguments(ctx, "waiting", tenant).Should(BeTrue())
		began := time.Now()
		k8s.MustKubectl(ctx, "delete", "kustomizations.kustomize.toolkit.fluxcd.io", "waiting", "-n", tenant, "--timeout=60s")
		Expect(time.Since(began)).To(BeNumerically(">", 30*time.Second))
		Expect(reason(ctx, "m-busy")).To(Equal("ImageUsingByInstance"))
		Expect(inTheCloud("m-busy")).To(BeTrue())
	})

	It("leaves CustomResourceDefinition, namespace, objects and images when the operator is removed", func(ctx SpecContext) {
		k8s.MustKubectl(ctx, "delete", "kustomizations.kustomize.toolkit.fluxcd.io", "imagegc", "-n", "flux-system", "--timeout=20s")
		Expect(k8s.Kubectl(ctx, "get", "deployment", cluster.Name, "-n", cluster.Namespace).Stderr).To(ContainSubstring("NotFound"))
		for _, kept := range [][]string{
			{"crd", "customimages.ecs.imagegc.io"}, {"namespace", cluster.Namespace},
			{"cimg", "m-kept", "-n", tenant}, {"cimg", "m-used", "-n", tenant},
		} {
			Expect(k8s.Kubectl(ctx, append([]string{"get", "-o", "jsonpath={.metadata.uid} {.metadata.deletionTimestamp}"}, kept...)...)).
				To(And(cluster.BeQuiet(), HaveField("Stdout", MatchRegexp("^[0-9a-f-]{36} $"))))
		}
		Expect(inTheCloud("m-kept")).To(BeTrue())
		Expect(inTheCloud("m-used")).To(BeTrue())
	})

	// The operator is not a pod here. What takes it away is that it gets no permissions any more.
	It("would leave them Terminating without the marks", func(ctx SpecContext) {
		apply(ctx, "operator.yaml", `{"spec":{"wait":false,"patches":[
			{"target":{"kind":"ClusterRoleBinding"},"patch":"$patch: delete\nkind: ClusterRoleBinding\nmetadata: {name: any}"},
			{"target":{"kind":"CustomResourceDefinition|Namespace"},
				"patch":"- op: remove\n  path: /metadata/annotations/kustomize.toolkit.fluxcd.io~1prune"}]}}`)
		Eventually(ready).WithArguments(ctx, "imagegc", "flux-system").Should(BeTrue())
		k8s.MustKubectl(ctx, "delete", "kustomizations.kustomize.toolkit.fluxcd.io", "imagegc", "-n", "flux-system", "--timeout=20s")
		for _, left := range [][]string{
			{"crd", "customimages.ecs.imagegc.io"}, {"cimg", "m-kept", "-n", tenant}, {"cimg", "m-used", "-n", tenant},
		} {
			get := append([]string{"get", "-o", "jsonpath={.metadata.deletionTimestamp} {.metadata.finalizers}"}, left...)
			Eventually(func() cluster.Output { return k8s.Kubectl(ctx, get...) }).
				Should(And(cluster.BeQuiet(), HaveField("Stdout", MatchRegexp(`^\S+ \[.+\]$`))))
		}
		Expect(inTheCloud("m-kept")).To(BeTrue())
		Expect(inTheCloud("m-used")).To(BeTrue())
	})
})
