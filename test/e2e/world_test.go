//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	namespace = cluster.Namespace
	simulator = "cloud/ecssim"
)

// kubectl runs kubectl, has it succeed, and returns what it printed.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	output := cluster.Run(ctx, "kubectl", args...)
	Expect(output.Err).NotTo(HaveOccurred())
	return output.Stdout
}

func deployment(ctx context.Context) *appsv1.Deployment {
	GinkgoHelper()
	found := &appsv1.Deployment{}
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: cluster.Name}, found)).To(Succeed())
	return found
}

// managerPod waits until the operator has one pod, which is ready, and returns it.
func managerPod(ctx context.Context) *corev1.Pod {
	GinkgoHelper()
	pods := &corev1.PodList{}
	Eventually(func(g Gomega) {
		selector := client.MatchingLabels(deployment(ctx).Spec.Selector.MatchLabels)
		ofReplicaSet := client.HasLabels{appsv1.DefaultDeploymentUniqueLabelKey}
		g.Expect(admin.List(ctx, pods, client.InNamespace(namespace), selector, ofReplicaSet)).To(Succeed())
		g.Expect(pods.Items).To(HaveLen(1))
		g.Expect(pods.Items[0].Status.Conditions).To(ContainElement(And(
			HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
	}).Should(Succeed())
	return &pods.Items[0]
}

// managerProcess is the only process of the operator, as the node sees it.
func managerProcess() int {
	GinkgoHelper()
	var found []int
	programs, err := filepath.Glob("/proc/[0-9]*/exe")
	Expect(err).NotTo(HaveOccurred())
	for _, program := range programs {
		if target, _ := os.Readlink(program); target == "/manager" {
			pid, err := strconv.Atoi(strings.Split(program, "/")[2])
			Expect(err).NotTo(HaveOccurred())
			found = append(found, pid)
		}
	}
	Expect(found).To(HaveLen(1), "processes of the operator")
	return found[0]
}

// address is where a Service of the form namespace/name listens.
func address(ctx context.Context, service string) string {
	GinkgoHelper()
	found := &corev1.Service{}
	in, name, _ := strings.Cut(service, "/")
	Expect(admin.Get(ctx, client.ObjectKey{Namespace: in, Name: name}, found)).To(Succeed())
	return found.Spec.ClusterIP
}

// simulate calls the administration of the simulator, and returns its answer.
func simulate(ctx context.Context, method, path string, body any) []byte {
	GinkgoHelper()
	content, err := json.Marshal(body)
	Expect(err).NotTo(HaveOccurred())
	url := "http://" + address(ctx, simulator) + ":8443/_sim/" + path
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(content))
	Expect(err).NotTo(HaveOccurred())
	response, err := http.DefaultClient.Do(request)
	Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	answer := &bytes.Buffer{}
	_, err = answer.ReadFrom(response.Body)
	Expect(err).NotTo(HaveOccurred())
	Expect(response.StatusCode).To(BeNumerically("<", 300), answer.String())
	return answer.Bytes()
}

// cloud is what the simulator tells about itself.
type cloud struct {
	Images []ecssim.Image
	Calls  []ecssim.Call
}

func look(ctx context.Context) (state cloud) {
	GinkgoHelper()
	Expect(json.Unmarshal(simulate(ctx, http.MethodGet, "state", nil), &state)).To(Succeed())
	return state
}

// deletions are the calls of DeleteImage for the image of an object.
func deletions(ctx context.Context, object *v1alpha1.CustomImage) []ecssim.Call {
	GinkgoHelper()
	calls := []ecssim.Call{}
	for _, call := range look(ctx).Calls {
		if call.Action == "DeleteImage" && call.ImageID == object.Spec.ImageID {
			calls = append(calls, call)
		}
	}
	return calls
}

// create makes an image and an object for it, and waits until the operator has seen the image.
func create(ctx context.Context, name string) *v1alpha1.CustomImage {
	GinkgoHelper()
	return createIn(ctx, namespace, name)
}

func createIn(ctx context.Context, namespace, name string) *v1alpha1.CustomImage {
	GinkgoHelper()
	id := "m-bp1" + name
	simulate(ctx, http.MethodPut, "images/"+id, ecssim.Image{ImageID: id, RegionID: "cn-hangzhou"})
	object := &v1alpha1.CustomImage{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	object.Spec.RegionID, object.Spec.ImageID = "cn-hangzhou", id
	// For some seconds after it got a CRD, the API server answers 503 to what a MutatingAdmissionPolicy changes.
	Eventually(func() error { return admin.Create(ctx, object) }).Should(Succeed())
	Eventually(func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		g.Expect(object.Status.Conditions).To(ContainElement(And(
			HaveField("Type", v1alpha1.ConditionReady), HaveField("Status", metav1.ConditionTrue))))
	}).Should(Succeed())
	return object
}

// remove deletes the object, and waits until DeleteImage has been called.
func remove(ctx context.Context, object *v1alpha1.CustomImage) {
	GinkgoHelper()
	Expect(admin.Delete(ctx, object)).To(Succeed())
	Eventually(deletions).WithArguments(ctx, object).ShouldNot(BeEmpty())
}

// expectDeleted waits until the object is gone. The image is gone by then, and an event says so.
func expectDeleted(ctx context.Context, object *v1alpha1.CustomImage) {
	GinkgoHelper()
	expectGone(ctx, object)
	Eventually(func(g Gomega) {
		events := &eventsv1.EventList{}
		g.Expect(admin.List(ctx, events, client.InNamespace(namespace))).To(Succeed())
		g.Expect(events.Items).To(ContainElement(And(
			HaveField("Regarding.UID", object.UID), HaveField("Reason", "Deleted"))))
	}).Should(Succeed())
}

// expectGone waits until the object is gone. The image is gone by then.
func expectGone(ctx context.Context, object *v1alpha1.CustomImage) {
	GinkgoHelper()
	Eventually(func() bool {
		return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKeyFromObject(object), &v1alpha1.CustomImage{}))
	}).Should(BeTrue(), "the object is gone")
	Expect(look(ctx).Images).NotTo(ContainElement(HaveField("ImageID", object.Spec.ImageID)))
}

// endOf does what ends a pod, and returns how its container ended, and how long after the pod was deleted.
func endOf(ctx context.Context, pod *corev1.Pod, do func()) (end *corev1.ContainerStateTerminated, after time.Duration) {
	GinkgoHelper()
	watcher, err := admin.Watch(ctx, &corev1.PodList{}, client.InNamespace(namespace),
		client.MatchingFields{"metadata.name": pod.Name})
	Expect(err).NotTo(HaveOccurred())
	defer watcher.Stop()
	do()
	var told time.Time
	for event := range watcher.ResultChan() {
		seen, ok := event.Object.(*corev1.Pod)
		Expect(ok).To(BeTrue(), "%v", event.Object)
		if seen.DeletionTimestamp != nil && told.IsZero() {
			told = time.Now()
		}
		if ended := seen.Status.ContainerStatuses[0].State.Terminated; ended != nil && end == nil {
			end, after = ended, time.Since(told)
		}
		if event.Type == watch.Deleted {
			break
		}
	}
	Expect(end).NotTo(BeNil(), "the end of the container")
	return end, after
}

// expectJSON has each line of a log be a JSON object.
func expectJSON(log string) {
	GinkgoHelper()
	Expect(log).NotTo(BeEmpty())
	for line := range strings.Lines(log) {
		Expect(json.Unmarshal([]byte(line), &map[string]any{})).To(Succeed(), line)
	}
}
