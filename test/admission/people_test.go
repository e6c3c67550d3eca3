package admission

import (
	"context"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// team is the namespace in which people have the roles.
const team = "team"

// Those who ask, by their user names. A person is called after the role that the person has in the namespace team.
const (
	editor              = "editor"
	administrator       = "admin"
	forcer              = "forcer"       // and editor
	releaser            = "releaser"     // and editor
	namespaceAdmin      = "tenant"       // has the cluster's own role admin
	clusterAdmin        = "clusteradmin" // has cluster-admin
	operator            = "system:serviceaccount:imagegc-system:imagegc-controller-manager"
	neighbour           = "system:serviceaccount:imagegc-system:default"
	namespaceController = "system:serviceaccount:kube-system:namespace-controller"
	garbageCollector    = "system:serviceaccount:kube-system:generic-garbage-collector"
	allControllers      = "system:kube-controller-manager"
)

var namespaced = map[string][]string{
	editor:        {"imagegc-customimage-editor"},
	administrator: {"imagegc-customimage-admin"},
	forcer:        {"imagegc-customimage-editor", "imagegc-customimage-forcer"},
	releaser:      {"imagegc-customimage-editor", "imagegc-customimage-releaser"},
	neighbour:     {"imagegc-customimage-admin"},
	// What the role admin is made of by a controller that does not run here.
	namespaceAdmin: {"system:aggregate-to-admin", "system:aggregate-to-edit", "system:aggregate-to-view"},
}

// as returns a user's client.
func as(user string) client.Client {
	GinkgoHelper()
	config := rest.CopyConfig(k8s.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	c, err := client.New(config, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	return c
}

// bindRoles gives each of them the roles.
func bindRoles(ctx context.Context) {
	GinkgoHelper()
	Expect(admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team}})).To(Succeed())
	for user, roles := range namespaced {
		for _, role := range roles {
			Expect(admin.Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: team, GenerateName: role + "-"},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
			})).To(Succeed())
		}
	}
	// Controllers that share one identity have all permissions that one of them needs.
	for _, user := range []string{clusterAdmin, allControllers} {
		Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
		})).To(Succeed())
	}
}

// awaitRules waits until the API server judges by the roles and the policies that were just created, which takes
// a moment.
func awaitRules(ctx context.Context) {
	GinkgoHelper()
	object := live(ctx, func(o *unstructured.Unstructured) {
		o.SetAnnotations(map[string]string{v1alpha1.AnnotationProtected: "true"})
	})
	try := func(user, patch string) error {
		return as(user).Patch(ctx, object.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)), client.DryRunAll)
	}
	for policy, patch := range map[string]string{
		"force":     `{"spec":{"force":true}}`,
		"finalizer": `{"metadata":{"finalizers":null}}`,
	} {
		for _, user := range []string{editor, administrator, neighbour} {
			Eventually(try).WithArguments(user, patch).Should(beDeniedBy(policy))
		}
		allowed := map[string]string{"force": forcer, "finalizer": releaser}[policy]
		Eventually(try).WithArguments(allowed, patch).Should(Succeed())
		Eventually(try).WithArguments(clusterAdmin, patch).Should(Succeed())
	}
	give := `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"mine","uid":"1-2-3"}]}}`
	Eventually(try).WithArguments(editor, give).Should(beDeniedBy("owner"))
	Eventually(as(administrator).Delete).WithArguments(ctx, object, client.DryRunAll).Should(beDeniedBy("protected"))
	Eventually(try).WithArguments(editor, `{"spec":{"imageID":"m-other"}}`).Should(beForbiddenBy("update"))
	object = doomed(ctx, retained)
	Eventually(try).WithArguments(editor, `{"spec":{"deletionPolicy":"Delete"}}`).Should(beDeniedBy("brakes"))
	Eventually(try).WithArguments(administrator, `{"spec":{"deletionPolicy":"Delete"}}`).Should(Succeed())
	Eventually(func() []string {
		fresh := manifest(nil)
		Expect(admin.Create(ctx, fresh, client.DryRunAll)).To(Succeed())
		return fresh.GetFinalizers()
	}).Should(Equal([]string{v1alpha1.Finalizer}))
}

// live creates an object in the namespace team as the operator leaves it, of an image of its own.
func live(ctx context.Context, change ...edit) *unstructured.Unstructured {
	GinkgoHelper()
	object := manifest(field("imageID", "m-"+rand.String(10)))
	object.SetNamespace(team)
	object.SetName("image-" + rand.String(10))
	object.SetFinalizers([]string{v1alpha1.Finalizer})
	for _, c := range change {
		c(object)
	}
	Expect(apply(ctx, admin, object)).To(Succeed())
	return object
}

// doomed creates an object that is being deleted.
func doomed(ctx context.Context, change ...edit) *unstructured.Unstructured {
	GinkgoHelper()
	object := live(ctx, change...)
	Expect(admin.Delete(ctx, object)).To(Succeed())
	return object
}

// edit changes a manifest.
type edit = func(*unstructured.Unstructured)

func annotated(key, value string) edit {
	return func(o *unstructured.Unstructured) { o.SetAnnotations(map[string]string{key: value}) }
}

func merge(body string) func(context.Context, client.Client, *unstructured.Unstructured) error {
	return patch(types.MergePatchType, body)
}

var protect = merge(`{"metadata":{"annotations":{"ecs.imagegc.io/protected":"true"}}}`)

// apply is what kubectl apply --server-side does.
func apply(ctx context.Context, user client.Client, object *unstructured.Unstructured) error {
	object.SetManagedFields(nil)
	manifest := client.ApplyConfigurationFromUnstructured(object)
	return user.Apply(ctx, manifest, client.FieldOwner("git"), client.ForceOwnership)
}

// stored returns the objects of an image that are in the cluster: how a request was answered is one thing, and
// what it did another.
func stored(ctx context.Context, object *unstructured.Unstructured) []unstructured.Unstructured {
	GinkgoHelper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("CustomImageList"))
	Expect(admin.List(ctx, list)).To(Succeed())
	objects := []unstructured.Unstructured{}
	for _, item := range list.Items {
		if imageID(&item) == imageID(object) {
			objects = append(objects, item)
		}
	}
	return objects
}

func imageID(object *unstructured.Unstructured) string {
	id, _, _ := unstructured.NestedString(object.Object, "spec", "imageID")
	return id
}

// beDeniedBy matches the answer of a policy, and not that of a missing role or of a policy that does not work.
func beDeniedBy(policy string) OmegaMatcher {
	return And(beForbiddenBy(policy), MatchError(ContainSubstring("kubectl ")))
}

// beForbiddenBy matches the answer of a policy that no GitOps tool takes for a reason to delete the object.
func beForbiddenBy(policy string) OmegaMatcher {
	return And(
		WithTransform(apierrors.IsForbidden, BeTrue()),
		MatchError(ContainSubstring("ValidatingAdmissionPolicy 'imagegc-customimage-"+policy+"'")),
		MatchError(Not(ContainSubstring("immutable"))))
}

// newcomer returns an editor whom nobody has given anything else yet.
func newcomer(ctx context.Context) string {
	GinkgoHelper()
	user := "newcomer-" + rand.String(5)
	kubectl(ctx, "create", "rolebinding", user, "-n", team, "--clusterrole=imagegc-customimage-editor", "--user="+user)
	Eventually(mergeLabel).WithArguments(ctx, as(user), live(ctx)).Should(Succeed())
	return user
}

var command = regexp.MustCompile(`kubectl (?:annotate|create) .*?(?:release=\S+|protected-|--user='[^']*')`)

// follow runs a command that a message tells, as one who may do everything.
func follow(ctx context.Context, message error, number int) {
	GinkgoHelper()
	commands := command.FindAllString(message.Error(), -1)
	Expect(len(commands)).To(BeNumerically(">", number), "%v", message)
	told := strings.NewReplacer("ANY-NAME", "told-"+rand.String(5), "'", "").Replace(commands[number])
	kubectl(ctx, strings.Fields(told)[1:]...)
}
