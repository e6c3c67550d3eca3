package cascade

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// secret is the Secret with a tenant's own access key.
const secret = "tenants-key"

// createNamespace makes a namespace; onDeletion is the value of its annotation, "" for none.
func createNamespace(ctx context.Context, name, onDeletion string) {
	GinkgoHelper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if onDeletion != "" {
		namespace.Annotations = map[string]string{v1alpha1.AnnotationOnNamespaceDeletion: onDeletion}
	}
	Expect(admin.Create(ctx, namespace)).To(Succeed())
}

// createImage puts an image into the cloud and an object of the same name into a namespace.
func createImage(ctx context.Context, namespace, id string, change ...func(*v1alpha1.CustomImage, *ecssim.Image)) {
	GinkgoHelper()
	object := &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: id},
		Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: id},
	}
	image := &ecssim.Image{ImageID: id, RegionID: region}
	for _, f := range change {
		f(object, image)
	}
	Expect(sim.PutImage(*image)).To(Succeed())
	Expect(admin.Create(ctx, object)).To(Succeed())
	Eventually(reason).WithArguments(ctx, namespace, id).Should(Equal(v1alpha1.ReasonAvailable))
}

func protected(object *v1alpha1.CustomImage, _ *ecssim.Image) {
	object.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
}

func inUse(_ *v1alpha1.CustomImage, image *ecssim.Image) { image.UsedBy = []string{"i-bp1"} }

func withSecret(object *v1alpha1.CustomImage, _ *ecssim.Image) {
	object.Spec.CredentialsSecretRef.Name = secret
}

// createSecret gives a namespace a key of its own, which the operator may read.
func createSecret(ctx context.Context, namespace string) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "imagegc-credentials-reader"},
		RoleRef: rbacv1.RoleRef{
			APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "imagegc-credentials-reader",
		},
		Subjects: []rbacv1.Subject{{
			Kind: "ServiceAccount", Namespace: cluster.Namespace, Name: cluster.Name,
		}},
	})).To(Succeed())
	Expect(admin.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secret},
		StringData: map[string]string{"access-key-id": "tenants-id", "access-key-secret": "tenants"},
	})).To(Succeed())
}

// block deletes an object as a person does, and waits until it is held up because instances use its image. By then
// they are gone: an attempt more would delete the image.
func block(ctx context.Context, namespace, id string) {
	GinkgoHelper()
	remove(ctx, "customimage", "-n", namespace, id)
	Eventually(reason).WithArguments(ctx, namespace, id).Should(Equal("ImageUsingByInstance"))
	Expect(sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
}

// remove deletes what kubectl takes these for, and does not wait until it is gone.
func remove(ctx context.Context, what ...string) {
	GinkgoHelper()
	kubectl(ctx, append([]string{"delete", "--wait=false"}, what...)...)
}

// reason is that of the condition that sums up.
func reason(ctx context.Context, namespace, id string) (string, error) {
	ready, err := condition(ctx, namespace, id, v1alpha1.ConditionReady)
	return ready.Reason, err
}

// message is that of a condition while it is True.
func message(ctx context.Context, namespace, id, kind string) (string, error) {
	c, err := condition(ctx, namespace, id, kind)
	if c.Status != metav1.ConditionTrue {
		return "", err
	}
	return c.Message, err
}

func condition(ctx context.Context, namespace, id, kind string) (metav1.Condition, error) {
	object := &v1alpha1.CustomImage{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: id}, object)
	if c := meta.FindStatusCondition(object.Status.Conditions, kind); c != nil {
		return *c, err
	}
	return metav1.Condition{}, err
}

// deleted reports whether somebody has deleted an object that is still there.
func deleted(ctx context.Context, namespace, id string) (bool, error) {
	object := &v1alpha1.CustomImage{}
	err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: id}, object)
	return !object.DeletionTimestamp.IsZero(), err
}

// gone reports whether the API server knows an object no longer.
func gone(ctx context.Context, object client.Object, namespace, name string) (bool, error) {
	err := admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
	return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
}

func namespaceGone(ctx context.Context, name string) (bool, error) {
	return gone(ctx, &corev1.Namespace{}, "", name)
}

func resourceGone(ctx context.Context) (bool, error) {
	definition := &metav1.PartialObjectMetadata{}
	definition.SetGroupVersionKind(schema.GroupVersionKind{
		Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
	})
	return gone(ctx, definition, "", crd)
}

func imageGone(ctx context.Context, namespace, id string) (bool, error) {
	return gone(ctx, &v1alpha1.CustomImage{}, namespace, id)
}

// expectKept checks that an image is there, and how often ECS was asked to delete it, whatever it said.
func expectKept(id string, calls int) {
	GinkgoHelper()
	Expect(imageInCloud(id)).To(BeTrue())
	Expect(deletions(id)).To(Equal(calls))
}

func imageInCloud(id string) bool {
	_, found := sim.Image(id)
	return found
}

func deletions(id string) int {
	calls := 0
	for _, call := range sim.Calls() {
		if call.Action == "DeleteImage" && call.ImageID == id {
			calls++
		}
	}
	return calls
}

// notes lists what events in a namespace say of objects that went without their images.
func notes(ctx context.Context, namespace string) ([]string, error) {
	events := &eventsv1.EventList{}
	err := admin.List(ctx, events, client.InNamespace(namespace))
	notes := []string{}
	for _, event := range events.Items {
		if event.Reason == v1alpha1.EventRetained && event.Type == corev1.EventTypeNormal {
			notes = append(notes, event.Note)
		}
	}
	return notes, err
}

// logLines returns what the operator's log says of an image since its last start.
func logLines(id string) []string {
	lines := []string{}
	for line := range strings.Lines(string(operator.Err.Contents())) {
		if strings.Contains(line, id) {
			lines = append(lines, line)
		}
	}
	return lines
}
