package controller

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// mayReadSecrets binds the role that is shipped for it to the operator, in the world's namespace.
func (w *world) mayReadSecrets() {
	GinkgoHelper()
	Expect(admin.Create(context.Background(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "imagegc-credentials-reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "credentials-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "operator"}},
	})).To(Succeed())
}

func (w *world) putSecret(name string, data map[string]string) {
	GinkgoHelper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: data}
	err := admin.Create(context.Background(), secret)
	if apierrors.IsAlreadyExists(err) {
		err = admin.Update(context.Background(), secret)
	}
	Expect(err).NotTo(HaveOccurred())
}

var _ = Describe("An object that names a Secret", func() {
	It("says which permission the operator lacks, with the command that grants it", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
		w.create(id, withSecret("own"))
		w.expectStalled(id, "SecretForbidden", "Secret own in namespace "+w.namespace, "`kubectl create rolebinding "+
			"imagegc-credentials-reader -n "+w.namespace+" --clusterrole=imagegc-credentials-reader --serviceaccount=default:operator`")
		Expect(trueObstacles(w.get(id))).To(ConsistOf("Denied"))
		Expect(w.sim.Calls()).To(BeEmpty(), "no other identity is tried")

		w.mayReadSecrets()
		w.attemptWhenDue(id)
		Expect(condition(w.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
	})

	It("says that the Secret is missing, or what is missing in it, with the command that helps", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.mayReadSecrets()
		w.create(id, withSecret("own"))
		w.expectStalled(id, "SecretNotFound", "no Secret own in namespace "+w.namespace,
			"`kubectl create secret generic own -n "+w.namespace+" --from-literal=access-key-id=")
		w.putSecret("own", map[string]string{"access-key-id": "test-id"})
		w.attemptWhenDue(id)
		w.expectStalled(id, "SecretInvalid", "Secret own has no access-key-secret.", "`kubectl edit secret own -n "+w.namespace+"`")
		w.putSecret("own", map[string]string{"access-key-id": "test-id\n", "access-key-secret": "test-secret\n"})
		w.attemptWhenDue(id)
		Expect(condition(w.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		for _, call := range w.sim.Calls() {
			Expect(call.AccessKeyID).To(Equal("test-id"))
		}
	})

	It("uses a key that was replaced at the next attempt, and says of a refused one which Secret it is from", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.mayReadSecrets()
		w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
		w.create(id, withSecret("own"))
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.AccessKeys = []ecssim.AccessKey{{ID: "new-id", Secret: "new-secret"}}
		})).To(Succeed())
		w.delete(id)
		w.expectStalled(id, "InvalidAccessKeyIdNotFound", "Put a valid access key into Secret own.")
		Expect(condition(w.get(id), "Ready").Message).NotTo(ContainSubstring("test-"))
		w.putSecret("own", map[string]string{"access-key-id": "new-id", "access-key-secret": "new-secret"})
		w.attemptWhenDue(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("InUse"))
	})

	It("does not use the Secret of another namespace, nor the operator's own key, when its own is gone", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.mayReadSecrets()
		w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
		w.create(id, withSecret("own"))
		Expect(admin.Delete(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "own"}})).To(Succeed())
		before := len(w.sim.Calls())
		w.delete(id)
		w.expectStalled(id, "SecretNotFound")
		Expect(w.sim.Calls()).To(HaveLen(before))
		Expect(w.exists(id)).To(BeTrue())
	})
})

var _ = Describe("An object without a Secret", func() {
	It("may not use the operator's identity outside the namespaces that are named for it", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.Credentials.AmbientNamespaces = []string{"imagegc-system"}
		w.create(id)
		w.expectStalled(id, "AmbientForbidden", "Namespace "+w.namespace, "spec.credentialsSecretRef", "--ambient-namespaces")
		w.delete(id)
		w.expectStalled(id, "AmbientForbidden")
		Expect(w.sim.Calls()).To(BeEmpty())
	})

	It("may not have the operator assume a role from there either", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.Credentials.AmbientNamespaces = []string{"imagegc-system"}
		w.mayReadSecrets()
		w.putSecret("role", map[string]string{"role-arn": "acs:ram::" + account + ":role/gc"})
		w.create(id, withSecret("role"))
		w.expectStalled(id, "AmbientForbidden", "Secret role names a role")
		Expect(w.sim.Calls()).To(BeEmpty())
	})

	It("says which RAM action its key lacks", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		Expect(w.sim.Configure(func(s *ecssim.Scenario) {
			s.AccessKeys = []ecssim.AccessKey{{ID: "test-id", Secret: "test-secret", Deny: []string{"DeleteImage"}}}
		})).To(Succeed())
		w.create(id)
		w.delete(id)
		Expect(condition(w.get(id), "Ready").Message).To(ContainSubstring("Grant ecs:DeleteImage to the RAM user or role behind"))
	})
})
