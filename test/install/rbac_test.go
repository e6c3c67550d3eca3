package install

import (
	"context"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("The operator's service account", func() {
	DescribeTable("may not", func(ctx SpecContext, verb, group, resource, object string) {
		Expect(allowed(ctx, serviceAccount(name), verb, group, resource, object)).To(BeFalse())
	},
		Entry("read Secrets", "get", "", "secrets", "alibaba-cloud"),
		Entry("list Secrets", "list", "", "secrets", ""),
		Entry("delete CustomImages", "delete", "ecs.imagegc.io", "customimages", ""),
		Entry("create CustomImages", "create", "ecs.imagegc.io", "customimages", ""),
		Entry("change its own permissions", "patch", "rbac.authorization.k8s.io", "clusterroles", "imagegc-manager-role"),
		Entry("take the Lease of another", "update", "coordination.k8s.io", "leases", "another"),
		Entry("start pods", "create", "", "pods", ""),
	)
})

var _ = Describe("The roles for people", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {
		for _, role := range []string{"viewer", "editor", "admin"} {
			Expect(admin.Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role},
				RoleRef: rbacv1.RoleRef{
					APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "imagegc-customimage-" + role,
				},
				Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: role}},
			})).To(Succeed())
		}
	})

	DescribeTable("give", func(ctx SpecContext, role, want string) {
		user := rest.ImpersonationConfig{UserName: role}
		may := []string{}
		for verb := range strings.FieldsSeq("get list watch create update patch delete deletecollection") {
			if allowed(ctx, user, verb, "ecs.imagegc.io", "customimages", "") {
				may = append(may, verb)
			}
		}
		Expect(strings.Join(may, " ")).To(Equal(want))
		Expect(allowed(ctx, user, "patch", "ecs.imagegc.io", "customimages/status", "")).To(BeFalse(),
			"the operator decides by what it saw")
	},
		Entry("a viewer nothing but reading", "viewer", "get list watch"),
		Entry("an editor everything but deletion", "editor", "get list watch create update patch"),
		Entry("an admin everything", "admin",
			"get list watch create update patch delete deletecollection"),
	)

	It("become part of the cluster's own roles as far as they read", func(ctx SpecContext) {
		roles := &rbacv1.ClusterRoleList{}
		Expect(admin.List(ctx, roles, client.MatchingLabels{"app.kubernetes.io/name": "ecs-image-gc"})).To(Succeed())
		aggregated := []string{}
		for _, role := range roles.Items {
			for label := range role.Labels {
				if strings.HasPrefix(label, "rbac.authorization.k8s.io/aggregate-to-") {
					aggregated = append(aggregated, role.Name+" "+label)
				}
			}
		}
		Expect(aggregated).To(ConsistOf("imagegc-customimage-viewer rbac.authorization.k8s.io/aggregate-to-view"))
	})
})

// rules lists what the operator may do in a namespace beyond what every service account may, a line for each
// rule: "verbs resource.group/object".
func rules(ctx context.Context, in string) []string {
	GinkgoHelper()
	common := rulesOf(ctx, serviceAccount("another"), in)
	return slices.DeleteFunc(rulesOf(ctx, serviceAccount(name), in), func(line string) bool {
		return slices.Contains(common, line)
	})
}

func rulesOf(ctx context.Context, user rest.ImpersonationConfig, in string) []string {
	GinkgoHelper()
	config := rest.CopyConfig(k8s.Config)
	config.Impersonate = user
	asUser, err := client.New(config, client.Options{})
	Expect(err).NotTo(HaveOccurred())
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in}}
	Expect(asUser.Create(ctx, review)).To(Succeed())
	Expect(review.Status.Incomplete).To(BeFalse())
	lines := []string{}
	for _, rule := range review.Status.ResourceRules {
		slices.Sort(rule.Verbs)
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				line := strings.Join(rule.Verbs, ",") + " " + resource + "." + group
				lines = append(lines, strings.Join(append([]string{line}, rule.ResourceNames...), "/"))
			}
		}
	}
	return lines
}

// serviceAccount is who a service account in the operator's namespace is to the API server.
func serviceAccount(account string) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
}

// allowed reports whether a user may do something to an object in the operator's namespace.
func allowed(ctx context.Context, user rest.ImpersonationConfig, verb, group, resource, object string) bool {
	GinkgoHelper()
	resource, subresource, _ := strings.Cut(resource, "/")
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:   user.UserName,
		Groups: user.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: group, Resource: resource, Subresource: subresource, Name: object,
		},
	}}
	Expect(admin.Create(ctx, review)).To(Succeed())
	return review.Status.Allowed
}
