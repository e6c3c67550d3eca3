package controller

import (
	"context"
	"errors"
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

var _ = It("knows its own name in the cluster, and starts also where it may not ask for it", func() {
	c, err := client.NewWithWatch(operator, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	Expect(WhoAmI(context.Background(), c)).To(Equal("--serviceaccount=default:operator"))
	mute := interceptor.NewClient(c, interceptor.Funcs{
		Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "selfsubjectreviews"}, "", nil)
		},
	})
	Expect(WhoAmI(context.Background(), mute)).To(Equal("--serviceaccount=NAMESPACE:NAME"))
})
