package install

import (
	"os"
	"os/exec"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	. "github.com/onsi/gomega/gstruct"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var _ = Describe("The manifests", func() {
	It("are applied a second time without a conflict or a warning", func(ctx SpecContext) {
		Expect(k8s.Apply(ctx, cluster.Build(ctx, "config/default"))).To(cluster.BeQuiet())
	})

	It("are refused if they hold a field that the API server does not know", func(ctx SpecContext) {
		typo := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: typo}\ndate: {}\n"
		Expect(k8s.Apply(ctx, typo).Stderr).To(ContainSubstring(".date"))
	})

	It("hold samples that the API server accepts, one for each deletion policy", func(ctx SpecContext) {
		Expect(k8s.Apply(ctx, cluster.Build(ctx, "config/samples"))).To(cluster.BeQuiet())
		samples := &unstructured.UnstructuredList{}
		samples.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImageList"))
		Expect(admin.List(ctx, samples, client.InNamespace(namespace))).To(Succeed())
		policies := map[any]int{}
		for _, sample := range samples.Items {
			spec := sample.Object["spec"].(map[string]any)
			Expect(spec["force"]).To(BeFalse(), "a sample that forces would be copied")
			policies[spec["deletionPolicy"]]++
		}
		Expect(policies).To(And(HaveKey("Delete"), HaveKey("Retain"), HaveLen(2)))
	})

	It("hold a monitor for Prometheus, and leave it out of the default", func(ctx SpecContext) {
		Expect(cluster.Build(ctx, "config/prometheus")).To(ContainSubstring("kind: ServiceMonitor"))
		Expect(cluster.Build(ctx, "config/default")).NotTo(ContainSubstring("ServiceMonitor"))
	})

	It("leave out for an older Kubernetes what it does not have, and nothing else", func(ctx SpecContext) {
		manifests := func(of string) []string { return strings.Split(cluster.Build(ctx, of), "---\n") }
		all, older := manifests("config/default"), manifests("config/before-1.36")
		Expect(older).To(HaveLen(len(all) - 2))
		for _, manifest := range all {
			if !strings.Contains(manifest, "\nkind: MutatingAdmissionPolicy") {
				Expect(older).To(ContainElement(manifest))
			}
		}
	})

	It("have the Service and the network policy select the pods, and name a port of theirs", func(ctx SpecContext) {
		pod := podFromTemplate()
		ports := map[string]int32{}
		for _, port := range pod.Spec.Containers[0].Ports {
			ports[port.Name] = port.ContainerPort
		}
		service, policy := &corev1.Service{}, &networkingv1.NetworkPolicy{}
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name + "-metrics"}, service)).To(Succeed())
		Expect(labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels))).To(BeTrue())
		Expect(ports).To(HaveKey(service.Spec.Ports[0].TargetPort.String()))

		Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, policy)).To(Succeed())
		selected := labels.SelectorFromSet(policy.Spec.PodSelector.MatchLabels)
		Expect(selected.Matches(labels.Set(pod.Labels))).To(BeTrue())
		Expect(policy.Spec.Ingress[0].Ports[0].Port.IntVal).To(Equal(ports["metrics"]))
	})
})

var _ = Describe("The Deployment", func() {
	It("makes pods that meet the restricted pod security standard", func(ctx SpecContext) {
		Expect(admin.Create(ctx, podFromTemplate(), client.DryRunAll)).To(Succeed())
	})

	It("would not get its pods if they did not, as the namespace's label has it", func(ctx SpecContext) {
		pod := podFromTemplate()
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil
		err := admin.Create(ctx, pod, client.DryRunAll)
		Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
		Expect(err).To(MatchError(ContainSubstring("restricted")))
	})

	It("leaves the container nothing to write to", func() {
		Expect(podFromTemplate().Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem).To(PointTo(BeTrue()))
		Expect(podFromTemplate().Spec.Volumes).To(BeEmpty())
	})

	It("leaves a part of the memory limit to what the Go runtime does not count", func() {
		container := podFromTemplate().Spec.Containers[0]
		values := map[string]string{}
		for _, variable := range container.Env {
			value := variable.Value
			if source := variable.ValueFrom; source != nil && source.ResourceFieldRef != nil {
				Expect(source.ResourceFieldRef.Resource).To(Equal("limits.memory"))
				limit, divisor := container.Resources.Limits.Memory().Value(), source.ResourceFieldRef.Divisor.Value()
				divisor = max(divisor, 1)
				value = strconv.FormatInt((limit+divisor-1)/divisor, 10) // as the kubelet does it
			}
			values[variable.Name] = os.Expand(strings.NewReplacer("$(", "${", ")", "}").Replace(value),
				func(name string) string { return values[name] })
		}
		bytes, err := strconv.ParseFloat(values["GOMEMLIMIT"], 64)
		Expect(err).NotTo(HaveOccurred())
		Expect(bytes / float64(container.Resources.Limits.Memory().Value())).To(And(BeNumerically(">", 0.9), BeNumerically("<", 0.96)))
	})

	It("starts without the Secret of the access key", func() {
		count := 0
		for _, variable := range podFromTemplate().Spec.Containers[0].Env {
			if source := variable.ValueFrom; source != nil && source.SecretKeyRef != nil {
				Expect(source.SecretKeyRef.Optional).To(PointTo(BeTrue()), variable.Name)
				count++
			}
		}
		Expect(count).To(Equal(3))
	})

	It("passes flags that the manager knows, and names the ports that it listens on", func(ctx SpecContext) {
		container := podFromTemplate().Spec.Containers[0]
		help := cluster.Run(ctx, manager, append(container.Args, "--help")...)
		Expect(help.Err).NotTo(HaveOccurred())
		for _, port := range container.Ports {
			Expect(help.Stderr).To(ContainSubstring(`(default ":` + strconv.Itoa(int(port.ContainerPort)) + `")`))
		}
		unknown := cluster.Run(ctx, manager, "--no-such-flag", "--help")
		Expect(unknown.Err).To(HaveOccurred(), "the check must be able to fail")
	})
})

var _ = DescribeTable("The manager refuses a flag that makes no sense, in words that name the flag",
	func(ctx SpecContext, flag, value, rule string) {
		// The kubeconfig is of no cluster: a flag that was let through would be refused for that.
		refused := cluster.Run(ctx, manager, "--kubeconfig=nowhere", "--"+flag+"="+value)
		Expect(refused.Err).To(HaveOccurred())
		Expect(refused.Stderr).To(And(ContainSubstring("-"+flag), ContainSubstring(rule)))
	},
	Entry(nil, "namespaces", ",", "want names separated by commas"),
	Entry(nil, "network", "private", "want public or vpc"),
	Entry(nil, "sts-region", "cn_hangzhou", "want the ID of a region"),
	Entry(nil, "ecs-endpoint", "ecs.example", "want https://HOST"),
	Entry(nil, "sts-endpoint", "https://sts.example/path", "want https://HOST"),
	Entry(nil, "credentials", "vault", "want one of auto, rrsa, env, ecs-role, none"),
	Entry(nil, "ambient-namespaces", " ", "want names separated by commas"),
	Entry(nil, "request-timeout", "0s", "want more than 0"),
	Entry(nil, "resync-interval", "-1h", "want more than 0"),
	Entry(nil, "max-concurrent-reconciles", "0", "want 1 or more"),
	Entry(nil, "waiting-backoff", "5s", "want the first and the longest wait"),
	Entry(nil, "blocked-backoff", "10m,30s", "want the first and the longest wait"),
)

var _ = It("refuses the network vpc without a region for STS, whatever region an object has", func(ctx SpecContext) {
	refused := cluster.Run(ctx, manager, "--kubeconfig=nowhere", "--network=vpc")
	Expect(refused.Err).To(HaveOccurred())
	Expect(refused.Stderr).To(ContainSubstring("--sts-region is \\\"\\\": want a region with --network=vpc"))
	let := cluster.Run(ctx, manager, "--kubeconfig=nowhere", "--network=vpc", "--sts-region=cn-hangzhou")
	Expect(let.Stderr).NotTo(ContainSubstring("sts-region"))
})

var _ = It("does not start in a pod whose namespace it cannot tell: all would be able to use its identity", func(ctx SpecContext) {
	command := exec.CommandContext(ctx, manager, "--kubeconfig=nowhere")
	command.Env = []string{"KUBERNETES_SERVICE_HOST=127.0.0.1"}
	output, err := command.CombinedOutput()
	Expect(err).To(HaveOccurred())
	Expect(string(output)).To(ContainSubstring("or give --ambient-namespaces"))
})

var _ = It("refuses to start with words that are no flags, behind which it would see no flag", func(ctx SpecContext) {
	refused := cluster.Run(ctx, manager, "--kubeconfig=nowhere",
		"--leader-elect", "true", "--ecs-endpoint=http://127.0.0.1:1")
	Expect(refused.Err).To(HaveOccurred())
	Expect(refused.Stderr).To(ContainSubstring("write booleans as --flag=true"))
})
