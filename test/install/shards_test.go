package install

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

var _ = Describe("Two operators that divide the namespaces", func() {
	It("are installed from config/shards, with a selector of their own each", func(ctx SpecContext) {
		manifests := cluster.Build(ctx, "config/shards")
		Expect(strings.Count(manifests, "kind: Deployment\n")).To(Equal(2))
		Expect(strings.Count(manifests, "kind: Namespace\n")).To(Equal(1))
		applied := kubectl(ctx, "apply", "--server-side", "--validate=strict", "--dry-run=server", "--force-conflicts",
			"-f", cluster.Write("shards.yaml", []byte(manifests)))
		Expect(applied.Err).NotTo(HaveOccurred())
		Expect(applied.Stdout).To(ContainSubstring("deployment.apps/" + name + "-second serverside-applied"))
	})

	It("delete the images of their own namespaces, each once", func(ctx SpecContext) {
		const count = 20
		shards := []string{"shard-one", "shard-two"}
		sim := ecssim.Scenario{AccountID: account}
		for _, shard := range shards {
			sim.AccessKeys = append(sim.AccessKeys, ecssim.AccessKey{ID: shard, Secret: shard + "-secret"})
			for n := range count {
				sim.Images = append(sim.Images, ecssim.Image{ImageID: fmt.Sprint("m-", strings.TrimPrefix(shard, "shard-"), n),
					RegionID: "cn-hangzhou"})
			}
		}
		cloud, err := ecssim.New(sim, nil)
		Expect(err).NotTo(HaveOccurred())
		server := httptest.NewServer(cloud)
		DeferCleanup(func() { cloud.Close(); server.Close() })
		for _, shard := range shards {
			Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shard}})).To(Succeed())
			startShard(ctx, shard, server.URL)
		}
		for _, shard := range shards {
			manifests := ""
			for n := range count {
				id := fmt.Sprint("m-", strings.TrimPrefix(shard, "shard-"), n)
				manifests += manifest(shard, id, id, "")
			}
			Expect(kubectl(ctx, "apply", "-f", cluster.Write(shard+".yaml", []byte(manifests)))).To(cluster.BeQuiet())
			Expect(kubectl(ctx, "wait", "-n", shard, "cimg", "--all", "--for=condition=Ready", "--timeout=30s").Err).NotTo(HaveOccurred())
		}
		for _, shard := range shards {
			Expect(kubectl(ctx, "delete", "-n", shard, "cimg", "--all", "--timeout=60s").Err).NotTo(HaveOccurred())
		}
		Expect(cloud.Images()).To(BeEmpty())
		deletions := map[string]int{}
		for _, call := range cloud.Calls() {
			if call.Action == "DeleteImage" {
				deletions[call.ImageID]++
				Expect(call.ImageID).To(HavePrefix("m-" + strings.TrimPrefix(call.AccessKeyID, "shard-")))
			}
		}
		Expect(deletions).To(HaveLen(len(shards) * count))
		Expect(deletions).To(HaveEach(1))
	})
})

// startShard starts an operator for one namespace, with the key of that name.
func startShard(ctx context.Context, shard, endpoint string) {
	GinkgoHelper()
	startShardWith(k8s.OperatorKubeconfig(ctx), shard, endpoint)
}

// startShardWith starts it with a kubeconfig, and further flags.
func startShardWith(kubeconfig, shard, endpoint string, flags ...string) *gexec.Session {
	GinkgoHelper()
	command := exec.Command(manager, "--health-probe-bind-address=0", "--metrics-bind-address=0", "--namespaces="+shard,
		"--kubeconfig="+kubeconfig, "--ecs-endpoint="+endpoint, "--ambient-namespaces="+shard)
	command.Args = append(command.Args, flags...)
	command.Env = []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=" + shard, "ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + shard + "-secret"}
	session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { session.Terminate().Wait(20 * time.Second) })
	return session
}
