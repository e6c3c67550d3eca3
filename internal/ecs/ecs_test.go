package ecs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

const region = "cn-hangzhou"

func clientOf(t *testing.T, handler http.Handler) *ecs.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return ecs.New(openapi.New(openapi.Config{
		Endpoints:   openapi.Endpoints{Override: server.URL},
		Timeout:     5 * time.Second,
		Connections: 64,
		Clock:       clock.RealClock{},
	})).As(openapi.Credentials{AccessKeyID: "test-id", AccessKeySecret: "test-secret"})
}

func simulator(t *testing.T, images ...ecssim.Image) *ecssim.Server {
	t.Helper()
	sim, err := ecssim.New(ecssim.Scenario{
		AccountID:  "1234567890123456",
		AccessKeys: []ecssim.AccessKey{{ID: "test-id", Secret: "test-secret"}},
		Images:     images,
	}, nil)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(sim.Close)
	return sim
}

func TestDeleteImage_sendsItsParametersSigned(t *testing.T) {
	for _, force := range []bool{false, true} {
		g := NewWithT(t)
		sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
		requestID, err := clientOf(t, sim).DeleteImage(t.Context(), region, "m-bp1", force)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(requestID).To(Equal(sim.Calls()[0].RequestID))
		_, there := sim.Image("m-bp1")
		g.Expect(there).To(BeFalse())
		call := sim.Calls()[0]
		g.Expect(call.Parameters).To(Equal(map[string]string{
			"RegionId": region, "ImageId": "m-bp1", "Force": fmt.Sprint(force)}))
		g.Expect(call.Method).To(Equal(http.MethodPost), "net/http may repeat a GET")
		g.Expect(call.SignatureValid).To(BeTrue())
	}
}

func TestFindImage_findsImagesOfEveryStatus(t *testing.T) {
	for _, status := range []string{"Creating", "Waiting", "Available", "UnAvailable", "CreateFailed", "Deprecated"} {
		t.Run(status, func(t *testing.T) {
			g := NewWithT(t)
			sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region, Status: status})
			found, err := clientOf(t, sim).FindImage(t.Context(), region, "m-bp1")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(found.Status).To(Equal(status))
		})
	}
}

func TestFindImage_findsTheImageAndNoOther(t *testing.T) {
	g := NewWithT(t)
	created := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	sim := simulator(t,
		ecssim.Image{ImageID: "m-bp1", RegionID: region, Name: "web-1", Family: "web", SizeGiB: 40, Status: "Deprecated",
			CreationTime: created, UsedBy: []string{"i-1"}, SnapshotIDs: []string{"s-1", "s-2"}},
		ecssim.Image{ImageID: "m-bp2", RegionID: "cn-beijing"})
	client := clientOf(t, sim)
	found, err := client.FindImage(t.Context(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(*found).To(Equal(ecs.Image{ImageID: "m-bp1", Name: "web-1", Family: "web", SizeGiB: 40, Status: "Deprecated",
		CreationTime: created, Usage: "instance", OwnerID: "1234567890123456", SnapshotIDs: []string{"s-1", "s-2"}}))
	g.Expect(sim.Calls()[0].Parameters).To(HaveKeyWithValue("ImageOwnerAlias", "self"), "what others share is not ours")
	for _, other := range []string{"m-bp", "m-bp2", "m-bp10"} {
		found, err := client.FindImage(t.Context(), region, other)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(found).To(BeNil(), other)
	}
}

func TestFindImage_findsNothingIfECSAnswersImageNotFound(t *testing.T) {
	g := NewWithT(t)
	sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
	g.Expect(sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: ecs.CodeImageNotFound, HTTPStatus: 404})).To(Succeed())
	found, err := clientOf(t, sim).FindImage(t.Context(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeNil())
}

// That an image is not shown is what lets its object go, so it has to be said, not left out.
func TestFindImage_failsIfTheAnswerDoesNotCount(t *testing.T) {
	for name, body := range map[string]string{
		"another operation's":       `{"RequestId":"r"}`,
		"a count without images":    `{"RequestId":"r","TotalCount":1}`,
		"a count and an empty list": `{"RequestId":"r","TotalCount":1,"Images":{"Image":[]}}`,
		"a count below zero":        `{"RequestId":"r","TotalCount":-1,"Images":{"Image":[]}}`,
		"another image":             `{"RequestId":"r","TotalCount":1,"Images":{"Image":[{"ImageId":"m-other"}]}}`,
		"an error with a 200":       `{"RequestId":"r","Code":"InternalError","Message":"Try again."}`,
		"an error with a count":     `{"RequestId":"r","Code":"InternalError","Message":"Try again.","TotalCount":0}`,
		"another operation's (XML)": `<DeleteImageResponse><RequestId>r</RequestId></DeleteImageResponse>`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			client := clientOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, body) }))
			_, err := client.FindImage(t.Context(), region, "m-bp1")
			g.Expect(err).To(HaveOccurred())
			g.Expect(ecs.ClassOf("ecs:DescribeImages", failure.CodeOf(err))).To(Equal(ecs.Transient))
		})
	}
}

func TestFindImage_readsEveryFormThatECSSends(t *testing.T) {
	want := ecs.Image{ImageID: "m-bp1", Name: "web-1", OwnerID: "1098", SizeGiB: 40,
		CreationTime: time.Date(2019, 11, 15, 6, 7, 0, 0, time.UTC), SnapshotIDs: []string{"s-1"}}
	for name, body := range map[string]string{
		"the owner as a number, no seconds": `{"RequestId":"r","TotalCount":1,"Images":{"Image":[{"ImageId":"m-bp1","ImageName":"web-1",
			"ImageOwnerId":1098,"Size":40,"CreationTime":"2019-11-15T06:07Z","IsSelfShared":"",
			"DiskDeviceMappings":{"DiskDeviceMapping":[{"SnapshotId":"s-1","Size":"40"},{"SnapshotId":"s-1"},{"SnapshotId":""}]}}]}}`,
		"the owner as a string, with seconds": `{"RequestId":"r","TotalCount":1,"Images":{"Image":[{"ImageId":"m-bp1","ImageName":"web-1",
			"ImageOwnerId":"1098","Size":40,"CreationTime":"2019-11-15T06:07:00Z","IsSelfShared":false,
			"DiskDeviceMappings":{"DiskDeviceMapping":[{"SnapshotId":"s-1"}]}}]}}`,
		"XML": `<?xml version="1.0"?><DescribeImagesResponse><RequestId>r</RequestId><TotalCount>1</TotalCount><Images><Image>
			<ImageId>m-bp1</ImageId><ImageName>web-1</ImageName><ImageOwnerId>1098</ImageOwnerId><Size>40</Size>
			<CreationTime>2019-11-15T06:07:00Z</CreationTime><DiskDeviceMappings><DiskDeviceMapping><SnapshotId>s-1</SnapshotId>
			</DiskDeviceMapping></DiskDeviceMappings></Image></Images></DescribeImagesResponse>`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			client := clientOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, body) }))
			image, err := client.FindImage(t.Context(), region, "m-bp1")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(image).To(HaveValue(Equal(want)))
		})
	}
}

func TestInstancesOfAndAccountsOf_readOnePage(t *testing.T) {
	g := NewWithT(t)
	image := ecssim.Image{ImageID: "m-bp1", RegionID: region, SharedWith: []string{"1098", "107"}}
	for n := range 130 {
		image.UsedBy = append(image.UsedBy, fmt.Sprintf("i-%03d", 129-n))
	}
	sim := simulator(t, image, ecssim.Image{ImageID: "m-bp2", RegionID: region, UsedBy: []string{"i-other"}})
	client := clientOf(t, sim)
	ids, more, err := client.InstancesOf(t.Context(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ids).To(HaveLen(100))
	g.Expect(ids[:2]).To(Equal([]string{"i-000", "i-001"}))
	g.Expect(more).To(BeTrue())
	ids, more, err = client.InstancesOf(t.Context(), region, "m-bp2")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ids).To(Equal([]string{"i-other"}))
	g.Expect(more).To(BeFalse())
	ids, more, err = client.AccountsOf(t.Context(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ids).To(Equal([]string{"107", "1098"}))
	g.Expect(more).To(BeFalse())
	g.Expect(sim.Calls()).To(HaveLen(3))
}

func TestCheckDescribe(t *testing.T) {
	for name, test := range map[string]struct {
		key   ecssim.AccessKey
		fault *ecssim.Fault
		want  string
	}{
		"passes with the permission":             {},
		"passes if the server ignores DryRun":    {key: ecssim.AccessKey{Blind: true}},
		"passes if the server finds no image":    {fault: &ecssim.Fault{Code: ecs.CodeImageNotFound}},
		"fails with a blind key":                 {key: ecssim.AccessKey{Blind: true, HonestDryRun: true}, want: "Forbidden.RAM"},
		"fails with a key that is denied it":     {key: ecssim.AccessKey{Deny: []string{"DescribeImages"}}, want: "Forbidden.RAM"},
		"fails with a plain Forbidden":           {fault: &ecssim.Fault{Code: "Forbidden"}, want: "Forbidden"},
		"fails without an answer":                {fault: &ecssim.Fault{Kind: ecssim.FaultAfter}, want: failure.CodeNoAnswer},
		"fails on a success without a RequestId": {fault: &ecssim.Fault{Kind: ecssim.FaultNoRequestID}, want: failure.CodeUnusableAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
			test.key.ID, test.key.Secret = "test-id", "test-secret"
			g.Expect(sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys = []ecssim.AccessKey{test.key} })).To(Succeed())
			if test.fault != nil {
				g.Expect(sim.AddFault(*test.fault)).To(Succeed())
			}
			g.Expect(failure.CodeOf(clientOf(t, sim).CheckDescribe(t.Context(), region, "m-bp1"))).To(Equal(test.want))
			g.Expect(sim.Calls()).To(HaveExactElements(HaveField("DryRun", true)))
		})
	}
}

func TestFindImage_findsNothingWithABlindKey(t *testing.T) {
	g := NewWithT(t)
	sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
	g.Expect(sim.Configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Blind = true })).To(Succeed())
	found, err := clientOf(t, sim).FindImage(t.Context(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeNil(), "although the image is there: that is what CheckDescribe is for")
}

func TestCheckDescribe_sendsTheParametersOfFindImageAndDryRun(t *testing.T) {
	g := NewWithT(t)
	sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
	client := clientOf(t, sim)
	_, err := client.FindImage(t.Context(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(client.CheckDescribe(t.Context(), region, "m-bp1")).To(Succeed())
	find, check := sim.Calls()[0], sim.Calls()[1]
	g.Expect(check.Action).To(Equal(find.Action))
	g.Expect(find.Parameters).NotTo(HaveKey("DryRun"))
	find.Parameters["DryRun"] = "true"
	g.Expect(check.Parameters).To(Equal(find.Parameters))
}
