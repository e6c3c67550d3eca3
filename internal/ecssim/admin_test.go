package ecssim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func (s simulator) admin(method, path, body string) (int, string) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, newRequest(method, "http://sim.test/_sim/"+path, body))
	return w.Code, w.Body.String()
}

func TestTheStateShowsImagesAndCalls(t *testing.T) {
	s := start(t, image("m-bp1", copying))
	s.v3("DeleteImage", "ImageId=m-bp1")
	status, body := s.admin(http.MethodGet, "state", "")
	var got struct {
		Images []map[string]any
		Calls  []map[string]any
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	if i := got.Images[0]; i["imageID"] != "m-bp1" || i["copying"] != "forever" {
		t.Errorf("image %v", i)
	}
	call := got.Calls[0]
	for key, want := range map[string]any{
		"action": "DeleteImage", "imageID": "m-bp1", "regionID": region, "time": "2024-01-02T12:00:00Z",
		"code": "OperationDenied.ImageCopying", "signatureValid": true, "method": "POST",
	} {
		if call[key] != want {
			t.Errorf("%s is %v, want %v", key, call[key], want)
		}
	}
}

func TestTheStateOfAnEmptyServerHasEmptyLists(t *testing.T) {
	_, body := start(t).admin(http.MethodGet, "state", "")
	if strings.Contains(body, "null") {
		t.Error(body)
	}
}

func TestAnImageIsPutAndTakenAway(t *testing.T) {
	s := start(t, image("m-bp1", used))
	for _, body := range []string{
		"{regionID: cn-hangzhou, name: web}", `{"imageID": "m-bp1", "regionID": "cn-hangzhou"}`,
	} {
		if status, text := s.admin(http.MethodPut, "images/m-bp1", body); status != 204 {
			t.Errorf("PUT: %d %s", status, text)
		}
		if got, _ := s.Image("m-bp1"); len(got.UsedBy) != 0 {
			t.Errorf("PUT merged into %+v", got)
		}
	}
	if status, text := s.admin(http.MethodDelete, "images/m-bp1", ""); status != 204 || len(s.Images()) != 0 {
		t.Errorf("DELETE: %d %s", status, text)
	}
	status, text := s.admin(http.MethodDelete, "images/m-bp1", "")
	if status != 404 {
		t.Errorf("DELETE again: %d %s", status, text)
	}
}

func TestWhatTheStateShowsOfAnImageCanBePutBack(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{DeletionDelay: ecssim.Duration(1), Images: []ecssim.Image{image("m-bp1")}})
	s.v3("DeleteImage", "ImageId=m-bp1")
	deleted, _ := s.Image("m-bp1")
	data, err := json.Marshal(deleted)
	if err != nil {
		t.Fatal(err)
	}
	if status, text := s.admin(http.MethodPut, "images/m-bp1", string(data)); status != 204 {
		t.Errorf("%d %s", status, text)
	}
	s.clock.Step(time.Second)
	if _, found := s.Image("m-bp1"); !found {
		t.Error("it was still being deleted")
	}
}

func TestFaultsArePutOverHTTP(t *testing.T) {
	s := start(t)
	fault := "{action: DeleteImage, imageID: m-1, code: X, httpStatus: 418, times: -1, kind: before}"
	if status, text := s.admin(http.MethodPost, "faults", fault); status != 204 {
		t.Fatalf("%d %s", status, text)
	}
	if got := s.v3("DeleteImage", "ImageId=m-1"); got.status != 418 || got.Code != "X" {
		t.Errorf("got %+v", got)
	}
}

func TestBadInputIsAnsweredWithTheNameOfTheField(t *testing.T) {
	for _, test := range []struct{ method, path, body, want string }{
		{"PUT", "images/m-1", "", "regionID"},
		{"PUT", "images/m-1", "[", "YAML"},
		{"PUT", "images/m-1", "{regionID: nowhere}", "regionID"},
		{"PUT", "images/1", "{regionID: cn-hangzhou}", "imageID"},
		{"PUT", "images/m-1", "{regionID: cn-hangzhou, copying: soon}", "soon"},
		{"PUT", "images/m-1", "{regionID: cn-hangzhou, creationTime: '2024'}", "2024"},
		{"PUT", "images/m-1", "{regionID: cn-hangzhou, status: Fine}", "status"},
		{"PUT", "images/m-1", "{regionID: cn-hangzhou, public: 3}", "public"},
		{"PUT", "images/m-1", "{regionID: cn-hangzhou, colour: red}", "colour"},
		{"PUT", "images/m-1", "{regionID: cn-hangzhou, accountID: '7'}", "accountID"},
		{"POST", "faults", "{kind: before, when: now}", "when"},
		{"POST", "faults", "{kind: sideways}", "kind"},
		{"POST", "faults", "{action: DropImage}", "action"},
		{"POST", "faults", "{httpStatus: 42}", "httpStatus"},
		{"POST", "faults", "{times: often}", "times"},
	} {
		t.Run(test.body, func(t *testing.T) {
			s := start(t)
			status, text := s.admin(test.method, test.path, test.body)
			if status != 400 || !strings.Contains(text, test.want) {
				t.Errorf("got %d %q", status, text)
			}
			if len(s.Images()) != 0 {
				t.Error("it had an effect")
			}
		})
	}
}

func TestOtherEndpointsDoNotExist(t *testing.T) {
	s := start(t)
	for _, path := range []string{"nothing", "state"} {
		if status, _ := s.admin(http.MethodPost, path, ""); status != 404 {
			t.Errorf("POST %s: %d", path, status)
		}
	}
}

func TestTheServerIsSafeForConcurrentUse(t *testing.T) {
	s := start(t)
	var wait sync.WaitGroup
	for n := range 16 {
		wait.Go(func() {
			id := fmt.Sprintf("m-%02d", n)
			_ = s.PutImage(image(id))
			s.v3("DescribeImages", "Status=ALL")
			s.admin(http.MethodGet, "state", "")
			s.v3("DeleteImage", "ImageId="+id)
			_ = s.Configure(func(c *ecssim.Scenario) { c.UnknownImage = ecssim.UnknownIgnored })
			_ = s.AddFault(ecssim.Fault{ImageID: "m-none"})
		})
	}
	wait.Wait()
	if len(s.Images()) != 0 || len(s.Calls()) != 32 {
		t.Errorf("%d images, %d calls", len(s.Images()), len(s.Calls()))
	}
}
