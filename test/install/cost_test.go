package install

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gexec"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// The counts of docs/design.md, "Fresh, and cheap", taken where they are paid: in the audit log of the API server, and
// in the simulator.
var _ = Describe("A drain of 1,000 images", Ordered, func() {
	const (
		drained = "drained"
		count   = 1000
	)
	var (
		cloud   *ecssim.Server
		created time.Time
	)

	BeforeAll(func(ctx SpecContext) {
		Expect(client.IgnoreAlreadyExists(v1alpha1.AddToScheme(admin.Scheme()))).To(Succeed())
		removeImages(ctx)
		scenario := ecssim.Scenario{AccountID: account, AccessKeys: []ecssim.AccessKey{{ID: "drain-id", Secret: "drain-secret"}},
			Latency: ecssim.Duration(50 * time.Millisecond)}
		for n := range count {
			scenario.Images = append(scenario.Images, ecssim.Image{ImageID: fmt.Sprintf("m-drain%d", n), RegionID: "cn-hangzhou"})
		}
		var err error
		cloud, err = ecssim.New(scenario, nil)
		Expect(err).NotTo(HaveOccurred())
		server := httptest.NewServer(cloud)
		DeferCleanup(func() { cloud.Close(); server.Close() })
		command := exec.Command(manager, "--health-probe-bind-address=0", "--metrics-bind-address=0",
			"--kubeconfig="+k8s.OperatorKubeconfig(ctx), "--ecs-endpoint="+server.URL, "--ambient-namespaces="+drained)
		command.Env = []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=drain-id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET=drain-secret"}
		session, err := gexec.Start(command, GinkgoWriter, GinkgoWriter)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func() { session.Kill().Wait() })
		Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: drained}})).To(Succeed())
	})

	// left counts the objects in the namespace that do not have the condition.
	left := func(ctx context.Context, condition string) (int, error) {
		list := &v1alpha1.CustomImageList{}
		err := admin.List(ctx, list, client.InNamespace(drained))
		missing := 0
		for _, image := range list.Items {
			if !meta.IsStatusConditionTrue(image.Status.Conditions, condition) {
				missing++
			}
		}
		return missing, err
	}

	It("costs at most two writes and one event for each object that is created", func(ctx SpecContext) {
		before := len(audited())
		group, ctx2 := errgroup.WithContext(ctx)
		group.SetLimit(16)
		for n := range count {
			group.Go(func() error {
				return admin.Create(ctx2, &v1alpha1.CustomImage{
					ObjectMeta: metav1.ObjectMeta{Namespace: drained, Name: fmt.Sprintf("drain-%d", n)},
					Spec:       v1alpha1.CustomImageSpec{RegionID: "cn-hangzhou", ImageID: fmt.Sprintf("m-drain%d", n)},
				})
			})
		}
		Expect(group.Wait()).To(Succeed())
		created = time.Now()
		Eventually(left).WithArguments(ctx, "Ready").WithTimeout(2 * time.Minute).WithPolling(time.Second).Should(BeZero())
		Eventually(func() int { return costs(before)["create events"] }).Should(BeNumerically(">=", count))
		used := costs(before)
		GinkgoWriter.Println("created:", used)
		AddReportEntry("created", used)
		Expect(used["patch customimages"] + used["patch customimages/status"]).To(BeNumerically("<=", 2*count))
		Expect(used["create events"]).To(BeNumerically("<=", count))
		Expect(used.reads()).To(BeZero())
	})

	It("costs at most 1.2 reads, no list, one patch and one event, one DeleteImage and one DescribeImages", func(ctx SpecContext) {
		// Of an object that is deleted within 5 s of its creation, the clocks of API servers do not say what is older.
		time.Sleep(time.Until(created.Add(7 * time.Second)))
		before, looked := len(audited()), actions(cloud)["DescribeImages"]
		started := time.Now()
		Expect(admin.DeleteAllOf(ctx, &v1alpha1.CustomImage{}, client.InNamespace(drained))).To(Succeed())
		Eventually(func() (int, error) {
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImageList"))
			err := admin.List(ctx, list, client.InNamespace(drained))
			return len(list.Items), err
		}).WithTimeout(2 * time.Minute).WithPolling(500 * time.Millisecond).Should(BeZero())
		took := time.Since(started)
		Expect(cloud.Images()).To(BeEmpty())
		Eventually(func() int { return costs(before)["create events"] }).Should(Equal(count))
		used := costs(before)
		AddReportEntry("deleted", fmt.Sprint(used, " in ", took))
		GinkgoWriter.Println("deleted:", used, took)
		Expect(used.reads()).To(BeNumerically("<=", 1.2*count))
		Expect(used.lists()).To(BeZero())
		Expect(used["patch customimages"]).To(Equal(count))
		Expect(used["patch customimages/status"]).To(BeZero())
		Expect(actions(cloud)["DeleteImage"]).To(Equal(count))
		Expect(actions(cloud)["DescribeImages"] - looked).To(Equal(count))
	})
})

// removeImages removes the objects that other specs left behind: the operator would look after them too.
func removeImages(ctx context.Context) {
	GinkgoHelper()
	list := &v1alpha1.CustomImageList{}
	Expect(admin.List(ctx, list)).To(Succeed())
	for i := range list.Items {
		image := &list.Items[i]
		Expect(client.IgnoreNotFound(admin.Delete(ctx, image))).To(Succeed())
		none := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		Expect(client.IgnoreNotFound(admin.Patch(ctx, image, none))).To(Succeed())
	}
}

// cost counts requests to the API server, as "verb resource/subresource".
type cost map[string]int

// costs counts what the operator has requested since there were so many events in the audit log.
func costs(since int) cost {
	GinkgoHelper()
	counts := cost{}
	for _, event := range audited()[since:] {
		resource := event.ObjectRef.Resource
		if event.ObjectRef.Subresource != "" {
			resource += "/" + event.ObjectRef.Subresource
		}
		counts[event.Verb+" "+resource]++
	}
	return counts
}

// reads counts the requests that read the objects of the operator, or what they are part of.
func (c cost) reads() int {
	return c["get customimages"] + c["get namespaces"] + c["get customresourcedefinitions"] + c["get secrets"] + c.lists()
}

func (c cost) lists() int {
	return c["list customimages"] + c["list namespaces"] + c["list customresourcedefinitions"]
}

// actions counts the calls that reached the cloud.
func actions(cloud *ecssim.Server) map[string]int {
	counts := map[string]int{}
	for _, call := range cloud.Calls() {
		counts[call.Action]++
	}
	return counts
}
