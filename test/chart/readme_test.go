package chart

import (
	"context"
	"os"
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
		Expect(runCommand(ctx, strings.Fields(command))).To(HaveField("Err", BeNil()), command)
		count++
	}
	Expect(count).To(BeNumerically(">=", 3), "install, delete the CRD, uninstall")
},
	Entry(nil, "README.md"),
	Entry(nil, "charts/ecs-image-gc/README.md"),
)

// commands are the helm commands of a page, and those of kubectl that go with them.
func commands(page string) (found []string) {
	GinkgoHelper()
	text, err := os.ReadFile(root + page) // #nosec G304: a page of the project
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.SplitSeq(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
		command, _, _ := strings.Cut(strings.TrimPrefix(line, "    "), " #")
		for _, begin := range []string{"helm ", "kubectl delete crd ", "kubectl label namespace "} {
			if strings.HasPrefix(line, "    "+begin) {
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
