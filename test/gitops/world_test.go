package gitops

import (
	"cmp"
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const (
	root    = "../.."
	account = cluster.Account
	region  = "cn-hangzhou"
	// The operator watches these two, and no other namespace. The tenant's is that of config/gitops/tenant.
	namespace = "images"
	tenant    = "team-web"
)

var sim *ecssim.Server

// startOperator starts the manager, with a cloud behind it, and the namespaces that it watches.
func startOperator(ctx context.Context) {
	GinkgoHelper()
	k8s.MustKubectl(ctx, "create", "namespace", namespace)
	Expect(k8s.Apply(ctx, cluster.Build(ctx, "config/gitops/tenant"))).To(cluster.BeQuiet())
	sim = k8s.StartOperator(ctx, "--namespaces="+namespace+","+tenant, "--ambient-namespaces="+namespace)
}

// inCloud puts an image into the cloud, and returns its manifest.
func inCloud(image ecssim.Image, edits ...edit) *unstructured.Unstructured {
	GinkgoHelper()
	image.ImageID, image.RegionID = "m-"+rand.String(10), cmp.Or(image.RegionID, region)
	Expect(sim.PutImage(image)).To(Succeed())
	return manifestOf(image.ImageID, image.RegionID, edits...)
}

// manifestOf returns the manifest of an image, which the object is named after.
func manifestOf(id, region string, edits ...edit) *unstructured.Unstructured {
	GinkgoHelper()
	object := parse(fmt.Sprintf(`
apiVersion: ecs.imagegc.io/v1alpha1
kind: CustomImage
metadata: {name: %[1]s, namespace: %[2]s}
spec: {imageID: %[1]s, regionID: %[3]s}`, id, namespace, region))
	for _, change := range edits {
		object = change(object)
	}
	return object
}

func annotated(name, value string) edit {
	return func(o *unstructured.Unstructured) *unstructured.Unstructured {
		o.SetAnnotations(map[string]string{name: value})
		return o
	}
}

func in(namespace string) edit {
	return func(o *unstructured.Unstructured) *unstructured.Unstructured {
		o.SetNamespace(namespace)
		return o
	}
}

// create creates an object that ends with the spec.
func create(ctx context.Context, object *unstructured.Unstructured) *unstructured.Unstructured {
	GinkgoHelper()
	Expect(k8s.Admin.Create(ctx, object)).To(Succeed())
	DeferCleanup(forget, object)
	return object
}

// forget removes an object, whatever state it is in, so that it does not call ECS in the next specs.
func forget(ctx SpecContext, object *unstructured.Unstructured) {
	patch := func(text string) error {
		return client.IgnoreNotFound(k8s.Admin.Patch(ctx, object.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(text))))
	}
	Expect(patch(`{"metadata":{"annotations":null}}`)).To(Succeed())
	Expect(client.IgnoreNotFound(k8s.Admin.Delete(ctx, object.DeepCopy()))).To(Succeed())
	Expect(patch(`{"metadata":{"finalizers":null}}`)).To(Succeed())
}

// becomes waits until an object is ready, or not, for a reason, and returns it.
func becomes(ctx context.Context, object *unstructured.Unstructured, reason string) *unstructured.Unstructured {
	GinkgoHelper()
	Eventually(readyReason).WithArguments(ctx, object).Should(Equal(reason))
	return stored(ctx, object)
}

func readyReason(ctx context.Context, object *unstructured.Unstructured) (string, error) {
	found := object.DeepCopy()
	err := k8s.Admin.Get(ctx, client.ObjectKeyFromObject(object), found)
	reason, _ := condition(found, "Ready")["reason"].(string)
	return reason, err
}

// condition returns a condition of an object; nil if it has none of the type.
func condition(object *unstructured.Unstructured, kind string) map[string]any {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range conditions {
		if c := c.(map[string]any); c["type"] == kind {
			return c
		}
	}
	return nil
}

// gone reports whether the API server has no such object.
func gone(ctx context.Context, object *unstructured.Unstructured) (bool, error) {
	err := k8s.Admin.Get(ctx, client.ObjectKeyFromObject(object), object.DeepCopy())
	return err != nil && client.IgnoreNotFound(err) == nil, client.IgnoreNotFound(err)
}

func inTheCloud(id string) bool {
	_, found := sim.Image(id)
	return found
}
