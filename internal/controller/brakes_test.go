package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	account      = "1234567890123456" // of the operator's own key
	otherAccount = "9876543210987654"
)

// inTwoAccounts adds a second account, and a Secret with its key.
func (w *world) inTwoAccounts(images ...ecssim.Image) {
	GinkgoHelper()
	Expect(w.sim.Configure(func(s *ecssim.Scenario) {
		s.Accounts = []ecssim.Account{{AccountID: otherAccount, AccessKeys: []ecssim.AccessKey{{ID: "other-id", Secret: "other-secret"}}}}
	})).To(Succeed())
	for _, image := range images {
		image.RegionID = region
		Expect(w.sim.PutImage(image)).To(Succeed())
	}
	w.mayReadSecrets()
	w.putSecret("other", map[string]string{"access-key-id": "other-id", "access-key-secret": "other-secret"})
	w.putSecret("own", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
}

// deletions counts all calls of DeleteImage, whatever image they were for.
func (w *world) deletions() int {
	count := 0
	for _, call := range w.sim.Calls() {
		if call.Action == "DeleteImage" {
			count++
		}
	}
	return count
}

func (w *world) expectStalled(id, reason string, text ...string) {
	GinkgoHelper()
	image := w.get(id)
	for _, kind := range []string{"Ready", "Stalled"} {
		Expect(condition(image, kind).Reason).To(Equal(reason))
		for _, part := range append(text, "See docs/reasons/"+reason+".md.") {
			Expect(condition(image, kind).Message).To(ContainSubstring(part))
		}
	}
	Expect(condition(image, "Ready").Status).To(Equal(metav1.ConditionFalse))
	Expect(condition(image, "Stalled").Status).To(Equal(metav1.ConditionTrue))
	Expect(condition(image, "Reconciling").Type).To(BeEmpty())
}

var _ = Describe("The account pin", func() {
	It("asks nothing of ECS with a key of another account than the image was seen in", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		Expect(w.get(id).Status.Image.OwnerID).To(Equal(account))
		w.change(id, withSecret("other"))
		before := len(w.sim.Calls())
		w.delete(id)
		w.expectStalled(id, "AccountMismatch", account, otherAccount)
		for _, call := range w.sim.Calls()[before:] {
			Expect(call.Action).To(Equal("GetCallerIdentity"))
		}

		w.change(id, withSecret("own"))
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("holds for a live object too, and the status keeps the account that it was seen in", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.change(id, withSecret("other"))
		w.attempt(id)
		w.expectStalled(id, "AccountMismatch")
		w.change(id, withSecret("missing"))
		w.attempt(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("Denied"))
		w.change(id, withSecret("other"))
		w.attempt(id)
		w.expectStalled(id, "AccountMismatch")
		Expect(w.get(id).Status.Image.OwnerID).To(Equal(account))
		Expect(trueObstacles(w.get(id))).To(BeEmpty(), "that it was not found in the wrong account means nothing")
	})

	It("is not lost when the image is not found for a while", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.sim.DeleteImage(id)
		w.change(id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		w.attempt(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("NotFound"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, AccountID: otherAccount})).To(Succeed())
		w.change(id, withSecret("other"))
		w.delete(id)
		w.expectStalled(id, "AccountMismatch")
		Expect(w.deletions()).To(BeZero())
	})

	It("takes an object whose status names no account for one that never saw its image", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.change(id, withSecret("other"))
		image := w.get(id)
		image.Status.Image.OwnerID = ""
		Expect(admin.Status().Update(context.Background(), image)).To(Succeed())
		w.events()
		w.delete(id)
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")), "not Deleted: it is still there")
	})

	It("does not announce an image as deleted that was not found before the key was refused", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id)
		w.sim.DeleteImage(id)
		for _, secret := range []string{"own", "missing"} {
			w.clock.Step(time.Minute)
			w.change(id, withSecret(secret))
			w.attempt(id)
		}
		w.change(id, withSecret("own"))
		w.events()
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Warning NotFound ")))
	})

	It("asks once for each key whose it is, however many objects there are", func() {
		var images []ecssim.Image
		for n := range 20 {
			images = append(images, ecssim.Image{ImageID: fmt.Sprintf("m-bp%02d", n)})
		}
		w := newWorld(images...)
		w.inTwoAccounts(ecssim.Image{ImageID: "m-other", AccountID: otherAccount})
		for _, image := range images {
			w.create(image.ImageID)
			w.delete(image.ImageID)
		}
		w.create("m-other", withSecret("other"))
		Expect(w.get("m-other").Status.Image.OwnerID).To(Equal(otherAccount))
		Expect(w.calls("GetCallerIdentity", "")).To(Equal(2))
	})

	It("deletes nothing as long as it cannot be told whose the key is", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.restart()
		Expect(w.sim.AddFault(ecssim.Fault{Action: "GetCallerIdentity", Code: "ServiceUnavailable", HTTPStatus: 503, Times: 1})).To(Succeed())
		w.deleteUnseen(id)
		_, err := w.reconcile(id)
		Expect(err).To(MatchError(ContainSubstring("ServiceUnavailable")))
		Expect(w.deletions()).To(BeZero())
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
	})
})

// aSecondLater is when the API server's clock, which counts seconds, has gone on.
func aSecondLater() { time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

var _ = Describe("Two objects for one image", func() {
	// two creates the older object in a namespace of its own, and the younger one in the world's.
	two := func(images ...ecssim.Image) (older, younger *world) {
		GinkgoHelper()
		older = newWorld(images...)
		younger = &world{CustomImageReconciler: older.CustomImageReconciler, clock: older.clock, sim: older.sim,
			namespace: newNamespace(), announced: older.announced}
		return older, younger
	}

	It("let the older one own it: the younger says so, and its deletion leaves the image", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id)
		younger.expectStalled(id, "Conflict", older.namespace+"/"+id)
		Expect(condition(older.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.events()
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring(older.namespace+"/"+id))))
		Expect(older.deletions()).To(BeZero())

		older.delete(id)
		Expect(older.exists(id)).To(BeFalse())
	})

	It("let the older one own it although the younger saw it first", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.createUnseen(id)
		aSecondLater()
		younger.create(id)
		Expect(condition(younger.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.attempt(id)
		Expect(condition(older.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("let the owner's image alone when the younger is deleted before anybody looked for it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("let the owner's image alone when the younger's key may delete it but is not shown it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		Expect(older.sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: "InvalidImageId.NotFound", HTTPStatus: 404, Times: 1})).To(Succeed())
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(older.deletions()).To(BeZero())
	})

	It("do not let an older one own it whose key never saw it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.inTwoAccounts()
		older.create(id, withSecret("other"))
		Expect(trueObstacles(older.get(id))).To(ConsistOf("NotFound"))
		aSecondLater()
		younger.create(id)
		Expect(condition(younger.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		older.delete(id)
		Expect(older.gone(id)).To(BeTrue())
		Expect(older.exists(id)).To(BeTrue())
		younger.delete(id)
		Expect(older.exists(id)).To(BeFalse())
	})

	It("leave the image when the younger is deleted as its message advises, although the owner went meanwhile", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id, retained)
		aSecondLater()
		younger.create(id)
		younger.expectStalled(id, "Conflict", "Delete this object: that leaves the image.")
		older.delete(id)
		Expect(older.gone(id)).To(BeTrue())
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("let the older one own it also if its status names no account", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id)
		image := older.get(id)
		image.Status.Image.OwnerID = ""
		Expect(admin.Status().Update(context.Background(), image)).To(Succeed())
		younger.delete(id)
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("let the older one own it also if the cache does not have it, or it is in a namespace that is not watched", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.createUnseen(id, withFinalizer)
		younger.Client = interceptor.NewClient(younger.Client.(client.WithWatch), interceptor.Funcs{
			List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return nil },
		})
		younger.delete(id)
		Expect(younger.gone(id)).To(BeTrue())
		Expect(younger.exists(id)).To(BeTrue())
	})

	It("are in no conflict if their images are in different regions", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id)
		aSecondLater()
		younger.create(id, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = "cn-shanghai" })
		Expect(trueObstacles(younger.get(id))).To(ConsistOf("NotFound"))
		older.delete(id)
		Expect(older.exists(id)).To(BeFalse())
	})

	It("hand the image on when the older one goes and leaves it", func() {
		older, younger := two(ecssim.Image{ImageID: id})
		older.create(id, retained)
		aSecondLater()
		younger.create(id)
		younger.expectStalled(id, "Conflict")
		older.delete(id)
		younger.attemptWhenDue(id)
		Expect(condition(younger.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
		younger.delete(id)
		Expect(younger.exists(id)).To(BeFalse())
	})
})

var _ = Describe("A protected object", func() {
	It("keeps its image although its deletion came past the admission policy, until it is protected no more", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) {
			image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
			image.Spec.Force = ptr.To(true)
		})
		w.delete(id)
		w.expectStalled(id, "Protected", v1alpha1.AnnotationProtected)
		Expect(w.deletions()).To(BeZero())
		w.change(id, func(image *v1alpha1.CustomImage) { image.Annotations = nil })
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeFalse())
	})

	It("is held at once also if it was blocked by something else before", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		w.change(id, annotated(v1alpha1.AnnotationProtected, "true"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
		w.attempt(id)
		w.expectStalled(id, "Protected")
		Expect(w.exists(id)).To(BeTrue())
	})

	It("goes without its image when that is what its policy says", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id, func(image *v1alpha1.CustomImage) {
			image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
			image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		})
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
	})
})

// The deletions of namespaces and of the CRD by a real kube-controller-manager are in test/cascade.
var _ = Describe("An object in a namespace that is being deleted", func() {
	endNamespace := func(w *world, annotation string) {
		GinkgoHelper()
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
		if annotation != "" {
			patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationOnNamespaceDeletion, annotation)
			Expect(admin.Patch(context.Background(), namespace, client.RawPatch("application/merge-patch+json", patch))).To(Succeed())
		}
		Expect(admin.Delete(context.Background(), namespace)).To(Succeed())
	}

	DescribeTable("leaves its image unless the namespace asks for its deletion",
		func(annotation string, protected, deletes bool) {
			w := newWorld(ecssim.Image{ImageID: id})
			w.create(id, func(image *v1alpha1.CustomImage) {
				if protected {
					image.Annotations = map[string]string{v1alpha1.AnnotationProtected: "true"}
				}
			})
			w.events()
			endNamespace(w, annotation)
			w.delete(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(Equal(!deletes))
			if deletes {
				Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
				return
			}
			Expect(w.deletions()).To(BeZero())
			Expect(w.events()).To(ConsistOf(And(HavePrefix("Normal Retained "), ContainSubstring("namespace "+w.namespace))))
		},
		Entry("by default", "", false, false),
		Entry("by a value that is not Delete", "delete", false, false),
		Entry("by an empty value", " ", false, false),
		Entry("which asks for it", "Delete", false, true),
		Entry("which asks for it, and the object is protected", "Delete", true, false),
	)

	It("leaves its image if it has outlived its namespace, which was created anew", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.Live = interceptor.NewClient(w.Live.(client.WithWatch), interceptor.Funcs{Get: func(
			ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption,
		) error {
			err := c.Get(ctx, key, o, options...)
			if key.Name == w.namespace {
				o.SetCreationTimestamp(metav1.NewTime(time.Now().Add(2 * time.Minute)))
			}
			return err
		}})
		w.delete(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
	})

	It("says once which way out there is, however often it cannot be told who uses the image", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		endNamespace(w, "Delete")
		w.delete(id)
		w.expectStalled(id, "ImageUsingByInstance", "i-bp1a", v1alpha1.AnnotationOnNamespaceDeletion)
		version := w.get(id).ResourceVersion
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeInstances", Kind: ecssim.FaultGarbage, Times: -1})).To(Succeed())
		for range 5 {
			w.attemptWhenDue(id)
		}
		Expect(w.calls("DeleteImage", id)).To(Equal(6))
		Expect(w.get(id).ResourceVersion).To(Equal(version))
	})

	It("leaves its image also if it waited for something else before", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: []string{"i-bp1a"}})
		w.create(id)
		w.delete(id)
		Expect(trueObstacles(w.get(id))).To(ConsistOf("InUse"))
		endNamespace(w, "")
		w.attempt(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.deletions()).To(Equal(1))
	})
})

var _ = Describe("Second thoughts, while the key is being found", func() {
	// meanwhile has something happen while the operator reads the Secret.
	meanwhile := func(w *world, happens func()) {
		w.Credentials.Secrets = interceptor.NewClient(w.Live.(client.WithWatch), interceptor.Funcs{Get: func(
			ctx context.Context, c client.WithWatch, key client.ObjectKey, into client.Object, options ...client.GetOption,
		) error {
			happens()
			return c.Get(ctx, key, into, options...)
		}})
	}

	DescribeTable("are heeded", func(think func(w *world)) {
		w := newWorld(ecssim.Image{ImageID: id})
		w.inTwoAccounts()
		w.create(id, withSecret("own"))
		w.deleteUnseen(id)
		meanwhile(w, func() { think(w) })
		w.attempt(id)
		Expect(w.exists(id)).To(BeTrue())
		Expect(w.deletions()).To(BeZero())
	},
		Entry("by the policy", func(w *world) {
			w.change(id, retained)
		}),
		Entry("by the protection", func(w *world) {
			w.change(id, annotated(v1alpha1.AnnotationProtected, "true"))
		}),
		Entry("by the release annotation", func(w *world) {
			w.change(id, annotated(v1alpha1.AnnotationRelease, id))
		}),
		Entry("by the deletion of the namespace", func(w *world) {
			Expect(admin.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})).To(Succeed())
		}),
		Entry("by another key", func(w *world) { w.change(id, withSecret("other")) }),
	)
})

// crashing fails the nth call to the API server and all that follow; with after, the nth takes effect first.
func crashing(c client.WithWatch, n int, after bool) (failing client.WithWatch, calls *int) {
	calls = new(int)
	call := func(do func() error) error {
		if *calls++; *calls < n {
			return do()
		}
		if *calls == n && after {
			_ = do()
		}
		return errors.New("crash")
	}
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			return call(func() error { return c.Get(ctx, key, o, opts...) })
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			return call(func() error { return c.List(ctx, l, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return call(func() error { return c.Patch(ctx, o, p, opts...) })
		},
		SubResourcePatch: func(
			ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption,
		) error {
			return call(func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	}), calls
}

var _ = Describe("A crash at any call to the API server", func() {
	DescribeTable("leaves nothing undone, and the end is told as it was", func(seenBefore, after bool) {
		for n := 1; ; n++ {
			w := newWorld(ecssim.Image{ImageID: id})
			if seenBefore {
				w.create(id)
			} else {
				w.createUnseen(id, withFinalizer)
			}
			w.events()
			w.deleteUnseen(id)
			failing, calls := crashing(w.Live.(client.WithWatch), n, after)
			w.Client, w.Live = failing, failing
			_, _ = w.reconcile(id)
			if *calls < n {
				Expect(n).To(BeNumerically(">", 7), "an attempt is as many calls")
				return
			}
			w.restart()
			w.attempt(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(BeFalse())
			Expect(w.events()).NotTo(ContainElement(HavePrefix("Warning ")), "call %d", n)
		}
	},
		Entry("whose image was seen, before the call", true, false),
		Entry("whose image was seen, after the call", true, true),
		Entry("whose image was not seen yet, before the call", false, false),
		Entry("whose image was not seen yet, after the call", false, true),
	)
})

var _ = Describe("An operator without a permission in the cluster", func() {
	// denied has the API server refuse a verb to the operator.
	denied := func(w *world, refuse interceptor.Funcs) {
		w.Client = interceptor.NewClient(w.Client.(client.WithWatch), refuse)
	}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Group: "ecs.imagegc.io", Resource: "customimages"}, id,
		errors.New("not allowed"))
	patch := interceptor.Funcs{Patch: func(
		context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
		return forbidden
	}}

	It("says so in an object that it cannot put its finalizer on", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		denied(w, patch)
		w.create(id)
		w.expectStalled(id, "ClusterForbidden", "not allowed", "--serviceaccount=default:operator")
		w.restart()
		w.attemptWhenDue(id)
		Expect(w.get(id).Finalizers).To(ContainElement(v1alpha1.Finalizer))
		Expect(condition(w.get(id), "Ready").Status).To(Equal(metav1.ConditionTrue))
	})

	DescribeTable("says so whatever refuses it", func(refusal error, reason string) {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		denied(w, interceptor.Funcs{Patch: func(
			context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return refusal
		}})
		w.deleteUnseen(id)
		for range 2 {
			_, _ = w.reconcile(id)
			w.failures.When(ctrl.Request{NamespacedName: w.key(id)})
		}
		Expect(condition(w.get(id), "Ready").Reason).To(Equal(reason))
		Expect(condition(w.get(id), "Ready").Message).To(ContainSubstring(refusal.Error()))
	},
		Entry("a policy that gives no reason", apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("CustomImage").GroupKind(), id, nil),
			"ClusterForbidden"),
		Entry("a webhook", apierrors.NewBadRequest("admission webhook denied the request"), "ClusterForbidden"),
		Entry("a webhook that does not answer", apierrors.NewInternalError(errors.New("failed calling webhook")), "Retrying"),
	)

	It("says nothing of it when the manager stops", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		w.failures.When(ctrl.Request{NamespacedName: w.key(id)})
		w.change(id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		stopping, stop := context.WithCancel(context.Background())
		denied(w, interceptor.Funcs{Get: func(
			_ context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			defer stop()
			return c.Get(context.Background(), key, o, options...)
		}})
		_, err := w.Reconcile(stopping, ctrl.Request{NamespacedName: w.key(id)})
		Expect(err).To(MatchError(context.Canceled))
		Expect(condition(w.get(id), "Ready").Reason).To(Equal("Available"))
	})

	It("says so in an object that it cannot take its finalizer off, and goes on when it can", func() {
		w := newWorld(ecssim.Image{ImageID: id})
		w.create(id)
		denied(w, patch)
		result := w.delete(id)
		Expect(result.RequeueAfter).To(BeNumerically(">", time.Second))
		w.expectStalled(id, "ClusterForbidden")
		w.restart()
		w.events()
		w.attemptWhenDue(id)
		Expect(w.gone(id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
	})
})
