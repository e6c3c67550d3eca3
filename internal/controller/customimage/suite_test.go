package customimage

import (
	"context"
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

var (
	scheme   = runtime.NewScheme()
	admin    client.Client // the person at the keyboard
	operator *rest.Config  // the operator, under the generated role and nothing more
)

func TestCustomImage(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(20 * time.Second)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	RunSpecs(t, "customimage")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	ctrl.SetLogger(zap.New(zap.WriteTo(GinkgoWriter)))
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())

	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{"../../../config/crd/bases"},
		ErrorIfCRDPathMissing: true,
	}
	config, err := environment.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(environment.Stop)
	admin, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	operator = operatorConfig(ctx, config)
})

// operatorConfig binds the role that is generated from the markers to a service account, and acts as that.
func operatorConfig(ctx context.Context, config *rest.Config) *rest.Config {
	GinkgoHelper()
	createRole(ctx, "credentials_reader_role.yaml") // for single namespaces to bind
	role := createRole(ctx, "role.yaml")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "operator"}}
	Expect(admin.Create(ctx, account)).To(Succeed())
	Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "operator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: account.Namespace, Name: account.Name}},
	})).To(Succeed())
	impersonating := rest.CopyConfig(config)
	impersonating.Impersonate.UserName = "system:serviceaccount:" + account.Namespace + ":" + account.Name
	impersonating.Impersonate.Groups = []string{"system:serviceaccounts", "system:authenticated"}
	impersonating.QPS = -1
	return impersonating
}

// createRole creates a role that is shipped.
func createRole(ctx context.Context, file string) *rbacv1.ClusterRole {
	GinkgoHelper()
	data, err := os.ReadFile("../../../config/rbac/" + file)
	Expect(err).NotTo(HaveOccurred())
	role := &rbacv1.ClusterRole{}
	Expect(yaml.UnmarshalStrict(data, role)).To(Succeed())
	Expect(admin.Create(ctx, role)).To(Succeed())
	return role
}
