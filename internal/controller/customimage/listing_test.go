package customimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("A look at many live images", func() {
	const count = 105 // two pages
	var (
		w   *world
		ids []string
	)

	prepare := func(ctx SpecContext) {
		GinkgoHelper()
		w, ids = newWorld(ctx), nil
		for n := range count {
			id := fmt.Sprintf("%sn%d", w.id, n)
			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, Name: fmt.Sprint("image ", n)})).To(Succeed())
			w.createUnseen(id, withSecret("of-this-world"))
			ids = append(ids, id)
		}
		w.mayReadSecrets()
		w.putSecret("of-this-world", map[string]string{"access-key-id": "test-id", "access-key-secret": "test-secret"})
	}

	looks := func() (listed, single int) {
		for _, call := range w.sim.Calls() {
			switch {
			case call.Action != "DescribeImages":
			case call.ImageID == "":
				listed++
			default:
				single++
			}
		}
		return listed, single
	}
	attemptAll := func() {
		for _, id := range ids {
			w.attempt(id)
		}
	}

	It("takes a call for each page, and not for each image", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		for n, id := range ids {
			Expect(condition(w.get(id), "Ready").Reason).To(Equal("Available"))
			Expect(w.get(id).Status.Image.Name).To(Equal(fmt.Sprint("image ", n)))
		}
		listed, single := looks()
		Expect(listed).To(Equal(2))
		Expect(single).To(BeZero())
	})

	It("takes a call for each again where the listing shows no such image", func(ctx SpecContext) {
		prepare(ctx)
		w.attempt(ids[0])
		Expect(w.sim.DeleteImage(ids[1])).To(BeTrue())
		late := w.id + "late"
		Expect(w.sim.PutImage(ecssim.Image{ImageID: late, RegionID: region})).To(Succeed())
		w.createUnseen(late, withSecret("of-this-world"))
		w.attempt(late)
		Expect(condition(w.get(late), "Ready").Reason).To(Equal("Available"))
		_, single := looks()
		Expect(single).To(Equal(1))
		w.clock.Step(time.Hour)
		w.attempt(ids[1])
		w.expectStalled(ids[1], "InvalidImageIdNotFound")
	})

	It("takes no more calls if it lasts for minutes until all objects that were there before have had their turn", func(ctx SpecContext) {
		prepare(ctx)
		for n, id := range ids {
			if n%10 == 0 {
				w.clock.Step(30 * time.Second)
			}
			w.attempt(id)
			Expect(condition(w.get(id), "Ready").Reason).To(Equal("Available"))
		}
		listed, single := looks()
		Expect(listed).To(Equal(2))
		Expect(single).To(BeZero())
	})

	It("is as old as the listing in the status, and writes nothing while it shows the same", func(ctx SpecContext) {
		prepare(ctx)
		listed := w.clock.Now()
		w.attempt(ids[0])
		w.clock.Step(2 * time.Minute)
		w.attempt(ids[1])
		image := w.get(ids[1])
		Expect(image.Status.LastSyncTime.Time).To(BeTemporally("==", listed))
		for range 20 {
			w.clock.Step(20 * time.Minute)
			w.attempt(ids[1])
		}
		Expect(w.get(ids[1]).ResourceVersion).To(Equal(image.ResourceVersion))
	})

	It("is not by a listing that is older than the last look", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		w.clock.Step(20 * time.Minute)
		Expect(w.sim.PutImage(ecssim.Image{ImageID: ids[0], RegionID: region, Name: "renamed"})).To(Succeed())
		w.change(ids[0], annotated(v1alpha1.AnnotationRetryAt, "now"))
		w.attempt(ids[0])
		looked := w.get(ids[0]).Status
		Expect(looked.Image.Name).To(Equal("renamed"))
		w.clock.Step(time.Minute)
		w.change(ids[0], func(image *v1alpha1.CustomImage) { image.Spec.Force = ptr.To(true) })
		w.attempt(ids[0])
		status := w.get(ids[0]).Status
		Expect(status.ObservedGeneration).NotTo(Equal(looked.ObservedGeneration))
		Expect(status.Image.Name).To(Equal("renamed"))
		Expect(status.LastSyncTime.Time).NotTo(BeTemporally("<", looked.LastSyncTime.Time))
	})

	It("is not by an old listing for an object that was created after it", func(ctx SpecContext) {
		prepare(ctx)
		late := w.id + "late"
		Expect(w.sim.PutImage(ecssim.Image{ImageID: late, RegionID: region})).To(Succeed())
		attemptAll()
		Expect(w.sim.DeleteImage(late)).To(BeTrue())
		w.clock.Step(listingForNew + time.Second)
		w.createUnseen(late, withSecret("of-this-world"))
		w.bornEarlier(late, -listingForNew)
		w.attempt(late)
		w.expectStalled(late, "InvalidImageIdNotFound")
	})

	It("is no answer of the region if it is by a listing in memory", func(ctx SpecContext) {
		prepare(ctx)
		w.attempt(ids[0])
		unanswered := func() (calls int) {
			for _, share := range w.reconciler.cloud.shares.by {
				calls += share.unanswered
			}
			return calls
		}
		w.ecs.answer = func(http.ResponseWriter, string, *http.Request) bool { panic(http.ErrAbortHandler) }
		w.change(ids[0], annotated(v1alpha1.AnnotationRetryAt, "now"))
		_, _ = w.reconcile(ids[0])
		before := unanswered()
		Expect(before).To(BeNumerically(">", 0))
		w.attempt(ids[1])
		Expect(condition(w.get(ids[1]), "Ready").Reason).To(Equal("Available"))
		Expect(unanswered()).To(Equal(before))
	})

	It("believes no listing of what the operator has deleted since", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		w.deleteUnseen(ids[0])
		w.attempt(ids[0])
		Expect(w.gone(ids[0])).To(BeTrue())
		w.create(ids[0], withSecret("of-this-world"))
		w.expectStalled(ids[0], "InvalidImageIdNotFound")
	})

	It("is never one by a listing if the object is deleted, or its user wants a look", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		_, before := looks()
		w.change(ids[0], annotated(v1alpha1.AnnotationRetryAt, "now"))
		w.attempt(ids[0])
		_, after := looks()
		Expect(after).To(Equal(before + 1))
		Expect(w.sim.DeleteImage(ids[1])).To(BeTrue())
		w.deleteUnseen(ids[1])
		w.attempt(ids[1])
		_, after = looks()
		Expect(after).To(BeNumerically(">=", before+2), "after DeleteImage")
	})

	It("is one of its own if the status could not be told that the last one did not show the image", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		Expect(w.sim.DeleteImage(ids[0])).To(BeTrue())
		w.change(ids[0], annotated(v1alpha1.AnnotationRetryAt, "now"))
		w.cache.SubResourcePatch = func(
			context.Context, client.Client, string, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
			return apierrors.NewInternalError(errors.New("no leader"))
		}
		w.turn(ids[0])
		w.cache.SubResourcePatch = nil
		w.change(ids[0], func(image *v1alpha1.CustomImage) {
			delete(image.Annotations, v1alpha1.AnnotationRetryAt)
			image.Spec.Force = ptr.To(true)
		})
		w.attempt(ids[0])
		Expect(condition(w.get(ids[0]), "Ready").Reason).To(Equal("InvalidImageIdNotFound"))
		w.events()
		w.delete(ids[0])
		w.clock.Step(time.Minute)
		w.turn(ids[0])
		Expect(w.events()).To(ContainElement(HavePrefix("Warning NotFound ")))
	})

	It("is one of its own after ECS has refused one", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		w.ecs.answer = func(rw http.ResponseWriter, action string, _ *http.Request) bool {
			if action == "DescribeImages" {
				rw.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(rw, `{"RequestId":"r","Code":"Forbidden.RAM","Message":"No."}`)
			}
			return action == "DescribeImages"
		}
		w.change(ids[0], annotated(v1alpha1.AnnotationRetryAt, "now"))
		w.attempt(ids[0])
		Expect(condition(w.get(ids[0]), "Stalled").Reason).To(Equal("ForbiddenRAM"))
		w.attemptWhenDue(ids[0])
		Expect(condition(w.get(ids[0]), "Stalled").Reason).To(Equal("ForbiddenRAM"))
	})

	It("is one at each image if the key may not list", func(ctx SpecContext) {
		prepare(ctx)
		w.ecs.answer = func(rw http.ResponseWriter, action string, r *http.Request) bool {
			if action != "DescribeImages" || r.URL.Query().Get("ImageId") != "" {
				return false
			}
			rw.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(rw, `{"RequestId":"r","Code":"Forbidden.RAM","Message":"No."}`)
			return true
		}
		attemptAll()
		for _, id := range ids {
			Expect(condition(w.get(id), "Ready").Reason).To(Equal("Available"))
		}
	})

	It("shares a listing with those that are due for a resync while it is new enough", func(ctx SpecContext) {
		prepare(ctx)
		attemptAll()
		listed, single := looks()
		w.calm()
		w.cache.List = nil
		for range 20 {
			w.clock.Step(20 * time.Minute)
			attemptAll()
		}
		listedThen, singleThen := looks()
		calls := listedThen + singleThen - listed - single
		Expect(calls).To(BeNumerically(">=", 2))
		Expect(calls).To(BeNumerically("<=", count/2))
	})
})
