package controller

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var _ = Describe("Who is in the way", func() {
	instances := func(count int) (ids []string) {
		for n := range count {
			ids = append(ids, fmt.Sprintf("i-bp%03d", count-1-n))
		}
		return ids
	}
	message := func(w *world) string { return condition(w.get(id), "Ready").Message }

	DescribeTable("is named, up to five instances, and how many more there are, or the accounts",
		func(image ecssim.Image, text string) {
			image.ImageID = id
			w := newWorld(image)
			w.create(id)
			w.delete(id)
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

	It("is asked once for each time that ECS refuses the deletion, and not before it does", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: instances(7)})
		w.create(id)
		Expect(w.calls("DescribeInstances", id)).To(BeZero())
		w.delete(id)
		w.events()
		version := w.get(id).ResourceVersion
		for range 20 {
			w.attemptWhenDue(id)
		}
		Expect(w.calls("DeleteImage", id)).To(BeNumerically(">", 10))
		Expect(w.calls("DescribeInstances", id)).To(Equal(w.calls("DeleteImage", id)))
		Expect(w.get(id).ResourceVersion).To(Equal(version), "the same instances are the same failure")
		Expect(w.events()).To(BeEmpty())
	})

	It("is not asked about other obstacles", func() {
		w := newWorld(ecssim.Image{ImageID: id, Public: true, UsedBy: instances(1)})
		w.create(id)
		w.delete(id)
		Expect(w.calls("DescribeInstances", id) + w.calls("DescribeImageSharePermission", id)).To(BeZero())
	})

	DescribeTable("is not known without the permission, which changes nothing but the message",
		func(image ecssim.Image, action, code string) {
			image.ImageID = id
			w := newWorld(image)
			Expect(w.sim.Configure(func(s *ecssim.Scenario) {
				s.AccessKeys = []ecssim.AccessKey{{ID: "test-id", Secret: "test-secret", Deny: []string{action}}}
			})).To(Succeed())
			w.create(id)
			w.delete(id)
			Expect(condition(w.get(id), "Ready").Reason).To(Equal(code))
			Expect(w.get(id).Status.LastError.Code).To(Equal(code))
			Expect(message(w)).To(ContainSubstring("is not known: that takes the permission ecs:" + action + "."))
			Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region})).To(Succeed())
			w.attemptWhenDue(id)
			Expect(w.gone(id)).To(BeTrue())
		},
		Entry("to list instances", ecssim.Image{UsedBy: instances(1)}, "DescribeInstances", "ImageUsingByInstance"),
		Entry("to list accounts", ecssim.Image{SharedWith: []string{"1001"}}, "DescribeImageSharePermission", "ImageUseShared"),
	)

	It("stays named when ECS fails to list them, so that a hiccup is no news", func() {
		w := newWorld(ecssim.Image{ImageID: id, UsedBy: instances(2)})
		w.create(id)
		w.delete(id)
		version := w.get(id).ResourceVersion
		Expect(w.sim.AddFault(ecssim.Fault{Action: "DescribeInstances", Kind: ecssim.FaultGarbage, Times: 1})).To(Succeed())
		w.attemptWhenDue(id)
		Expect(w.calls("DescribeInstances", id)).To(Equal(2))
		Expect(w.get(id).ResourceVersion).To(Equal(version))
		Expect(message(w)).To(ContainSubstring("i-bp000, i-bp001"))
		Expect(message(w)).To(HaveSuffix(" See docs/reasons/ImageUsingByInstance.md."))

		w.change(id, annotated(v1alpha1.AnnotationRetryAt, "1"))
		Expect(w.sim.PutImage(ecssim.Image{ImageID: id, RegionID: region, UsedBy: []string{"i-bp001"}})).To(Succeed())
		w.attempt(id)
		Expect(message(w)).To(ContainSubstring("The instances: i-bp001."))
	})
})
