package chart

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	release   = "gc"
	namespace = "ops"
)

// on runs Helm on the cluster, in the release's namespace.
func on(ctx context.Context, args ...string) cluster.Output {
	return helm(ctx, append(args, "--kubeconfig="+k8s.Kubeconfig, "--namespace="+namespace)...)
}

// The pods of a release do not run here. The manager does, as a process, with the arguments and the service account that the
// release gives it.
var _ = Describe("A release under a name of its own", Ordered, func() {
	var (
		cloud   *ecssim.Server
		manager func(ctx context.Context) (stop func())
	)
	images := func() (left []string) {
		for _, image := range cloud.Images() {
			left = append(left, image.ImageID)
		}
		return left
	}
	object := func(ctx context.Context, name string) string {
		return k8s.Kubectl(ctx, "get", "cimg", "-n", namespace, name, "-o", "wide", "--ignore-not-found").Stdout
	}

	BeforeAll(func(ctx SpecContext) {
		var err error
		cloud, err = ecssim.New(ecssim.Scenario{
			AccountID: "1234567890123456", AccessKeys: []ecssim.AccessKey{{ID: "id", Secret: "secret"}},
			Images: []ecssim.Image{
				{ImageID: "m-free", RegionID: "cn-hangzhou"}, {ImageID: "m-live", RegionID: "cn-hangzhou"},
				{ImageID: "m-used", RegionID: "cn-hangzhou", UsedBy: []string{"i-1"}},
			},
		}, nil)
		Expect(err).NotTo(HaveOccurred())
		server := httptest.NewServer(cloud)
		DeferCleanup(func() { cloud.Close(); server.Close() })
		operator := cluster.BuildManager(ctx)
		manager = func(ctx context.Context) (stop func()) {
			GinkgoHelper()
			deployment := &appsv1.Deployment{}
			Expect(k8s.Admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: release + "-controller-manager"}, deployment)).To(Succeed())
			pod := deployment.Spec.Template.Spec
			command := exec.Command(operator, append(pod.Containers[0].Args, "--health-probe-bind-address=0", "--metrics-bind-address=0",
				"--leader-election-namespace="+namespace, "--ecs-endpoint="+server.URL, "--ambient-namespaces="+namespace,
				"--blocked-backoff=200ms,1s", "--kubeconfig="+k8s.KubeconfigOf(ctx, namespace, pod.ServiceAccountName))...)
			command.Env = []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=secret"}
			session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
			Expect(err).NotTo(HaveOccurred())
			stop = func() { session.Terminate().Wait("30s") }
			DeferCleanup(stop)
			return stop
		}
	})

	It("is installed, and says what to do next and how to uninstall", func(ctx SpecContext) {
		k8s.MustKubectl(ctx, "create", "namespace", namespace)
		older := packaged(ctx, "0.0.9")
		installed := on(ctx, "install", release, older)
		Expect(installed.Err).NotTo(HaveOccurred())
		Expect(installed.Stdout).To(And(
			ContainSubstring("kubectl -n ops create secret generic alibaba-cloud"),
			ContainSubstring("kubectl -n ops rollout restart deployment gc-controller-manager"),
			ContainSubstring("kubectl delete crd customimages.ecs.imagegc.io\n   helm uninstall gc -n ops")))
		k8s.AwaitCreation(ctx)
	})

	It("lets its operator work, by the policies that name its service account", func(ctx SpecContext) {
		stop := manager(ctx)
		for _, name := range []string{"free", "live", "used"} {
			Expect(k8s.Apply(ctx, manifest(name))).To(cluster.BeQuiet())
			Eventually(object).WithArguments(ctx, name).Should(ContainSubstring("Available"))
		}
		k8s.MustKubectl(ctx, "delete", "cimg", "free", "-n", namespace, "--timeout=20s")
		Expect(images()).To(ConsistOf("m-live", "m-used"))
		k8s.MustKubectl(ctx, "delete", "cimg", "used", "-n", namespace, "--wait=false")
		Eventually(object).WithArguments(ctx, "used").Should(ContainSubstring("ImageUsingByInstance"))
		stop()
	})

	It("refuses a second release that would own the same CRD, roles and policies", func(ctx SpecContext) {
		refused := on(ctx, "install", "second", chart)
		Expect(refused.Err).To(HaveOccurred())
		Expect(refused.Stderr).To(ContainSubstring("invalid ownership metadata"))
		beside := on(ctx, "install", "second", chart, "--values="+chart+"/ci/second-operator-values.yaml",
			"--set=serviceAccount.name="+release+"-controller-manager")
		Expect(beside.Err).NotTo(HaveOccurred())
		Expect(on(ctx, "uninstall", "second").Err).NotTo(HaveOccurred())
	})

	It("deletes no image by an upgrade, and goes on with what was under way", func(ctx SpecContext) {
		upgraded := on(ctx, "upgrade", release, chart, "--set=logLevel=debug")
		Expect(upgraded.Err).NotTo(HaveOccurred())
		stop := manager(ctx)
		Consistently(images, "2s").Should(ConsistOf("m-live", "m-used"))
		Expect(cloud.PutImage(ecssim.Image{ImageID: "m-used", RegionID: "cn-hangzhou"})).To(Succeed())
		Eventually(object).WithArguments(ctx, "used").Should(BeEmpty())
		Expect(images()).To(ConsistOf("m-live"))
		stop()
	})

	It("deletes no image when it is uninstalled with objects left, says what to do, and takes them over when installed again",
		func(ctx SpecContext) {
			uninstalled := on(ctx, "uninstall", release)
			Expect(uninstalled.Err).NotTo(HaveOccurred())
			Expect(uninstalled.Stdout + uninstalled.Stderr).To(And(
				ContainSubstring("customimages.ecs.imagegc.io"), ContainSubstring("CustomImages that still exist keep their finalizer")))
			Expect(object(ctx, "live")).To(ContainSubstring("Available"))
			expectCommandWorks(ctx, uninstalled.Stdout+uninstalled.Stderr)
			Expect(images()).To(ConsistOf("m-live"))
			Expect(on(ctx, "install", release, chart).Err).NotTo(HaveOccurred())
			manager(ctx)
			k8s.MustKubectl(ctx, "annotate", "cimg", "live", "-n", namespace, "ecs.imagegc.io/retry-at=installed-again")
			k8s.MustKubectl(ctx, "wait", "cimg", "live", "-n", namespace, "--timeout=30s",
				"--for=jsonpath={.status.lastHandledRetryAt}=installed-again")
			Expect(images()).To(ConsistOf("m-live"))
		})

	It("leaves nothing behind and deletes no image when the CRD is deleted first", func(ctx SpecContext) {
		manager(ctx)
		k8s.MustKubectl(ctx, "delete", "crd", "customimages.ecs.imagegc.io", "--timeout=20s")
		Expect(on(ctx, "uninstall", release).Err).NotTo(HaveOccurred())
		Expect(images()).To(ConsistOf("m-live"))
		for _, kind := range []string{"clusterroles", "clusterrolebindings", "validatingadmissionpolicies", "mutatingadmissionpolicies"} {
			left := k8s.Kubectl(ctx, "get", kind, "-l", "app.kubernetes.io/name=ecs-image-gc", "-o", "name")
			Expect(left.Stdout).To(BeEmpty(), kind)
		}
	})
})

var _ = DescribeTable("It is valid with unusual names of a release and a namespace", func(ctx SpecContext, release, namespace string, args ...string) {
	k8s.MustKubectl(ctx, "create", "namespace", namespace)
	rendered := template(ctx, release, namespace, args...)
	Expect(rendered.Err).NotTo(HaveOccurred())
	file := cluster.Write("unusual.yaml", []byte(rendered.Stdout))
	applied := k8s.Kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", file)
	Expect(applied.Err).NotTo(HaveOccurred())
},
	Entry("the longest", "a"+strings.Repeat("-b", 26), "a"+strings.Repeat("-b", 31)),
	Entry("that are numbers in YAML", "7", "1e3", "--set-string=serviceAccount.name=7,credentials.existingSecret=0x1"),
	Entry("with a dot", "team.gc", "with-a-dot"),
)

var _ = It("says what to do about the name of a release that begins with a digit, where no Service may", func(ctx SpecContext) {
	refused := template(ctx, "7", "default", "--kube-version=1.35.0", "--set=admission.addFinalizer=false")
	Expect(refused.Err).To(HaveOccurred())
	Expect(refused.Stderr).To(ContainSubstring("Set fullnameOverride"))
})

// expectCommandWorks runs the command of the warning, which removes the operator's finalizer and no other one.
func expectCommandWorks(ctx context.Context, warning string) {
	GinkgoHelper()
	command := regexp.MustCompile(`kubectl (patch cimg NAME .* )'(.*)'`).FindStringSubmatch(warning)
	Expect(command).NotTo(BeNil(), warning)
	args := append(strings.Fields(strings.NewReplacer("NAMESPACE", namespace, "NAME", "left").Replace(command[1])), command[2])
	for _, of := range [][2]string{
		{"[ecs.imagegc.io/delete-image]", ""},
		{"[ecs.imagegc.io/delete-image, example.com/theirs]", `["example.com/theirs"]`},
	} {
		Expect(k8s.Apply(ctx, strings.Replace(manifest("left"), "{", "{finalizers: "+of[0]+", ", 1))).To(cluster.BeQuiet())
		k8s.MustKubectl(ctx, "delete", "cimg", "left", "-n", namespace, "--wait=false")
		k8s.MustKubectl(ctx, args...)
		Expect(k8s.Kubectl(ctx, "get", "cimg", "left", "-n", namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.finalizers}").Stdout).
			To(Equal(of[1]))
	}
	Expect(k8s.Kubectl(ctx, args...).Stderr).To(ContainSubstring("The request is invalid"), "theirs is not removed")
	k8s.MustKubectl(ctx, "patch", "cimg", "left", "-n", namespace, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
}

// packaged returns the chart as a file of another version.
func packaged(ctx context.Context, version string) string {
	GinkgoHelper()
	folder := GinkgoT().TempDir()
	Expect(helm(ctx, "package", chart, "--version="+version, "--destination="+folder).Err).NotTo(HaveOccurred())
	return folder + "/ecs-image-gc-" + version + ".tgz"
}

func manifest(name string) string {
	return fmt.Sprintf("apiVersion: ecs.imagegc.io/v1alpha1\nkind: CustomImage\nmetadata: {namespace: %s, name: %s}\n"+
		"spec: {regionID: cn-hangzhou, imageID: m-%s}\n", namespace, name, name)
}
