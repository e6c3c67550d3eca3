package ecssim_test

import (
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

var (
	used      = func(i *ecssim.Image) { i.UsedBy = []string{"i-1"} }
	shared    = func(i *ecssim.Image) { i.SharedWith = []string{"1098"} }
	public    = func(i *ecssim.Image) { i.Public = true }
	copying   = func(i *ecssim.Image) { i.Copying = ecssim.Forever }
	importing = func(i *ecssim.Image) { i.Importing = ecssim.Forever }
	exporting = func(i *ecssim.Image) { i.Exporting = ecssim.Forever }
	creating  = func(i *ecssim.Image) { i.Creating = ecssim.Forever }
)

// deleteErrors are all the documented errors of DeleteImage. None has an effect, and Force overrides but the first.
var deleteErrors = []struct {
	code    string
	status  int
	message string
	state   func(*ecssim.Image)
	query   string
}{
	{"ImageUsingByInstance", 403, "The specified image has been used to create instances.", used, ""},
	{"ImageUseShared", 403, "The specified image has been shared to others.", shared, ""},
	{"OperationDenied.ImageCopying", 403, "The Image is coping.", copying, ""},
	{"ImageIsImporting", 403, "The specified Image is importing.", importing, ""},
	{"ImageIsExporting", 403, "The specified Image is exporting. Please cancel task first.", exporting, ""},
	{"ImageIsPublic", 403, "You can not delete public image, please modify it to private.", public, ""},
	{"ImageIsCreating", 403, "The specified image is being created.", creating, ""},
	{"InvalidImageId.NotFound", 404, "The specified ImageId does not exist.", nil, "ImageId=m-none"},
	{"InvalidRegionId.NotFound", 404, "The specified RegionId does not exist.", nil,
		"ImageId=m-bp1&RegionId=cn-atlantis"},
	{"MissingParameter", 400, `The input parameter "RegionId" that is mandatory is not supplied.`, nil,
		"ImageId=m-bp1&RegionId="},
	{"MissingParameter", 400, `The input parameter "ImageId" that is mandatory is not supplied.`, nil, "ImageId="},
	{"InvalidParameter", 400, `The specified parameter "Force" is not valid.`, nil, "ImageId=m-bp1&Force=maybe"},
}

var uuid = regexp.MustCompile(`^[0-9A-F]{8}-([0-9A-F]{4}-){3}[0-9A-F]{12}$`)

// calls are the ways to make a call and the form in which it is answered.
var calls = map[string]func(s simulator, action, query string) answer{
	"V3 in JSON":            simulator.v3,
	"V1 in JSON":            func(s simulator, action, query string) answer { return s.v1(action, query, "json") },
	"V1 in XML":             func(s simulator, action, query string) answer { return s.v1(action, query, "Xml") },
	"V1 in XML, by default": func(s simulator, action, query string) answer { return s.v1(action, query, "") },
}

func TestADeletionSucceedsInJSONAndXML(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			s := start(t, image("m-bp1"))
			got := call(s, "DeleteImage", "ImageId=m-bp1")
			json := `{"RequestId":"` + got.RequestID + `"}` + "\n"
			xml := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
				`<DeleteImageResponse><RequestId>` + got.RequestID + `</RequestId></DeleteImageResponse>`
			want := json
			if strings.Contains(name, "XML") {
				want = xml
			}
			if got.status != 200 || got.body != want {
				t.Errorf("got %+v", got)
			}
			if !uuid.MatchString(got.RequestID) || got.header.Get("x-acs-request-id") != got.RequestID {
				t.Errorf("request id %q, header %q", got.RequestID, got.header.Get("x-acs-request-id"))
			}
			if len(s.Images()) != 0 {
				t.Error("the image is still there")
			}
		})
	}
}

func TestEveryDocumentedErrorOfADeletionInJSONAndXML(t *testing.T) {
	for _, test := range deleteErrors {
		for name, call := range calls {
			t.Run(test.code+" "+name, func(t *testing.T) {
				var states []func(*ecssim.Image)
				if test.state != nil {
					states = append(states, test.state)
				}
				s := start(t, image("m-bp1", states...))
				got := call(s, "DeleteImage", or(test.query, "ImageId=m-bp1"))
				if got.status != test.status || got.Code != test.code || got.Message != test.message ||
					got.HostID != "ecs.test" || !uuid.MatchString(got.RequestID) ||
					got.header.Get("x-acs-request-id") != got.RequestID {
					t.Errorf("got %+v", got)
				}
				isXML := strings.Contains(name, "XML")
				if isXML != (got.XMLName.Local == "Error") || isXML == strings.Contains(got.Recommend, test.code) {
					t.Errorf("got %s", got.body)
				}
				if call := s.last(); call.Code != test.code || call.RequestID != got.RequestID || !call.SignatureValid {
					t.Errorf("record %+v", call)
				}
				if len(s.Images()) != 1 {
					t.Error("the image is gone")
				}
			})
		}
	}
}

func TestForceOverridesInstancesAlone(t *testing.T) {
	for _, test := range deleteErrors {
		if test.state == nil {
			continue
		}
		t.Run(test.code, func(t *testing.T) {
			s := start(t, image("m-bp1", test.state))
			want := test.code
			if want == "ImageUsingByInstance" {
				want = ""
			}
			if got := s.v3("DeleteImage", "ImageId=m-bp1&Force=true"); got.Code != want || !s.last().Force {
				t.Errorf("got %+v, record %+v", got, s.last())
			}
		})
	}
}

func TestOfSeveralObstaclesTheHardestIsReported(t *testing.T) {
	for _, test := range []struct {
		want   string
		states []func(*ecssim.Image)
	}{
		{"ImageIsPublic", []func(*ecssim.Image){used, exporting, copying, importing, creating, shared, public}},
		{"ImageUseShared", []func(*ecssim.Image){used, exporting, copying, importing, creating, shared}},
		{"ImageIsCreating", []func(*ecssim.Image){used, exporting, copying, importing, creating}},
		{"ImageIsImporting", []func(*ecssim.Image){used, exporting, copying, importing}},
		{"OperationDenied.ImageCopying", []func(*ecssim.Image){used, exporting, copying}},
		{"ImageIsExporting", []func(*ecssim.Image){used, exporting}},
		{"ImageUsingByInstance", []func(*ecssim.Image){used}},
	} {
		t.Run(test.want, func(t *testing.T) {
			s := start(t, image("m-bp1", test.states...))
			if got := s.v3("DeleteImage", "ImageId=m-bp1&Force=false"); got.Code != test.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAnOperationRunsFromWhenTheImageWasPut(t *testing.T) {
	s := start(t)
	s.clock.Step(time.Hour)
	put := image("m-bp1", func(i *ecssim.Image) { i.Copying = ecssim.Duration(30 * time.Second) })
	if err := s.PutImage(put); err != nil {
		t.Fatal(err)
	}
	s.clock.Step(30*time.Second - 1)
	if got := s.v3("DeleteImage", "ImageId=m-bp1"); got.Code != "OperationDenied.ImageCopying" {
		t.Errorf("too early: %+v", got)
	}
	s.clock.Step(1)
	if got := s.v3("DeleteImage", "ImageId=m-bp1"); got.status != 200 {
		t.Errorf("when due: %+v", got)
	}
}

func TestAnUnknownImageCanBeIgnored(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{UnknownImage: ecssim.UnknownIgnored})
	if got := s.v3("DeleteImage", "ImageId=m-none"); got.status != 200 || got.RequestID == "" {
		t.Errorf("got %+v", got)
	}
}

func TestAnImageElsewhereIsNotFound(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{
		Accounts: []ecssim.Account{{AccountID: "2"}},
		Images: []ecssim.Image{
			image("m-other", func(i *ecssim.Image) { i.AccountID = "2" }),
			image("m-region", func(i *ecssim.Image) { i.RegionID = "cn-shanghai" }),
		},
	})
	for _, id := range []string{"m-other", "m-region"} {
		if got := s.v3("DeleteImage", "ImageId="+id+"&Force=true"); got.Code != "InvalidImageId.NotFound" {
			t.Errorf("%s: %+v", id, got)
		}
	}
	if got := s.v3("DescribeImages", ""); got.TotalCount != 0 {
		t.Errorf("listed %s", got.body)
	}
}

func TestADeletedImageIsShownForTheDeletionDelay(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{
		DeletionDelay: ecssim.Duration(10 * time.Second), Images: []ecssim.Image{image("m-bp1")},
	})
	shown := func() bool { return s.v3("DescribeImages", "ImageId=m-bp1").TotalCount == 1 }
	if got := s.v3("DeleteImage", "ImageId=m-bp1"); got.status != 200 || !shown() {
		t.Errorf("at once: %+v", got)
	}
	if got, found := s.Image("m-bp1"); !found {
		t.Errorf("state %+v", got)
	}
	s.clock.Step(9 * time.Second)
	if got := s.v3("DeleteImage", "ImageId=m-bp1"); got.status != 200 || !shown() {
		t.Errorf("again: %+v", got)
	}
	s.clock.Step(time.Second)
	if shown() || len(s.Images()) != 0 {
		t.Error("the second deletion prolonged the delay")
	}
	if got := s.v3("DeleteImage", "ImageId=m-bp1"); got.Code != "InvalidImageId.NotFound" {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestTheDeletionDelayCanBeEndedByHand(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{DeletionDelay: ecssim.Forever, Images: []ecssim.Image{image("m-bp1")}})
	s.v3("DeleteImage", "ImageId=m-bp1")
	s.clock.Step(1000 * time.Hour)
	if len(s.Images()) != 1 {
		t.Fatal("forever ended")
	}
	if !s.DeleteImage("m-bp1") || len(s.Images()) != 0 {
		t.Error("the image is still shown")
	}
}

func TestCalls_recordTheParameters(t *testing.T) {
	s := start(t, image("m-bp1", used))
	s.v1("DeleteImage", "ImageId=m-bp1&Force=true&DryRun=true", "JSON")
	got := s.last()
	if got.Parameters["DryRun"] != "true" || got.Parameters["ImageId"] != "m-bp1" {
		t.Errorf("parameters %v", got.Parameters)
	}
	got.RequestID, got.Parameters = "", nil
	want := ecssim.Call{
		Time: noon, Action: "DeleteImage", Method: http.MethodGet, RegionID: region, ImageID: "m-bp1", Force: true, DryRun: true,
		AccessKeyID: "demo-id", AccountID: account, SignatureValid: true,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}
