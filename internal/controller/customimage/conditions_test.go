package customimage

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("The condition of an obstacle", func() {
	It("is Unknown while there is no key to ask ECS with", func(ctx SpecContext) {
		w := newWorld(ctx)
		w.holdSecret("own")
		w.create(w.id, withSecret("own"))
		Expect(condition(w.get(w.id), "NotFound").Status).To(Equal(metav1.ConditionTrue))

		w.loseSecrets()
		w.attemptWhenDue(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Denied"))
		w.expectNotObserved("NotFound")

		w.holdSecret("own")
		w.attemptWhenDue(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("NotFound"))
		Expect(condition(w.get(w.id), "Denied").Reason).To(Equal("Cleared"))

		w.loseSecrets()
		w.attemptWhenDue(w.id)
		w.expectNotObserved("NotFound")
		w.holdSecret("own")
		w.putImage(ecssim.Image{})
		w.attemptWhenDue(w.id)
		w.expectCleared("NotFound")
		w.expectCleared("Denied")
	})

	It("is Unknown while ECS gives no usable answer", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: []string{"i-bp1a"}})
		w.create(w.id)
		w.delete(w.id)
		Expect(condition(w.get(w.id), "InUse").Status).To(Equal(metav1.ConditionTrue))

		fails := func() {
			Expect(w.sim.AddFault(ecssim.Fault{Action: "DeleteImage", Code: "ServiceUnavailable", HTTPStatus: 503, Times: 2})).To(Succeed())
			w.clock.Step(w.turn(w.id))
			w.clock.Step(w.turn(w.id))
			w.clock.Step(w.turn(w.id))
			Expect(condition(w.get(w.id), "Ready").Reason).To(Equal("Retrying"))
			w.expectNotObserved("InUse")
		}
		fails()
		w.turn(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("InUse"))
		Expect(condition(w.get(w.id), "InUse").Reason).To(Equal("ImageUsingByInstance"))

		fails()
		w.putImage(ecssim.Image{Public: true})
		w.turn(w.id)
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf("Public"))
		w.expectCleared("InUse")
	})
})

func (w *world) expectNotObserved(obstacle string) {
	GinkgoHelper()
	Expect(condition(w.get(w.id), obstacle).Status).To(Equal(metav1.ConditionUnknown))
	Expect(condition(w.get(w.id), obstacle).Reason).To(Equal("NotObserved"))
}

func (w *world) expectCleared(obstacle string) {
	GinkgoHelper()
	Expect(condition(w.get(w.id), obstacle).Status).To(Equal(metav1.ConditionFalse))
	Expect(condition(w.get(w.id), obstacle).Reason).To(Equal("Cleared"))
}

// holdSecret has the operator find a Secret with the key of the world.
func (w *world) holdSecret(name string) {
	w.secrets.Get = func(
		_ context.Context, _ client.WithWatch, _ client.ObjectKey, into client.Object, _ ...client.GetOption,
	) error {
		into.(*corev1.Secret).Name = name
		into.(*corev1.Secret).Data = map[string][]byte{"access-key-id": []byte("test-id"), "access-key-secret": []byte("test-secret")}
		return nil
	}
}

// loseSecrets has the operator find no Secret.
func (w *world) loseSecrets() {
	w.secrets.Get = func(
		_ context.Context, _ client.WithWatch, key client.ObjectKey, _ client.Object, _ ...client.GetOption,
	) error {
		return apierrors.NewNotFound(corev1.Resource("secrets"), key.Name)
	}
}
