package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// policed are the labels of a namespace in which the admission policies apply.
var policed = map[string]string{"faults": "policed"}

// shippedOperator is the operator's user name in the policies as they are shipped.
const shippedOperator = "system:serviceaccount:imagegc-system:imagegc-controller-manager"

// police installs the policies of config/admission for the namespaces that are labelled for them, with the operator of this
// suite in place of the shipped one, and waits until they apply.
func police(ctx context.Context) error {
	files, err := filepath.Glob("../../config/admission/*.yaml")
	if err != nil || len(files) < 7 {
		return fmt.Errorf("%d files of policies: %w", len(files), err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		data, err := os.ReadFile(file) // #nosec G304: from Glob
		if err != nil {
			return err
		}
		data = bytes.ReplaceAll(data, []byte(shippedOperator), []byte(operator.Impersonate.UserName))
		if err := install(ctx, utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return awaitPolicies(ctx)
}

func install(ctx context.Context, manifests *utilyaml.YAMLOrJSONDecoder) error {
	for {
		object := &unstructured.Unstructured{}
		switch err := manifests.Decode(&object.Object); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case len(object.Object) == 0:
			continue
		}
		if _, isBinding, _ := unstructured.NestedString(object.Object, "spec", "policyName"); isBinding {
			labels := map[string]any{}
			for name, value := range policed {
				labels[name] = value
			}
			if err := unstructured.SetNestedMap(object.Object, labels, "spec", "matchResources", "namespaceSelector", "matchLabels"); err != nil {
				return err
			}
		}
		if err := put(ctx, object); err != nil {
			return err
		}
	}
}

// put creates an object, or replaces that of an earlier run on a shared cluster, which may have had a bug in it.
func put(ctx context.Context, object client.Object) error {
	err := admin.Create(ctx, object)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old := object.DeepCopyObject().(client.Object)
	if err := admin.Get(ctx, client.ObjectKeyFromObject(object), old); err != nil {
		return err
	}
	object.SetResourceVersion(old.GetResourceVersion())
	if err := admin.Update(ctx, object); err != nil {
		return err
	}
	if object.GetGeneration() != old.GetGeneration() {
		time.Sleep(2 * time.Second) // the API server judges by the old policy for a moment
	}
	return nil
}

// awaitPolicies waits until objects get a finalizer at creation, and until what the other policies forbid is refused.
func awaitPolicies(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "policed-", Labels: policed}}
	if err := admin.Create(ctx, namespace); err != nil {
		return err
	}
	image := &v1alpha1.CustomImage{}
	change := func(of func(*v1alpha1.CustomImage)) (*v1alpha1.CustomImage, client.Patch) {
		changed := image.DeepCopy()
		of(changed)
		return changed, client.MergeFrom(image)
	}
	var last error
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(context.Context) (bool, error) {
		*image = v1alpha1.CustomImage{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, GenerateName: "try-"},
			Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: "m-try"},
		}
		last = admin.Create(ctx, image)
		return last == nil && hasFinalizer(image), nil
	})
	if err != nil {
		return fmt.Errorf("objects get no finalizer at creation: %w", errors.Join(err, last))
	}
	for ; last == nil; time.Sleep(100 * time.Millisecond) {
		another, patch := change(func(i *v1alpha1.CustomImage) { i.Spec.ImageID = "m-other" })
		bare, bares := change(func(i *v1alpha1.CustomImage) { i.Finalizers = nil })
		if apierrors.IsForbidden(admin.Patch(ctx, another, patch, client.DryRunAll)) &&
			apierrors.IsForbidden(editor.Patch(ctx, bare, bares, client.DryRunAll)) {
			break
		}
		last = ctx.Err()
	}
	if last != nil {
		return fmt.Errorf("the policies do not apply: %w", last)
	}
	image.Finalizers = nil
	return errors.Join(admin.Update(ctx, image), admin.Delete(ctx, image))
}

// editorsClient is that of a person with the role customimage-editor.
func editorsClient(ctx context.Context, config *rest.Config) (client.Client, error) {
	role, err := readRole("customimage_editor_role")
	if err != nil {
		return nil, err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "editor"}},
	}
	for _, object := range []client.Object{role, binding} {
		if err := put(ctx, object); err != nil {
			return nil, err
		}
	}
	acting := rest.CopyConfig(config)
	acting.Impersonate.UserName = "editor"
	return client.New(acting, client.Options{Scheme: scheme})
}
