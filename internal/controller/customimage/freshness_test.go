package customimage

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func TestProofs_isCurrent(t *testing.T) {
	now := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		lived, deleted time.Duration // before the attempt
		wrote          time.Duration // before the attempt; 0 for not at all
		shown          string        // up to which resource version the cache has come; the write has 20
		change         func(*proofs, *v1alpha1.CustomImage)
		want           bool
	}{
		"just deleted":                           {lived: time.Hour, deleted: time.Second, want: true},
		"just deleted, by a clock that is ahead": {lived: time.Hour, deleted: -3 * time.Second, want: true},
		"deleted in the far future":              {lived: time.Hour, deleted: -time.Minute, want: false},
		"deleted long ago":                       {lived: time.Hour, deleted: time.Minute, want: false},
		"deleted long ago, a later write came back": {lived: time.Hour, deleted: time.Minute, wrote: 5 * time.Second,
			shown: "20", want: true},
		"deleted long ago, a later write did not come back": {lived: time.Hour, deleted: time.Minute, wrote: 5 * time.Second,
			shown: "19", want: false},
		"deleted long ago, an old write came back": {lived: time.Hour, deleted: time.Hour, wrote: time.Minute, shown: "20", want: false},
		"deleted long ago, the cache does not tell its version": {lived: time.Hour, deleted: time.Minute, wrote: 5 * time.Second,
			shown: "", want: false},
		"born just before its deletion": {lived: 3 * time.Second, deleted: time.Second, want: false},
		"never seen": {lived: time.Hour, deleted: time.Second, change: func(_ *proofs, image *v1alpha1.CustomImage) {
			image.Status.Image = nil
		}, want: false},
		"several watches": {lived: time.Hour, deleted: time.Second, change: func(p *proofs, _ *v1alpha1.CustomImage) {
			p.revision = nil
		}, want: false},
	} {
		t.Run(name, func(t *testing.T) {
			deleted := metav1.NewTime(now.Add(-test.deleted))
			image := &v1alpha1.CustomImage{
				ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(deleted.Add(-test.lived)), DeletionTimestamp: &deleted},
				Status:     v1alpha1.CustomImageStatus{Image: &v1alpha1.ImageStatus{}},
			}
			p := &proofs{revision: func() string { return test.shown }}
			if test.wrote != 0 {
				p.wrote("20", now.Add(-test.wrote))
			}
			if test.change != nil {
				test.change(p, image)
			}
			NewWithT(t).Expect(p.isCurrent(image, now)).To(Equal(test.want))
		})
	}
}

// liveReads counts the reads of the API server, by kind, from now on.
func (w *world) liveReads() map[string]int {
	counts := map[string]int{}
	w.live.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		if _, ok := o.(*v1alpha1.CustomImage); ok {
			kind = "CustomImage"
		}
		counts[kind]++
		return c.Get(ctx, key, o, opts...)
	}
	w.live.List = func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
		counts["list"]++
		return c.List(ctx, l, opts...)
	}
	return counts
}

// watches has the reconciler believe that its cache comes from one watch, which has come as far as the object.
func (w *world) watches(id string) {
	version := w.get(id).ResourceVersion
	w.reconciler.proofs.revision = func() string { return version }
}

// freeze has the cache list the rivals of an image that it lists now, as they are now.
func (w *world) freeze(id string) {
	GinkgoHelper()
	frozen := &v1alpha1.CustomImageList{}
	Expect(admin.List(w.ctx, frozen, client.MatchingFields{imageIDField: id})).To(Succeed())
	w.cache.List = func(_ context.Context, _ client.WithWatch, l client.ObjectList, _ ...client.ListOption) error {
		frozen.DeepCopyInto(l.(*v1alpha1.CustomImageList))
		return nil
	}
}

// outlive makes an object old enough that no other one can be older by another clock, and not older than its namespace.
func (w *world) outlive(id string) { w.bornEarlier(id, 30*time.Second) }

func TestProofs_endsOfObjectsProveHowNewTheCacheIs(t *testing.T) {
	now := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		do   func(p *proofs)
		want time.Time
	}{
		"sent, succeeded, shown": {func(p *proofs) { p.ends("a", now)(true); p.showsEnd("a", true) }, now},
		"sent, shown, succeeded": {func(p *proofs) { result := p.ends("a", now); p.showsEnd("a", true); result(true) }, now},
		// Somebody else has ended the object, maybe before.
		"sent, shown, failed": {func(p *proofs) { result := p.ends("a", now); p.showsEnd("a", true); result(false) }, time.Time{}},
		"sent, failed, shown": {func(p *proofs) { p.ends("a", now)(false); p.showsEnd("a", true) }, time.Time{}},
		"missing in a list":   {func(p *proofs) { p.ends("a", now)(true); p.showsEnd("a", false); p.showsEnd("a", true) }, time.Time{}},
		"not shown yet":       {func(p *proofs) { p.ends("a", now)(true); p.showsEnd("b", true) }, time.Time{}},
		"an older one last": {func(p *proofs) {
			older := p.ends("b", now.Add(-time.Second))
			p.ends("a", now)(true)
			p.showsEnd("a", true)
			older(true)
			p.showsEnd("b", true)
		}, now},
		"several watches": {func(p *proofs) { p.revision = nil; p.ends("a", now)(true); p.showsEnd("a", true) }, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &proofs{revision: func() string { return "1" }}
			test.do(p)
			NewWithT(t).Expect(p.asOf).To(Equal(test.want))
		})
	}
}

var _ = Describe("The facts for a deletion", func() {
	It("does not take a read that failed for the end of the namespace", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		first, second, third := w.id, w.id+"b", w.id+"c"
		for _, id := range []string{first, second, third} {
			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			w.create(id)
		}
		w.deleteUnseen(third)
		w.delete(first) // what is read for it is new enough for the third too, but not for the second
		w.deleteUnseen(second)
		w.live.Get = func(
			ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption,
		) error {
			if key.Name == w.namespace {
				return apierrors.NewForbidden(schema.GroupResource{}, key.Name, errors.New("not now"))
			}
			return c.Get(ctx, key, o, opts...)
		}
		w.attempt(second)
		w.live.Get = nil
		w.attempt(third)
		Expect(w.gone(third)).To(BeTrue())
		Expect(w.exists(third)).To(BeFalse())
	})

	It("are one read of the object, and one of namespace and CRD for all objects that were deleted before", func(ctx SpecContext) {
		w := newWorld(ctx)
		var ids []string
		for n := range 5 {
			ids = append(ids, w.id+strconv.Itoa(n))
			Expect(w.sim.PutImage(ecssim.Image{ImageID: ids[n], RegionID: region})).To(Succeed())
			w.create(ids[n])
			w.outlive(ids[n])
			w.deleteUnseen(ids[n])
		}
		w.watches(ids[4])
		counts := w.liveReads()
		for _, id := range ids {
			w.attempt(id)
			Expect(w.gone(id)).To(BeTrue())
			Expect(w.exists(id)).To(BeFalse())
		}
		Expect(counts).To(Equal(map[string]int{"CustomImage": 5, "Namespace": 1, "CustomResourceDefinition": 1}))
	})

	It("read namespace and CRD again for an object that was deleted after the last read", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		first := w.id + "first"
		Expect(w.sim.PutImage(ecssim.Image{ImageID: first, RegionID: region})).To(Succeed())
		for _, id := range []string{first, w.id} {
			w.create(id)
			w.outlive(id)
		}
		w.deleteUnseen(first)
		w.watches(first)
		counts := w.liveReads()
		w.attempt(first)
		w.deleteUnseen(w.id)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(counts["Namespace"]).To(Equal(2))
	})

	It("read each rival that the cache names: one that came to keep the image after the deletion does", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		other := w.beside()
		w.create(w.id)
		w.outlive(w.id)
		other.create(w.id)
		w.deleteUnseen(w.id)
		w.watches(w.id)
		w.freeze(w.id)
		other.change(w.id, retained)
		counts := w.liveReads()
		w.attempt(w.id)
		w.expectStalled(w.id, "Conflict", other.namespace+"/"+w.id)
		Expect(w.deletions()).To(BeZero())
		Expect(counts["list"]).To(BeZero())
	})

	It("do not take a rival for one that the cache still names, and that is gone", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{})
		other := w.beside()
		w.create(w.id)
		w.outlive(w.id)
		other.create(w.id, retained)
		w.deleteUnseen(w.id)
		w.watches(w.id)
		w.freeze(w.id)
		other.delete(w.id)
		Expect(other.gone(w.id)).To(BeTrue())
		w.attempt(w.id)
		w.attempt(w.id)
		Expect(w.gone(w.id)).To(BeTrue())
		Expect(w.exists(w.id)).To(BeFalse())
	})

	DescribeTable("list the rivals from the API server where nothing proves that the cache names all of them",
		func(ctx SpecContext, change func(*world), lists int) {
			w := newWorld(ctx, ecssim.Image{})
			w.create(w.id)
			w.outlive(w.id)
			w.deleteUnseen(w.id)
			w.watches(w.id)
			change(w)
			w.freeze(w.id)
			// Another operator, or a backup tool, writes an object that this cache does not show.
			keeper := w.beside()
			keeper.createUnseen(w.id, retained)
			image := keeper.get(w.id)
			image.Status = v1alpha1.CustomImageStatus{Image: &v1alpha1.ImageStatus{ImageID: w.id, RegionID: region, OwnerID: thisAccount}}
			Expect(admin.Status().Update(ctx, image)).To(Succeed())
			counts := w.liveReads()
			_, err := w.reconcile(w.id)
			Expect(err).NotTo(HaveOccurred())
			Expect(counts["list"]).To(Equal(lists))
			if lists > 0 {
				w.expectStalled(w.id, "Conflict", keeper.namespace)
				Expect(w.deletions()).To(BeZero())
			}
		},
		Entry("not in the first seconds after the deletion", func(*world) {}, 0),
		Entry("an object that waited for long", func(w *world) { w.clock.Step(time.Minute) }, 1),
		Entry("an object that lived for a moment", func(w *world) { w.bornEarlier(w.id, 2*time.Second) }, 1),
		Entry("several watches", func(w *world) { w.reconciler.proofs.revision = nil }, 1),
		Entry("not an object that waited, after a write of ours came back through the watch", func(w *world) {
			w.clock.Step(time.Minute)
			w.reconciler.proofs.wrote(w.get(w.id).ResourceVersion, w.clock.Now())
		}, 0),
	)
})
