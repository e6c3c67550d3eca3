package ecs_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
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

func TestDeleteImageSendsWhatItIsGivenAndSignsIt(t *testing.T) {
	for _, force := range []bool{false, true} {
		g := NewWithT(t)
		sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
		requestID, err := clientOf(t, sim).DeleteImage(context.Background(), region, "m-bp1", force)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(requestID).To(Equal(sim.Calls()[0].RequestID))
		_, there := sim.Image("m-bp1")
		g.Expect(there).To(BeFalse())
		call := sim.Calls()[0]
		g.Expect(call.Parameters).To(Equal(map[string]string{
			"RegionId": region, "ImageId": "m-bp1", "Force": fmt.Sprint(force)}))
		g.Expect(call.Method).To(Equal(http.MethodPost), "net/http repeats a GET by itself")
		g.Expect(call.SignatureValid).To(BeTrue())
	}
}

func TestDescribeImagesReadsAllPagesAndAllStatuses(t *testing.T) {
	g := NewWithT(t)
	statuses := []string{"Creating", "Waiting", "Available", "UnAvailable", "CreateFailed", "Deprecated"}
	var images []ecssim.Image
	for n := range 250 {
		images = append(images, ecssim.Image{ImageID: fmt.Sprintf("m-bp%03d", n), RegionID: region, Status: statuses[n%len(statuses)]})
	}
	found, err := clientOf(t, simulator(t, images...)).DescribeImages(context.Background(), region, nil)
	g.Expect(err).NotTo(HaveOccurred())
	byID := map[string]string{}
	for _, image := range found {
		byID[image.ImageID] = image.Status
	}
	g.Expect(found).To(HaveLen(250))
	for _, image := range images {
		g.Expect(byID).To(HaveKeyWithValue(image.ImageID, image.Status))
	}
}

func TestFindImageFindsTheImageAndNoOther(t *testing.T) {
	g := NewWithT(t)
	created := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	sim := simulator(t,
		ecssim.Image{ImageID: "m-bp1", RegionID: region, Name: "web-1", Family: "web", SizeGiB: 40, Status: "Deprecated",
			CreationTime: created, UsedBy: []string{"i-1"}, SnapshotIDs: []string{"s-1", "s-2"}},
		ecssim.Image{ImageID: "m-bp2", RegionID: "cn-beijing"})
	client := clientOf(t, sim)
	found, err := client.FindImage(context.Background(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(*found).To(Equal(ecs.Image{ImageID: "m-bp1", Name: "web-1", Family: "web", SizeGiB: 40, Status: "Deprecated",
		CreationTime: created, Usage: "instance", OwnerID: "1234567890123456", SnapshotIDs: []string{"s-1", "s-2"}}))
	g.Expect(sim.Calls()[0].Parameters).To(HaveKeyWithValue("ImageOwnerAlias", "self"), "what others share is not ours")
	for _, other := range []string{"m-bp", "m-bp2", "m-bp10"} {
		found, err := client.FindImage(context.Background(), region, other)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(found).To(BeNil(), other)
	}
}

func TestFindImageTakesTheErrorOfThatNameForAnImageThatIsNotThere(t *testing.T) {
	g := NewWithT(t)
	sim := simulator(t, ecssim.Image{ImageID: "m-bp1", RegionID: region})
	g.Expect(sim.AddFault(ecssim.Fault{Action: "DescribeImages", Code: ecs.CodeImageNotFound, HTTPStatus: 404})).To(Succeed())
	found, err := clientOf(t, sim).FindImage(context.Background(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeNil())
}

// That an image is not shown is what lets its object go, so it has to be said, not left out.
func TestAnAnswerThatDoesNotCountIsNoProofThatAnImageIsGone(t *testing.T) {
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
			_, err := client.FindImage(context.Background(), region, "m-bp1")
			g.Expect(err).To(HaveOccurred())
			g.Expect(ecs.Lookup(openapi.ErrorCode(err)).Class).To(Equal(ecs.Transient))
		})
	}
}

func TestReadingPagesEndsAlthoughTheServerPromisesMore(t *testing.T) {
	g := NewWithT(t)
	calls := 0
	client := clientOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_, _ = fmt.Fprint(w, `{"RequestId":"r","TotalCount":2000000000,"Images":{"Image":[{"ImageId":"m-bp1"}]}}`)
	}))
	_, err := client.DescribeImages(context.Background(), region, nil)
	g.Expect(err).To(MatchError(ContainSubstring("no end")))
	g.Expect(calls).To(Equal(1000))
}

func TestImagesAreReadInEveryFormThatECSSends(t *testing.T) {
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
			images, err := client.DescribeImages(context.Background(), region, url.Values{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(images).To(HaveLen(1))
			g.Expect(images[0]).To(Equal(want))
		})
	}
}

func TestWhoUsesAnImageIsReadFromOnePage(t *testing.T) {
	g := NewWithT(t)
	image := ecssim.Image{ImageID: "m-bp1", RegionID: region, SharedWith: []string{"1098", "107"}}
	for n := range 130 {
		image.UsedBy = append(image.UsedBy, fmt.Sprintf("i-%03d", 129-n))
	}
	sim := simulator(t, image, ecssim.Image{ImageID: "m-bp2", RegionID: region, UsedBy: []string{"i-other"}})
	client := clientOf(t, sim)
	ids, more, err := client.InstancesOf(context.Background(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ids).To(HaveLen(100))
	g.Expect(ids[:2]).To(Equal([]string{"i-000", "i-001"}))
	g.Expect(more).To(BeTrue())
	ids, more, err = client.InstancesOf(context.Background(), region, "m-bp2")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ids).To(Equal([]string{"i-other"}))
	g.Expect(more).To(BeFalse())
	ids, more, err = client.AccountsOf(context.Background(), region, "m-bp1")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ids).To(Equal([]string{"107", "1098"}))
	g.Expect(more).To(BeFalse())
	g.Expect(sim.Calls()).To(HaveLen(3))
}
