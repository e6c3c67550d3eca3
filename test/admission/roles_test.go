package admission

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("The roles that are given one by one", func() {
	DescribeTable("hold one permission", func(ctx SpecContext, name, group, resource, verb string) {
		role := &rbacv1.ClusterRole{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: name}, role)).To(Succeed())
		Expect(role.Rules).To(Equal([]rbacv1.PolicyRule{
			{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}},
		}))
		Expect(role.AggregationRule).To(BeNil())
		Expect(role.Labels).NotTo(HaveKey(HavePrefix("rbac.authorization.k8s.io/aggregate-to-")))
	},
		Entry("to force", "imagegc-customimage-forcer", "ecs.imagegc.io", "customimages", "force"),
		Entry("to release", "imagegc-customimage-releaser", "ecs.imagegc.io", "customimages", "release"),
		Entry("to read Secrets", "imagegc-credentials-reader", "", "secrets", "get"),
	)

	It("are given to nobody by the installation", func(ctx SpecContext) {
		installed := client.MatchingLabels{"app.kubernetes.io/name": "ecs-image-gc"}
		everywhere, namespaced := &rbacv1.ClusterRoleBindingList{}, &rbacv1.RoleBindingList{}
		Expect(admin.List(ctx, everywhere, installed)).To(Succeed())
		Expect(admin.List(ctx, namespaced, installed)).To(Succeed())
		bound := []string{}
		for _, binding := range everywhere.Items {
			bound = append(bound, binding.RoleRef.Name)
		}
		for _, binding := range namespaced.Items {
			bound = append(bound, binding.RoleRef.Name)
		}
		Expect(bound).To(ConsistOf("imagegc-manager-role", "imagegc-leader-election-role"))
	})
})

var _ = Describe("A namespace's administrator", func() {
	// read reads a Secret of the namespace team as the operator.
	read := func(ctx context.Context, name string) error {
		return as(operator).Get(ctx, client.ObjectKey{Namespace: team, Name: name}, &corev1.Secret{})
	}
	asTenant := func(ctx context.Context, args ...string) {
		GinkgoHelper()
		kubectl(ctx, append([]string{"--as=" + namespaceAdmin, "--namespace=" + team}, args...)...)
	}

	BeforeEach(func(ctx SpecContext) {
		for _, name := range []string{"alibaba-cloud", "another"} {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: name}}
			Expect(admin.Create(ctx, secret)).To(Succeed())
			DeferCleanup(admin.Delete, secret)
		}
		Expect(read(ctx, "alibaba-cloud")).To(MatchError(ContainSubstring("forbidden")))
	})

	AfterEach(func(ctx SpecContext) {
		asTenant(ctx, "delete", "rolebinding", "--ignore-not-found", "imagegc-credentials-reader", "imagegc-credentials")
		Eventually(read).WithArguments(ctx, "alibaba-cloud").Should(MatchError(ContainSubstring("forbidden")))
	})

	It("has the operator read the Secrets of that namespace, but list none", func(ctx SpecContext) {
		asTenant(ctx, "create", "rolebinding", "imagegc-credentials-reader", "--clusterrole=imagegc-credentials-reader",
			"--serviceaccount=imagegc-system:imagegc-controller-manager")
		Eventually(read).WithArguments(ctx, "alibaba-cloud").Should(Succeed())
		Expect(read(ctx, "another")).To(Succeed())
		Expect(as(operator).List(ctx, &corev1.SecretList{}, client.InNamespace(team))).NotTo(Succeed())
		elsewhere := client.ObjectKey{Namespace: "imagegc-system", Name: "alibaba-cloud"}
		Expect(as(operator).Get(ctx, elsewhere, &corev1.Secret{})).To(MatchError(ContainSubstring("forbidden")))
	})

	It("has the operator read one Secret and no other", func(ctx SpecContext) {
		asTenant(ctx, "create", "role", "imagegc-credentials", "--verb=get", "--resource=secrets",
			"--resource-name=alibaba-cloud")
		asTenant(ctx, "create", "rolebinding", "imagegc-credentials", "--role=imagegc-credentials",
			"--serviceaccount=imagegc-system:imagegc-controller-manager")
		Eventually(read).WithArguments(ctx, "alibaba-cloud").Should(Succeed())
		Expect(read(ctx, "another")).To(MatchError(ContainSubstring("forbidden")))
	})

	It("cannot give out the permission to force or to release, nor has it", func(ctx SpecContext) {
		for _, role := range []string{"imagegc-customimage-forcer", "imagegc-customimage-releaser"} {
			binding := &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: team, GenerateName: "grab-"},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: namespaceAdmin}},
			}
			Expect(as(namespaceAdmin).Create(ctx, binding)).To(MatchError(ContainSubstring("not currently held")))
		}
	})
})
