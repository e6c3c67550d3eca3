package customimage

import (
	"context"
	"errors"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// throughAPIServer has each call to the API server, which are the live reads and all writes, made by a function.
func (w *world) throughAPIServer(call func(do func() error) error) {
	w.live.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		return call(func() error { return c.Get(ctx, key, o, opts...) })
	}
	w.live.List = func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
		return call(func() error { return c.List(ctx, l, opts...) })
	}
	w.cache.Patch = func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
		return call(func() error { return c.Patch(ctx, o, p, opts...) })
	}
	w.cache.SubResourcePatch = func(
		ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption,
	) error {
		return call(func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
	}
}

// undisturbed ends what was set for the clients of the world.
func (w *world) undisturbed() {
	*w.cache, *w.live, *w.secrets = interceptor.Funcs{}, interceptor.Funcs{}, interceptor.Funcs{}
}

// crashAt fails the nth call to the API server and all that follow; with after, the nth takes effect first.
func (w *world) crashAt(n int, after bool) (calls *int) {
	calls = new(int)
	w.throughAPIServer(func(do func() error) error {
		if *calls++; *calls < n {
			return do()
		}
		if *calls == n && after {
			_ = do()
		}
		return errors.New("crash")
	})
	return calls
}

// deletedWorld is a world whose one object is deleted and not worked on yet. Its image was seen before, or not.
func deletedWorld(ctx context.Context, seenBefore bool) *world {
	GinkgoHelper()
	w := newWorld(ctx, ecssim.Image{})
	if seenBefore {
		w.create(w.id)
	} else {
		w.createUnseen(w.id, withFinalizer)
	}
	w.events()
	w.deleteUnseen(w.id)
	return w
}

// An attempt reads the object, the CRD, the namespace and the other objects, and removes the finalizer. For an image
// that was not seen before, it writes the status too.
const (
	callsIfSeen   = 5
	callsIfUnseen = 6
)

var _ = DescribeTable("After a crash at any call to the API server, the deletion is finished and its event is right",
	func(ctx SpecContext, seenBefore, after bool, callsOfAttempt int) {
		for n := 1; ; n++ {
			w := deletedWorld(ctx, seenBefore)
			calls := w.crashAt(n, after)
			_, _ = w.reconcile(w.id)
			if *calls < n {
				Expect(*calls).To(Equal(callsOfAttempt))
				return
			}
			w.undisturbed()
			w.restart()
			w.attempt(w.id)
			Expect(w.gone(w.id)).To(BeTrue(), "call %d", n)
			Expect(w.exists(w.id)).To(BeFalse(), "call %d", n)
			Expect(w.events()).NotTo(ContainElement(HavePrefix("Warning ")), "call %d", n)
		}
	},
	Entry("whose image was seen, before the call", true, false, callsIfSeen),
	Entry("whose image was seen, after the call", true, true, callsIfSeen),
	Entry("whose image was not seen yet, before the call", false, false, callsIfUnseen),
	Entry("whose image was not seen yet, after the call", false, true, callsIfUnseen),
)

// second is another operator with clients of its own, for the same objects and the same cloud.
func (w *world) second() *world {
	GinkgoHelper()
	other := *w
	other.cache, other.live, other.secrets = &interceptor.Funcs{}, &interceptor.Funcs{}, &interceptor.Funcs{}
	other.config.Client, other.config.Live = other.client(other.cache), other.client(other.live)
	other.restart()
	return &other
}

var _ = Describe("Two operators", func() {
	DescribeTable("end an object once, whenever the second one makes its attempt during one of the first",
		func(ctx SpecContext, seenBefore bool, callsOfAttempt int) {
			for n := 1; n <= callsOfAttempt; n++ {
				w := deletedWorld(ctx, seenBefore)
				second, calls := w.second(), 0
				w.throughAPIServer(func(do func() error) error {
					if calls++; calls == n {
						second.attempt(w.id)
					}
					return do()
				})
				_, err := w.reconcile(w.id)
				Expect(err).NotTo(HaveOccurred(), "call %d", n)
				Expect(calls).To(BeNumerically(">=", n))
				Expect(w.gone(w.id)).To(BeTrue(), "call %d", n)
				Expect(w.exists(w.id)).To(BeFalse(), "call %d", n)
				Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")), "call %d", n)
			}
		},
		Entry("whose image was seen", true, callsIfSeen),
		Entry("whose image was not seen yet", false, callsIfUnseen),
	)

	It("announce no other end of an object than the deletion when they work at the same time", func(ctx SpecContext) {
		w := newWorld(ctx)
		var ids []string
		for n := range 10 {
			ids = append(ids, fmt.Sprintf("%s%d", w.id, n))
			Expect(w.sim.PutImage(ecssim.Image{ImageID: ids[n], RegionID: region})).To(Succeed())
			w.create(ids[n])
			w.deleteUnseen(ids[n])
		}
		w.events()
		done := make(chan struct{}, 2)
		for _, operator := range []*world{w, w.second()} {
			go func() {
				defer GinkgoRecover()
				defer func() { done <- struct{}{} }()
				for _, id := range ids {
					for ctx.Err() == nil && !operator.gone(id) {
						_, err := operator.reconcile(id)
						Expect(err).NotTo(HaveOccurred())
					}
				}
			}()
		}
		for range 2 {
			Eventually(done).Should(Receive())
		}
		// Of two patches at once that remove the last finalizer, the API server lets both succeed, so there can be two
		// events for one deletion.
		events := w.events()
		Expect(events).To(HaveEach(HavePrefix("Normal Deleted ")))
		for _, id := range ids {
			Expect(w.exists(id)).To(BeFalse())
			Expect(events).To(ContainElement(ContainSubstring(id)))
		}
	})
})

var _ = Describe("An operator without a permission in the cluster", func() {
	// refusingPatches has the API server refuse the patches of objects, but not of their status.
	refusingPatches := func(w *world, refusal error) {
		w.cache.Patch = func(context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption) error {
			return refusal
		}
	}
	resource := v1alpha1.GroupVersion.WithResource("customimages").GroupResource()
	forbidden := apierrors.NewForbidden(resource, "web", errors.New("not allowed"))

	It("says so in an object to which it cannot add its finalizer", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		refusingPatches(w, forbidden)
		w.create(w.id)
		w.expectStalled(w.id, "ClusterForbidden", "not allowed", "--serviceaccount=default:operator")
		w.undisturbed()
		w.restart()
		w.attemptWhenDue(w.id)
		Expect(w.get(w.id).Finalizers).To(ContainElement(v1alpha1.Finalizer))
		Expect(condition(w.get(w.id), "Ready").Status).To(Equal(metav1.ConditionTrue))
	})

	DescribeTable("says what the API server answered", func(ctx SpecContext, refusal error, reason string, obstacles ...string) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		refusingPatches(w, refusal)
		w.deleteUnseen(w.id)
		for range 2 {
			_, _ = w.reconcile(w.id)
			w.reconciler.failures.When(ctrl.Request{NamespacedName: w.key(w.id)})
		}
		Expect(condition(w.get(w.id), "Ready").Reason).To(Equal(reason))
		Expect(condition(w.get(w.id), "Ready").Message).To(ContainSubstring(refusal.Error()))
		Expect(trueObstacles(w.get(w.id))).To(ConsistOf(obstacles))
	},
		Entry("401", apierrors.NewUnauthorized("no token"), "ClusterForbidden", "Denied"),
		Entry("403, of RBAC or a policy", forbidden, "ClusterForbidden", "Denied"),
		Entry("422, of a policy that gives no reason", apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("CustomImage").GroupKind(), "web", nil),
			"ClusterRejected", "Invalid"),
		Entry("400, of a webhook", apierrors.NewBadRequest("admission webhook denied the request"), "ClusterRejected", "Invalid"),
		Entry("405", apierrors.NewMethodNotSupported(resource, "patch"), "ClusterRejected", "Invalid"),
		Entry("413", apierrors.NewRequestEntityTooLargeError("limit is 3145728"), "ClusterRejected", "Invalid"),
		Entry("429, when it is overloaded", apierrors.NewTooManyRequests("too many requests", 1), "Retrying"),
		Entry("500, of a webhook that does not answer", apierrors.NewInternalError(errors.New("failed calling webhook")), "Retrying"),
	)

	It("says nothing about it when the manager stops", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		w.reconciler.failures.When(ctrl.Request{NamespacedName: w.key(w.id)})
		w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		stopping, stop := context.WithCancel(ctx)
		w.cache.Get = func(_ context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if _, ok := o.(*v1alpha1.CustomImage); !ok {
				return c.Get(stopping, key, o, options...)
			}
			defer stop()
			return c.Get(ctx, key, o, options...)
		}
		_, err := w.reconciler.Reconcile(stopping, ctrl.Request{NamespacedName: w.key(w.id)})
		Expect(err).To(MatchError(context.Canceled))
		Expect(condition(w.get(w.id), "Ready").Reason).To(Equal("Available"))
	})

	It("says so in an object from which it cannot remove its finalizer, and continues when it can", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		refusingPatches(w, forbidden)
		result := w.delete(w.id)
		Expect(result.RequeueAfter).To(BeNumerically(">", time.Second))
		w.expectStalled(w.id, "ClusterForbidden")
		w.undisturbed()
		w.restart()
		w.events()
		w.attemptWhenDue(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.events()).To(ConsistOf(HavePrefix("Normal Deleted ")))
	})
})

var _ = Describe("An answer of the API server that a resource does not exist", func() {
	notFound := apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("customimages").GroupResource(), "")

	DescribeTable("has the attempt made again", func(ctx SpecContext, reads func(*world) *interceptor.Funcs, deleted bool) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id)
		if deleted {
			w.deleteUnseen(w.id)
		} else {
			w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		}
		version := w.get(w.id).ResourceVersion
		reads(w).List = func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return notFound
		}
		_, err := w.reconcile(w.id)
		Expect(err).To(MatchError(apierrors.IsNotFound, "IsNotFound"))
		Expect(w.get(w.id).ResourceVersion).To(Equal(version))
		Expect(w.deletions()).To(BeZero())

		w.undisturbed()
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(Equal(deleted))
		Expect(w.exists(w.id)).To(Equal(!deleted))
	},
		Entry("if a live list gets it", func(w *world) *interceptor.Funcs { return w.live }, true),
		Entry("if a list of the cache gets it", func(w *world) *interceptor.Funcs { return w.cache }, true),
		Entry("if a list for a live object gets it", func(w *world) *interceptor.Funcs { return w.cache }, false),
	)

	It("ends the work on an object that the cache does not have, without an error", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		Expect(w.attempt(w.id)).To(Equal(ctrl.Result{}))
		Expect(w.sim.Calls()).To(BeEmpty())
	})

	It("ends the work on an object that the API server does not have, without an error", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		w.create(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = []string{v1alpha1.Finalizer} })
		w.deleteUnseen(w.id)
		cached := w.get(w.id)
		w.change(w.id, func(image *v1alpha1.CustomImage) { image.Finalizers = nil })
		Expect(w.gone(w.id)).To(BeTrue())
		w.events()
		w.attemptFrom(cached)
		Expect(w.deletions()).To(BeZero())
		Expect(w.events()).To(BeEmpty())
	})
})

var _ = It("The operator is ecs-image-gc in managedFields", func(ctx SpecContext) {
	w := newWorld(ctx, ecssim.Image{})
	w.create(w.id)
	managers := map[string]string{}
	for _, fields := range w.get(w.id).ManagedFields {
		if fields.Manager != "customimage.test" { // the user
			managers[fields.Subresource] = fields.Manager
		}
	}
	Expect(managers).To(Equal(map[string]string{"": "ecs-image-gc", "status": "ecs-image-gc"}))
})

var _ = Describe("WhoAmI", func() {
	It("returns the operator's service account", func(ctx SpecContext) {
		c, err := client.New(operator, client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())
		Expect(WhoAmI(ctx, c)).To(Equal("--serviceaccount=default:operator"))
	})

	It("returns a placeholder where the operator may not find out", func(ctx SpecContext) {
		c, err := client.NewWithWatch(operator, client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())
		forbidden := interceptor.NewClient(c, interceptor.Funcs{
			Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "selfsubjectreviews"}, "", nil)
			},
		})
		Expect(WhoAmI(ctx, forbidden)).To(Equal("--serviceaccount=NAMESPACE:NAME"))
	})
})
