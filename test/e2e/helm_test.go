//go:build e2e

package e2e

import (
	"context"
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	chart  = "charts/ecs-image-gc"
	tenant = "ops" // where the release is, and its objects
)

// helm runs Helm in the release's namespace, has it succeed, and returns what it printed.
func helm(ctx context.Context, args ...string) string {
	GinkgoHelper()
	output := cluster.Run(ctx, "helm", append(args, "--namespace="+tenant)...)
	Expect(output.Err).NotTo(HaveOccurred())
	return output.Stdout + output.Stderr
}

// deploy installs or upgrades the release, and waits until its pod is ready.
func deploy(ctx context.Context, verb, from string) {
	GinkgoHelper()
	helm(ctx, verb, "gc", from, "--wait", "--timeout=60s", "--set=image.tag=v0.0.0-e2e,ecsEndpoint=http://ecssim.cloud.svc:8443")
}

// helmSpecs take away what the suite has installed, and install the chart.
func helmSpecs() {
	var free, used, live *v1alpha1.CustomImage
	images := func(ctx context.Context) (left []string) {
		for _, image := range look(ctx).Images {
			left = append(left, image.ImageID)
		}
		return left
	}

	BeforeAll(func(ctx SpecContext) {
		kubectl(ctx, "delete", "crd", "customimages.ecs.imagegc.io", "--timeout=60s")
		kubectl(ctx, "delete", "-k", "test/e2e/operator", "--ignore-not-found", "--timeout=60s")
		kubectl(ctx, "create", "namespace", tenant)
		kubectl(ctx, "label", "namespace", tenant, "pod-security.kubernetes.io/enforce=restricted")
		kubectl(ctx, "create", "secret", "generic", "alibaba-cloud", "-n", tenant,
			"--from-literal=access-key-id=e2e-id", "--from-literal=access-key-secret=e2e-secret")
	})

	It("is installed, and deletes an image", func(ctx SpecContext) {
		folder := GinkgoT().TempDir()
		helm(ctx, "package", chart, "--version=0.0.9", "--destination="+folder)
		deploy(ctx, "install", folder+"/ecs-image-gc-0.0.9.tgz")
		free, used, live = createIn(ctx, tenant, "chartfree"), createIn(ctx, tenant, "chartused"), createIn(ctx, tenant, "chartlive")
		remove(ctx, free)
		expectGone(ctx, free)
	})

	It("deletes no image by an upgrade, and goes on with what was under way", func(ctx SpecContext) {
		image := ecssim.Image{ImageID: used.Spec.ImageID, RegionID: used.Spec.RegionID, UsedBy: []string{"i-1"}}
		simulate(ctx, http.MethodPut, "images/"+image.ImageID, image)
		remove(ctx, used)
		Eventually(func(g Gomega) {
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(used), used)).To(Succeed())
			g.Expect(used.Status.Conditions).To(ContainElement(And(
				HaveField("Type", v1alpha1.ConditionInUse), HaveField("Status", metav1.ConditionTrue))))
		}).Should(Succeed())
		deploy(ctx, "upgrade", chart)
		Expect(images(ctx)).To(ContainElements(used.Spec.ImageID, live.Spec.ImageID))
		image.UsedBy = nil
		simulate(ctx, http.MethodPut, "images/"+image.ImageID, image)
		expectGone(ctx, used)
	})

	It("leaves images and objects when it is uninstalled, says what to do, and goes on when it is installed again", func(ctx SpecContext) {
		Expect(helm(ctx, "uninstall", "gc", "--wait", "--timeout=60s")).To(ContainSubstring("CustomImages that still exist keep their finalizer"))
		Expect(admin.Delete(ctx, live)).To(Succeed())
		Consistently(deletions, "2s").WithArguments(ctx, live).Should(BeEmpty())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(live), live)).To(Succeed(), "the finalizer keeps it")
		deploy(ctx, "install", chart)
		expectGone(ctx, live)
		Expect(deletions(ctx, live)).To(HaveLen(1))
	})

	It("leaves nothing but the images when the CRD is deleted first", func(ctx SpecContext) {
		left := createIn(ctx, tenant, "chartleft")
		kubectl(ctx, "delete", "crd", "customimages.ecs.imagegc.io", "--timeout=60s")
		helm(ctx, "uninstall", "gc", "--wait", "--timeout=60s")
		Expect(images(ctx)).To(ContainElement(left.Spec.ImageID))
		Expect(deletions(ctx, left)).To(BeEmpty())
		Expect(kubectl(ctx, "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,mutatingadmissionpolicies,crd",
			"-l", "app.kubernetes.io/name=ecs-image-gc", "-o", "name")).To(BeEmpty())
		Eventually(func() string { // Helm does not wait for the end of pods
			return kubectl(ctx, "get", "pods,deployments,services,serviceaccounts,networkpolicies", "-n", tenant,
				"-l", "app.kubernetes.io/name=ecs-image-gc", "-o", "name")
		}).Should(BeEmpty())
	})
}
