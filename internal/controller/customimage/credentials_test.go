package customimage

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// mayReadSecrets binds the role that is shipped for it to the operator, in the world's namespace.
func (w *world) mayReadSecrets() {
	GinkgoHelper()
	Expect(admin.Create(w.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "imagegc-credentials-reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "credentials-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "operator"}},
	})).To(Succeed())
}

// unidentified is the identity of an operator that has none.
func unidentified(context.Context) (openapi.Credentials, error) {
	return openapi.Credentials{}, &failure.Error{Code: v1alpha1.ReasonNoCredentials, Message: "None."}
}

func (w *world) putSecret(name string, data map[string]string) {
	GinkgoHelper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: data}
	err := admin.Create(w.ctx, secret)
	if apierrors.IsAlreadyExists(err) {
		err = admin.Update(w.ctx, secret)
	}
	Expect(err).NotTo(HaveOccurred())
}

var _ = Describe("An object that names a Secret", func() {
	It("says which permission the operator lacks, with the command that grants it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
		w.create(w.id, withSecret("own"))
		w.expectStalled(w.id, "SecretForbidden", "Secret own in namespace "+w.namespace, "`kubectl create rolebinding "+
			"imagegc-credentials-reader -n "+w.namespace+" --clusterrole=imagegc-credentials-reader --serviceaccount=default:operator`")
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Denied"))
		Expect(w.sim.Calls()).To(BeEmpty(), "no other identity is tried")

		w.mayReadSecrets()
		w.attemptWhenDue(w.id)
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
	})

	It("says that the Secret is missing, or what is missing in it, with the command that helps", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.mayReadSecrets()
		w.create(w.id, withSecret("own"))
		w.expectStalled(w.id, "SecretNotFound", "no Secret own in namespace "+w.namespace,
			"`kubectl create secret generic own -n "+w.namespace+" --from-literal=access-key-id=")
		w.putSecret("own", map[string]string{"access-key-id": "test-id"})
		w.attemptWhenDue(w.id)
		w.expectStalled(w.id, "SecretInvalid", "Secret own has no access-key-secret.", "`kubectl edit secret own -n "+w.namespace+"`")
		w.putSecret("own", map[string]string{"access-key-id": "test-id\n", "access-key-secret": "test-secret\n"})
		w.attemptWhenDue(w.id)
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		Expect(w.sim.Calls()).NotTo(BeEmpty())
		for _, call := range w.sim.Calls() {
			Expect(call.AccessKeyID).To(Equal("test-id"))
		}
	})

	It("uses a key that was replaced at the next attempt, and says of a refused one which Secret holds it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.mayReadSecrets()
		w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
		w.create(w.id, withSecret("own"))
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.AccessKeys = []ecssim.AccessKey{{ID: "new-id", Secret: "new-secret"}}
		})).To(Succeed())
		w.delete(w.id)
		w.expectStalled(w.id, "InvalidAccessKeyIdNotFound", "Put a valid access key into Secret own.")
		Expect(condition(w.get(w.id), "Ready").Message).NotTo(ContainSubstring("test-"))
		w.putSecret("own", map[string]string{"access-key-id": "new-id", "access-key-secret": "new-secret"})
		w.attemptWhenDue(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("InUse"))
	})

	It("uses neither the Secret of another namespace nor the operator's own key when its Secret is deleted", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.mayReadSecrets()
		key := map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"}
		w.putSecret("own", key)
		other := w.beside()
		other.mayReadSecrets()
		other.putSecret("own", key)
		w.create(w.id, withSecret("own"))
		Expect(admin.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "own"}})).To(Succeed())
		before := len(w.sim.Calls())
		w.delete(w.id)
		w.expectStalled(w.id, "SecretNotFound")
		Expect(w.sim.Calls()).To(HaveLen(before))
		Expect(w.exists(w.id)).To(BeTrue())
	})
})

var _ = Describe("An object without a Secret", func() {
	It("may not use the operator's identity outside the namespaces that are named for it", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.config.Credentials.Config.AmbientNamespaces = []string{"imagegc-system"}
		w.create(w.id)
		w.expectStalled(w.id, "AmbientForbidden", "Namespace "+w.namespace, "spec.credentialsSecretRef", "--ambient-namespaces")
		w.delete(w.id)
		w.expectStalled(w.id, "AmbientForbidden")
		Expect(w.sim.Calls()).To(BeEmpty())
	})

	It("may not have the operator assume a role from there either", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.config.Credentials.Config.AmbientNamespaces = []string{"imagegc-system"}
		w.mayReadSecrets()
		w.putSecret("role", map[string]string{"role-arn": "acs:ram::" + thisAccount + ":role/gc"})
		w.create(w.id, withSecret("role"))
		w.expectStalled(w.id, "AmbientForbidden", "the role in Secret role")
		Expect(w.sim.Calls()).To(BeEmpty())
	})

	It("says which RAM action its key lacks", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.AccessKeys = []ecssim.AccessKey{{ID: "test-id", Secret: "test-secret", Deny: []string{"DeleteImage"}}}
		})).To(Succeed())
		w.create(w.id)
		w.delete(w.id)
		Expect(condition(w.get(w.id), "Ready").Message).To(ContainSubstring("Grant ecs:DeleteImage to the RAM user or role behind"))
	})
})

var _ = DescribeTable("An object without an identity is attempted at once by an operator that has got one, and by no other",
	func(ctx SpecContext, reason string, refusing credentials.Config) {
		w := newWorld(ctx, ecssim.Image{})
		source := w.config.Credentials
		w.config.Credentials = credentials.New(refusing)
		w.restart()
		w.create(w.id)
		w.expectStalled(w.id, reason)
		stalled := w.get(w.id)
		for range 2 {
			Expect(w.attempt(w.id).RequeueAfter).To(BeNumerically(">", 10*time.Second))
			Expect(w.get(w.id)).To(Equal(stalled), "no write says the same again")
			w.restart()
		}

		w.config.Credentials = source
		w.restart()
		w.attempt(w.id)
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
	},
	Entry("since the operator has none", "NoCredentials", credentials.Config{Ambient: unidentified, AmbientNamespaces: []string{"*"}}),
	Entry("since its namespace may not use it", "AmbientForbidden", credentials.Config{}),
)
