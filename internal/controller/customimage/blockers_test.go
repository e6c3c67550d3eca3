package customimage

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("What blocks a deletion", func() {
	instances := func(count int) (ids []string) {
		for n := range count {
			ids = append(ids, fmt.Sprintf("i-bp%03d", count-1-n))
		}
		return ids
	}
	message := func(w *world) string { return condition(w.get(w.id), "Ready").Message }

	DescribeTable("is named: all accounts, or five instances and how many more there are",
		func(ctx SpecContext, image ecssim.Image, text string) {
			w := newWorld(ctx, image)
			w.create(w.id)
			w.delete(w.id)
			Expect(message(w)).To(ContainSubstring(text))
		},
		Entry("one instance", ecssim.Image{UsedBy: instances(1)}, " The instances: i-bp000. "),
		Entry("five instances", ecssim.Image{UsedBy: instances(5)},
			" The instances: i-bp000, i-bp001, i-bp002, i-bp003, i-bp004. "),
		Entry("seven instances", ecssim.Image{UsedBy: instances(7)},
			" The instances: i-bp000, i-bp001, i-bp002, i-bp003, i-bp004 and 2 more. "),
		Entry("more than a page of instances", ecssim.Image{UsedBy: instances(101)},
			" The instances: i-bp000, i-bp001, i-bp002, i-bp003, i-bp004 and more than 95 more. "),
		Entry("seven accounts", ecssim.Image{SharedWith: []string{"2002", "1001", "3", "4", "5", "6", "7"}},
			" The accounts: 1001, 2002, 3, 4, 5, 6, 7. "),
		Entry("a resource share", ecssim.Image{ResourceShared: true}, " ECS lists no accounts that this key can see. "),
	)

	It("is listed once for each refused deletion, and not before", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: instances(7)})
		w.create(w.id)
		Expect(w.calls("DescribeInstances", w.id)).To(BeZero())
		w.delete(w.id)
		w.events()
		version := w.get(w.id).ResourceVersion
		for range 20 {
			w.attemptWhenDue(w.id)
		}
		Expect(w.calls("DeleteImage", w.id)).To(BeNumerically(">", 10))
		Expect(w.calls("DescribeInstances", w.id)).To(Equal(w.calls("DeleteImage", w.id)))
		Expect(w.get(w.id).ResourceVersion).To(Equal(version), "the same instances are the same failure")
		Expect(w.events()).To(BeEmpty())
	})

	It("is not listed for other obstacles", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{Public: true, UsedBy: instances(1)})
		w.create(w.id)
		w.delete(w.id)
		Expect(w.calls("DescribeInstances", w.id) + w.calls("DescribeImageSharePermission", w.id)).To(BeZero())
	})

	DescribeTable("cannot be listed without the permission, which changes nothing but the message",
		func(ctx SpecContext, image ecssim.Image, what, action, code string) {
			w := newWorld(ctx, image)
			Expect(w.sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Deny = []string{action} })).To(Succeed())
			w.create(w.id)
			w.delete(w.id)
			Expect(condition(w.get(w.id), "Ready").Reason).To(Equal(code))
			Expect(w.get(w.id).Status.LastError.Code).To(Equal(code))
			Expect(message(w)).To(ContainSubstring(" To list the " + what + ", grant ecs:" + action + ". "))
			w.putImage(ecssim.Image{})
			w.attemptWhenDue(w.id)
			Expect(w.gone(w.id)).To(BeTrue())
		},
		Entry("to list instances", ecssim.Image{UsedBy: instances(1)}, "instances", "DescribeInstances", "ImageUsingByInstance"),
		Entry("to list accounts", ecssim.Image{SharedWith: []string{"1001"}}, "accounts", "DescribeImageSharePermission", "ImageUseShared"),
	)

	It("is still named when ECS fails to list it once, so that a hiccup is no news", func(ctx SpecContext) {
		w := newWorld(ctx, ecssim.Image{UsedBy: instances(2)})
		w.create(w.id)
		w.delete(w.id)
		version := w.get(w.id).ResourceVersion
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeInstances", Kind: ecssim.FaultGarbage, Times: 1})).To(Succeed())
		w.attemptWhenDue(w.id)
		Expect(w.calls("DescribeInstances", w.id)).To(Equal(2))
		Expect(w.get(w.id).ResourceVersion).To(Equal(version))
		Expect(message(w)).To(ContainSubstring("i-bp000, i-bp001"))
		Expect(message(w)).To(HaveSuffix(" See " + reasonPages + "ImageUsingByInstance.md"))

		w.change(w.id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		w.putImage(ecssim.Image{UsedBy: []string{"i-bp001"}})
		w.attempt(w.id)
		Expect(message(w)).To(ContainSubstring("The instances: i-bp001."))
	})
})
