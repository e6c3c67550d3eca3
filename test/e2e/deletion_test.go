//go:build e2e

package e2e

import (
	"net/http"
	"os/exec"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// sigkill is the exit code of a container that the kernel or the kubelet killed.
const sigkill = 128 + int32(syscall.SIGKILL)

func deletionSpecs() {
	It("calls DeleteImage once, and says that the image is deleted when it is", func(ctx SpecContext) {
		image := create(ctx, "free")
		remove(ctx, image)
		expectDeleted(ctx, image)
		Expect(deletions(ctx, image)).To(HaveLen(1))
	})

	It("is started again by the kubelet if it is killed in the middle of DeleteImage, and deletes the image",
		func(ctx SpecContext) {
			image, pod := create(ctx, "killed"), managerPod(ctx)
			simulate(ctx, http.MethodPost, "faults", hang("DeleteImage", image.Spec.ImageID))
			remove(ctx, image)
			Expect(syscall.Kill(managerProcess(), syscall.SIGKILL)).To(Succeed())
			expectDeleted(ctx, image)
			again := managerPod(ctx)
			Expect(again.Name).To(Equal(pod.Name))
			Expect(again.Status.ContainerStatuses[0].RestartCount).To(Equal(pod.Status.ContainerStatuses[0].RestartCount + 1))
			Expect(again.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode).To(Equal(sigkill))
		})

	It("finishes the call under way if its pod is deleted, so that the next pod need not repeat it", func(ctx SpecContext) {
		image, pod := create(ctx, "evicted"), managerPod(ctx)
		remove(ctx, image)
		end, _ := endOf(ctx, pod, func() { Expect(admin.Delete(ctx, pod)).To(Succeed()) })
		Expect(end.ExitCode).To(BeZero())
		expectGone(ctx, image) // the event that tells of it can be lost when the process ends
		Expect(deletions(ctx, image)).To(HaveLen(1))
		Expect(managerPod(ctx).Name).NotTo(Equal(pod.Name))
	})

	It("ends within the grace period if it is rolled out while DeleteImage hangs, and the next pod deletes the image",
		func(ctx SpecContext) {
			image, pod := create(ctx, "hung"), managerPod(ctx)
			simulate(ctx, http.MethodPost, "faults", hang("DeleteImage", image.Spec.ImageID))
			log, err := gexec.Start(exec.Command("kubectl", "logs", "-f", "-n", namespace, pod.Name), nil, nil)
			Expect(err).NotTo(HaveOccurred())
			remove(ctx, image)

			end, after := endOf(ctx, pod, func() {
				kubectl(ctx, "rollout", "restart", "-n", namespace, "deployment/"+cluster.Name)
			})
			grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
			Expect(end.ExitCode).To(BeZero())
			Expect(after).To(And(BeNumerically(">", 30*time.Second), BeNumerically("<", grace)), "it waits for its calls")
			Eventually(log).Should(gexec.Exit(0))
			expectJSON(string(log.Out.Contents()))
			expectDeleted(ctx, image)
			Expect(deletions(ctx, image)).To(HaveLen(2))
		})
}

// hang has the simulator not answer one call.
func hang(action, imageID string) ecssim.Fault {
	return ecssim.Fault{Action: action, ImageID: imageID, Kind: ecssim.FaultHang}
}
