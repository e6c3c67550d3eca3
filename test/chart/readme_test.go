package chart

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var _ = DescribeTable("The commands work, in the order in which they are in", func(ctx SpecContext, page string) {
	count := 0
	for _, command := range commands(page) {
		if strings.Contains(command, "NAME") { // of an object; test/docs runs these
			continue
		}
		Expect(runCommand(ctx, words(ctx, command))).To(HaveField("Err", BeNil()), command)
		count++
	}
	Expect(count).To(BeNumerically(">=", 3), "install, delete the CRD, uninstall")
},
	Entry(nil, "README.md"),
	Entry(nil, "charts/ecs-image-gc/README.md"),
)

var _ = It("The commands of other pages for a release that is installed work", func(ctx SpecContext) {
	pages, err := filepath.Glob(root + "docs/*.md")
	Expect(err).NotTo(HaveOccurred())
	reasons, err := filepath.Glob(root + "docs/reasons/*.md")
	Expect(err).NotTo(HaveOccurred())
	const in = "--namespace=imagegc-system"
	Expect(runCommand(ctx, []string{"helm", "install", "imagegc", chart, in, "--create-namespace"})).To(HaveField("Err", BeNil()))
	count := 0
	for _, page := range append(pages, reasons...) {
		for _, command := range commands(strings.TrimPrefix(page, root)) {
			if strings.HasPrefix(command, "helm upgrade ") || strings.HasPrefix(command, "helm get ") {
				Expect(runCommand(ctx, words(ctx, command))).To(HaveField("Err", BeNil()), command)
				count++
			}
		}
	}
	Expect(count).To(BeNumerically(">=", 4))
	account := k8s.Kubectl(ctx, "get", "serviceaccount", "-n", "imagegc-system", "imagegc-controller-manager", "-o", "yaml")
	Expect(account.Stdout).To(ContainSubstring("pod-identity.alibabacloud.com/role-name: imagegc"))
	k8s.MustKubectl(ctx, "delete", "crd", "customimages.ecs.imagegc.io", "--timeout=20s")
	Expect(runCommand(ctx, []string{"helm", "uninstall", "imagegc", in})).To(HaveField("Err", BeNil()))
})

// words are the arguments of a command, as a shell takes it apart.
func words(ctx context.Context, command string) []string {
	GinkgoHelper()
	output := cluster.Run(ctx, "bash", "-c", `printf '%s\0' `+command)
	Expect(output.Err).NotTo(HaveOccurred())
	return strings.Split(strings.TrimSuffix(output.Stdout, "\x00"), "\x00")
}

// commands are the helm commands of a page, and those of kubectl that go with them.
func commands(page string) (found []string) {
	GinkgoHelper()
	text, err := os.ReadFile(root + page) // #nosec G304: a page of the project
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.SplitSeq(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
		command, _, _ := strings.Cut(strings.TrimLeft(line, " "), " #")
		for _, begin := range []string{"helm ", "kubectl delete crd ", "kubectl label namespace imagegc-system "} {
			if strings.HasPrefix(line, "    ") && strings.HasPrefix(command, begin) {
				found = append(found, command)
			}
		}
	}
	return found
}

func runCommand(ctx context.Context, command []string) cluster.Output {
	if command[0] == "helm" {
		return helm(ctx, append(command[1:], "--kubeconfig="+k8s.Kubeconfig)...)
	}
	return k8s.Kubectl(ctx, command[1:]...)
}
