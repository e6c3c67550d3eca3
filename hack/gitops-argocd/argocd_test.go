package argocd

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const pendingDeletion = "Progressing: Pending deletion"

var _ = Describe("Argo CD", Ordered, ContinueOnFailure, func() {
	// Each spec has its Application, in a folder of the same name.
	exists := func(ids ...string) {
		GinkgoHelper()
		for _, id := range ids {
			Expect(sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
		}
	}
	use := func(id string, instances ...string) {
		GinkgoHelper()
		Expect(sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, UsedBy: instances})).To(Succeed())
	}
	live := func(ctx SpecContext, id string) string {
		GinkgoHelper()
		found, err := get(ctx, "cimg", id, tenant, "{.metadata.uid} {.metadata.deletionTimestamp}")
		Expect(err).NotTo(HaveOccurred())
		return found
	}
	beLive := MatchRegexp("^[0-9a-f-]{36} $")
	gone := func(ctx SpecContext, id string) string {
		return k8s.Kubectl(ctx, "get", "cimg", id, "-n", tenant).Stderr
	}

	It("takes each CustomImage for healthy, also one without an image", func(ctx SpecContext) {
		exists("m-there", "m-claimed")
		install(ctx, "health", images("m-there", "m-missing", "m-claimed"), `{}`)
		Eventually(ready).WithArguments(ctx, "m-missing", "reason").Should(Equal("InvalidImageIdNotFound"))
		Consistently(state).WithArguments(ctx, "health").WithTimeout(5 * time.Second).Should(Equal("Synced Healthy"))
		Expect(health(ctx, "health", "m-missing")).To(Equal(": "))
	})

	It("shows it Degraded, with the reason, when it has the health check", func(ctx SpecContext) {
		k8s.MustKubectl(ctx, "apply", "--server-side", "-k", "config/gitops/argocd")
		refresh(ctx)
		Eventually(state).WithArguments(ctx, "health").Should(Equal("Synced Degraded"))
		message, err := ready(ctx, "m-missing", "message")
		Expect(err).NotTo(HaveOccurred())
		Expect(health(ctx, "health", "m-missing")).To(Equal("Degraded: " + message))
		Expect(health(ctx, "health", "m-there")).To(HavePrefix("Healthy: "))

		files := images("m-there", "m-missing", "m-claimed")
		files["again.yaml"] = manifest("again", "m-claimed", "Delete")
		commit(ctx, "health", files)
		Eventually(health).WithArguments(ctx, "health", "again").Should(MatchRegexp("^Degraded: .*" + tenant + "/m-claimed"))
	})

	It("deletes the image of a removed manifest, and shows one that is in use", func(ctx SpecContext) {
		exists("m-kept", "m-free")
		use("m-used", "i-bp1")
		install(ctx, "prune", images("m-kept", "m-free", "m-used"), `{}`)
		commit(ctx, "prune", images("m-kept"))
		Eventually(inTheCloud).WithArguments("m-free").Should(BeFalse())
		Eventually(gone).WithArguments(ctx, "m-free").Should(ContainSubstring("NotFound"))
		Eventually(ready).WithArguments(ctx, "m-used", "reason").Should(Equal("ImageUsingByInstance"))
		Eventually(state).WithArguments(ctx, "prune").Should(Equal("OutOfSync Progressing"))
		Expect(health(ctx, "prune", "m-used")).To(Equal(pendingDeletion))
		Expect(inTheCloud("m-kept")).To(BeTrue())
		Expect(inTheCloud("m-used")).To(BeTrue())
		use("m-used")
		Eventually(inTheCloud).WithArguments("m-used").Should(BeFalse())
		Eventually(state).WithArguments(ctx, "prune").Should(Equal("Synced Healthy"))
	})

	It("rescues an image by a manifest with Retain", func(ctx SpecContext) {
		exists("m-other")
		use("m-rescued", "i-bp1")
		install(ctx, "rescue", images("m-other", "m-rescued"), `{}`)
		commit(ctx, "rescue", images("m-other"))
		Eventually(ready).WithArguments(ctx, "m-rescued", "reason").Should(Equal("ImageUsingByInstance"))
		files := images("m-other", "m-rescued")
		files["m-rescued.yaml"] = manifest("m-rescued", "m-rescued", "Retain")
		commit(ctx, "rescue", files)
		Eventually(ready).WithArguments(ctx, "m-rescued", "reason").Should(Equal("Available"))
		Eventually(state).WithArguments(ctx, "rescue").Should(Equal("Synced Healthy"))
		use("m-rescued")
		Consistently(inTheCloud).WithArguments("m-rescued").WithTimeout(5 * time.Second).Should(BeTrue())
		Expect(live(ctx, "m-rescued")).To(beLive)
	})

	It("does not rescue an image by the manifest as it was", func(ctx SpecContext) {
		exists("m-another")
		use("m-doomed", "i-bp1")
		install(ctx, "unchanged", images("m-another", "m-doomed"), `{}`)
		commit(ctx, "unchanged", images("m-another"))
		Eventually(ready).WithArguments(ctx, "m-doomed", "reason").Should(Equal("ImageUsingByInstance"))
		commit(ctx, "unchanged", images("m-another", "m-doomed"))
		Eventually(state).WithArguments(ctx, "unchanged").Should(Equal("Synced Progressing"))
		Expect(health(ctx, "unchanged", "m-doomed")).To(Equal(pendingDeletion))
		use("m-doomed")
		Eventually(inTheCloud).WithArguments("m-doomed").Should(BeFalse())
		Eventually(state).WithArguments(ctx, "unchanged").Should(Equal("Synced Degraded"))
		Expect(ready(ctx, "m-doomed", "reason")).To(Equal("InvalidImageIdNotFound"))
	})

	It("asks before it deletes, where the objects say confirm", func(ctx SpecContext) {
		exists("m-asked", "m-asktoo")
		asking := func(ids ...string) map[string]string {
			files := images(ids...)
			files["kustomization.yaml"] = "commonAnnotations: {argocd.argoproj.io/sync-options: 'Prune=confirm,Delete=confirm'}\nresources:"
			for _, id := range ids {
				files["kustomization.yaml"] += "\n- " + id + ".yaml"
			}
			return files
		}
		var approved time.Time
		approve := func() {
			GinkgoHelper()
			approved = time.Now().UTC()
			k8s.MustKubectl(ctx, "annotate", "application", "confirm", "-n", namespace, "--overwrite",
				"argocd.argoproj.io/deletion-approved="+approved.Format(time.RFC3339))
		}
		install(ctx, "confirm", asking("m-asked", "m-asktoo"), `{"metadata":{"finalizers":["resources-finalizer.argocd.argoproj.io"]}}`)

		commit(ctx, "confirm", asking("m-asked"))
		Eventually(operation).WithArguments(ctx, "confirm").
			Should(HavePrefix("Running: waiting for pruning confirmation of ecs.imagegc.io/CustomImage/m-asktoo"))
		Consistently(live).WithArguments(ctx, "m-asktoo").WithTimeout(5 * time.Second).Should(beLive)
		approve()
		Eventually(inTheCloud).WithArguments("m-asktoo").Should(BeFalse())
		Eventually(state).WithArguments(ctx, "confirm").Should(Equal("Synced Healthy"))
		Eventually(time.Now).Should(BeTemporally(">", approved.Add(time.Second))) // seconds are compared, and the same one counts

		k8s.MustKubectl(ctx, "delete", "application", "confirm", "-n", namespace, "--wait=false")
		Consistently(live).WithArguments(ctx, "m-asked").WithTimeout(5 * time.Second).Should(beLive)
		approve()
		Eventually(inTheCloud).WithArguments("m-asked").Should(BeFalse())
		k8s.MustKubectl(ctx, "wait", "--for=delete", "application/confirm", "-n", namespace, "--timeout=60s")
	})

	It("leaves the images of a deleted Application, which has no finalizer", func(ctx SpecContext) {
		k8s.MustKubectl(ctx, "delete", "application", "prune", "-n", namespace, "--timeout=20s")
		Consistently(live).WithArguments(ctx, "m-kept").WithTimeout(5 * time.Second).Should(beLive)
		Expect(inTheCloud("m-kept")).To(BeTrue())
	})

	It("undoes with selfHeal what a person has changed of what Git names, and nothing else", func(ctx SpecContext) {
		exists("m-healed")
		install(ctx, "heal", images("m-healed"), `{}`)
		k8s.MustKubectl(ctx, "annotate", "cimg", "m-healed", "-n", tenant, "ecs.imagegc.io/protected=true")
		k8s.MustKubectl(ctx, "patch", "cimg", "m-healed", "-n", tenant, "--type=merge", "-p", `{"spec":{"deletionPolicy":"Retain"}}`)
		Eventually(get).WithArguments(ctx, "cimg", "m-healed", tenant, "{.spec.deletionPolicy} {.metadata.annotations.ecs\\.imagegc\\.io/protected}").
			Should(Equal("Delete true"))
	})

	// The example applies on the server. This leaves that out, as Argo CD does by default.
	const clientSide = `{"spec":{"syncPolicy":{"syncOptions":null}}}`
	forced := "argocd.argoproj.io/sync-options: Force=true"

	DescribeTable("deletes nothing for another imageID", func(ctx SpecContext, name, option, change string) {
		id, options := "m-"+name, "argocd.argoproj.io/sync-options: "+option
		exists(id)
		install(ctx, name, map[string]string{"image.yaml": manifest(id, id, "Delete", options)}, change)
		before := live(ctx, id)
		commit(ctx, name, map[string]string{"image.yaml": manifest(id, "m-there", "Delete", options)})
		Eventually(operation).WithArguments(ctx, name).Should(ContainSubstring("spec.imageID cannot be changed"))
		Expect(live(ctx, id)).To(And(beLive, Equal(before)))
		Expect(inTheCloud(id)).To(BeTrue())
	},
		Entry("as in the example", "example", "''", `{}`),
		Entry("without server-side apply", "plain", "''", clientSide),
		Entry("with Force", "force", "Force=true", clientSide),
		Entry("with Replace", "replace", "Replace=true", clientSide),
	)

	DescribeTable("deletes the image for an invalid edit with Force, if it does not apply on the server",
		func(ctx SpecContext, name, from, to string) {
			id := "m-" + name
			exists(id)
			valid := manifest(id, id, "Delete", forced)
			install(ctx, name, map[string]string{"image.yaml": valid}, clientSide)
			commit(ctx, name, map[string]string{"image.yaml": strings.Replace(valid, from, to, 1)})
			Eventually(inTheCloud).WithArguments(id).Should(BeFalse())
		},
		Entry("a malformed annotation", "malformed", "annotations: {", "annotations: {'not a name': x, "),
		Entry("a field of a wrong type", "mistyped", "spec: {", "spec: {force: x, "),
	)

	DescribeTable("reports an invalid edit, and deletes nothing, if it applies on the server",
		func(ctx SpecContext, name, from, to, report string) {
			id := "m-" + name
			exists(id)
			valid := manifest(id, id, "Delete")
			install(ctx, name, map[string]string{"image.yaml": valid}, `{}`)
			before := live(ctx, id)
			commit(ctx, name, map[string]string{"image.yaml": strings.Replace(valid, from, to, 1)})
			Eventually(operation).WithArguments(ctx, name).Should(ContainSubstring(report))
			Expect(live(ctx, id)).To(And(beLive, Equal(before)))
			Expect(inTheCloud(id)).To(BeTrue())
		},
		Entry("a malformed annotation", "server1", "annotations: {", "annotations: {'not a name': x", "not a name"),
		Entry("a field of a wrong type", "server2", "spec: {", "spec: {force: x, ", ".spec.force"),
		Entry("a misspelt field", "server3", "deletionPolicy", "deletionPolcy", ".spec.deletionPolcy: field not declared in schema"),
		Entry("Force", "server4", "annotations: {", "annotations: {"+forced, "--force cannot be used with --server-side"),
	)

	It("leaves out a misspelt field, and says that it has synced, if it does not apply on the server", func(ctx SpecContext) {
		exists("m-misspelt")
		install(ctx, "misspelt", images("m-misspelt"), clientSide)
		retain := manifest("m-misspelt", "m-misspelt", "Retain")
		commit(ctx, "misspelt", map[string]string{"m-misspelt.yaml": strings.Replace(retain, "deletionPolicy", "deletionPolcy", 1)})
		Eventually(state).WithArguments(ctx, "misspelt").Should(Equal("OutOfSync Healthy"))
		Eventually(operation).WithArguments(ctx, "misspelt").Should(And(HavePrefix("Succeeded"), HaveSuffix("m-misspelt configured")))
		Expect(get(ctx, "cimg", "m-misspelt", tenant, "{.spec.deletionPolicy}")).To(Equal("Delete"))
	})

	// Without selfHeal, which at times syncs once more right after the first time.
	It("deletes an image with Force and Replace at each sync, but not a protected one", func(ctx SpecContext) {
		exists("m-lost", "m-protected")
		files := func(note string) map[string]string {
			options, protection := "argocd.argoproj.io/sync-options: 'Force=true,Replace=true'", "ecs.imagegc.io/protected: 'true'"
			return map[string]string{
				"lost.yaml":      manifest("m-lost", "m-lost", "Delete", options),
				"protected.yaml": manifest("m-protected", "m-protected", "Delete", options, protection, "note: "+note),
			}
		}
		install(ctx, "both", files("one"), `{"spec":{"syncPolicy":{"automated":{"selfHeal":false}}}}`)
		before := live(ctx, "m-protected")
		commit(ctx, "both", files("two"))
		Eventually(inTheCloud).WithArguments("m-lost").Should(BeFalse())
		Eventually(operation).WithArguments(ctx, "both").Should(ContainSubstring("the annotation ecs.imagegc.io/protected protects"))
		Expect(live(ctx, "m-protected")).To(And(beLive, Equal(before)))
		Expect(inTheCloud("m-protected")).To(BeTrue())
	})

	It("leaves CustomResourceDefinition, namespace, objects and images when the operator is removed", func(ctx SpecContext) {
		note := "{apiVersion: v1, kind: ConfigMap, metadata: {name: note, namespace: " + tenant + "}}"
		commit(ctx, "operator", map[string]string{"note.yaml": note, "install.yaml": cluster.Build(ctx, "config/default")})
		apply(ctx, "operator", `{"metadata":{"finalizers":["resources-finalizer.argocd.argoproj.io"]},"spec":{"syncPolicy":{"syncOptions":null}}}`)
		// Nothing in this cluster runs the pod of the Deployment.
		Eventually(state).WithArguments(ctx, "operator").Should(Equal("Synced Progressing"))
		expectLeft := func() {
			GinkgoHelper()
			Expect(get(ctx, "crd", "customimages.ecs.imagegc.io", "", "{.metadata.uid} {.metadata.deletionTimestamp}")).To(beLive)
			Expect(get(ctx, "namespace", cluster.Namespace, "", "{.metadata.uid} {.metadata.deletionTimestamp}")).To(beLive)
			Expect(live(ctx, "m-kept")).To(beLive)
			Expect(inTheCloud("m-kept")).To(BeTrue())
		}

		By("removing its manifests")
		commit(ctx, "operator", map[string]string{"note.yaml": note})
		Eventually(state).WithArguments(ctx, "operator").Should(Equal("OutOfSync Healthy"))
		Eventually(operation).WithArguments(ctx, "operator").Should(And(HavePrefix("Succeeded"), ContainSubstring("ignored (no prune)")))
		Expect(k8s.Kubectl(ctx, "get", "deployment", cluster.Name, "-n", cluster.Namespace).Stderr).To(ContainSubstring("NotFound"))
		expectLeft()

		By("removing the Application")
		k8s.MustKubectl(ctx, "delete", "application", "operator", "-n", namespace, "--timeout=60s")
		Expect(k8s.Kubectl(ctx, "get", "configmap", "note", "-n", tenant).Stderr).To(ContainSubstring("NotFound"))
		expectLeft()
	})
})
