package ecssim_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// overHTTP makes one V3 call through a real connection, without following redirects.
func (s simulator) overHTTP(ctx context.Context, query string) (int, http.Header, string, error) {
	s.t.Helper()
	server := httptest.NewServer(s.Server)
	s.t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/?"+params(query).Encode(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	client := *server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(signV3(s.headersV3(r, "DeleteImage"), "demo-id", "demo-secret", ""))
	if err != nil {
		return 0, nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, string(body), err
}

func TestAFaultBreaksACall(t *testing.T) {
	for name, test := range map[string]struct {
		kind ecssim.FaultKind
		code string
		http int

		status int    // 0 for no answer
		body   string // a part of it, or "" for none at all
		record string // the code in it; "" for a call that took effect
	}{
		"before, by default":                    {"", "", 0, 500, `"Code":"InternalError"`, "InternalError"},
		"before, with a code":                   {"before", "OperationConflict", 0, 409, `"OperationConflict"`, "OperationConflict"},
		"before, with a code that is not known": {"before", "New.Kind", 0, 400, `"Code":"New.Kind"`, "New.Kind"},
		"before, with a status":                 {"before", "Forbidden.RAM", 400, 400, `"Forbidden.RAM"`, "Forbidden.RAM"},
		"after":                                 {"after", "", 0, 0, "", ""},
		"garbage":                               {"garbage", "", 0, 502, "<html>", "garbage"},
		"garbage as success":                    {"garbage", "", 200, 200, "<html>", "garbage"},
		"empty":                                 {"empty", "", 0, 200, "", "empty"},
		"a redirect":                            {"empty", "", 302, 302, "", "empty"},
		"no request id":                         {"norequestid", "", 0, 200, "{}\n", "norequestid"},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, image("m-bp1"))
			if err := s.AddFault(ecssim.Fault{Kind: test.kind, Code: test.code, HTTPStatus: test.http}); err != nil {
				t.Fatal(err)
			}
			status, header, body, err := s.overHTTP(t.Context(), "ImageId=m-bp1")
			if (err != nil) != (test.status == 0) || status != test.status ||
				!strings.Contains(body, test.body) || test.body == "" && body != "" {
				t.Errorf("got %d %q, %v", status, body, err)
			}
			if test.status == 302 && header.Get("Location") == "" {
				t.Errorf("leads nowhere")
			}
			if call := s.last(); call.Code != test.record || call.Fault != cmp.Or(test.kind, ecssim.FaultBefore) {
				t.Errorf("record %+v", call)
			}
			if _, found := s.Image("m-bp1"); found != (test.record != "") {
				t.Errorf("image there: %t", found)
			}
		})
	}
}

func TestABrokenAnswerKeepsTheErrorInTheRecord(t *testing.T) {
	s := start(t)
	_ = s.AddFault(ecssim.Fault{Kind: ecssim.FaultAfter})
	if _, _, _, err := s.overHTTP(t.Context(), "ImageId=m-none"); err == nil {
		t.Error("answered")
	}
	if call := s.last(); call.Code != "InvalidImageId.NotFound" || call.Fault != ecssim.FaultAfter {
		t.Errorf("record %+v", call)
	}
}

// leave makes a call and gives it up when it is in the record; it was still unanswered then.
func (s simulator) leave(query string) {
	s.t.Helper()
	ctx, leave := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() {
		_, _, _, err := s.overHTTP(ctx, query)
		done <- err
	}()
	for len(s.Calls()) == 0 {
		runtime.Gosched()
	}
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		s.t.Errorf("got %v", err)
	}
}

func TestAHungCallEndsWhenTheClientLeaves(t *testing.T) {
	s := start(t, image("m-bp1"))
	_ = s.AddFault(ecssim.Fault{Kind: ecssim.FaultHang})
	s.leave("ImageId=m-bp1")
	if call := s.last(); call.Code != "hang" || call.Fault != ecssim.FaultHang || len(s.Images()) != 1 {
		t.Errorf("record %+v", call)
	}
}

func TestLatencyHoldsEveryAnswerBack(t *testing.T) {
	const latency = 20 * time.Millisecond
	s := startScenario(t, ecssim.Scenario{Latency: ecssim.Duration(latency)})
	for _, id := range []string{"demo-id", "unknown"} {
		began := time.Now()
		s.do(signV3(s.newV3("GET", "DescribeImages", "", ""), id, "demo-secret", ""))
		if took := time.Since(began); took < latency {
			t.Errorf("%s was answered after %s", id, took)
		}
	}
}

func TestAClientThatLeavesBeforeTheAnswerDoesNotUndoTheEffect(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{Latency: ecssim.Forever, Images: []ecssim.Image{image("m-bp1")}})
	s.leave("ImageId=m-bp1")
	if call := s.last(); call.Code != "" || len(s.Images()) != 0 {
		t.Errorf("record %+v", call)
	}
}

func TestAHungCallEndsWhenTheServerCloses(t *testing.T) {
	s := start(t, image("m-bp1"))
	_ = s.AddFault(ecssim.Fault{Kind: ecssim.FaultHang})
	s.Close()
	if status, _, _, err := s.overHTTP(t.Context(), "ImageId=m-bp1"); err == nil {
		t.Errorf("answered %d", status)
	}
}

func TestAFaultStrikesWhatItNamesAsOftenAsItSays(t *testing.T) {
	fail := func(times int, change func(*ecssim.Fault)) ecssim.Fault {
		f := ecssim.Fault{Times: times, Code: "InternalError"}
		if change != nil {
			change(&f)
		}
		return f
	}
	for name, test := range map[string]struct {
		fault ecssim.Fault
		want  int
	}{
		"once by default":   {fail(0, nil), 1},
		"twice":             {fail(2, nil), 2},
		"for ever":          {fail(-1, nil), 4},
		"another action":    {fail(-1, func(f *ecssim.Fault) { f.Action = "DescribeImages" }), 0},
		"this action":       {fail(-1, func(f *ecssim.Fault) { f.Action = "DeleteImage" }), 4},
		"another image":     {fail(-1, func(f *ecssim.Fault) { f.ImageID = "m-other" }), 0},
		"one of the images": {fail(-1, func(f *ecssim.Fault) { f.ImageID = "m-2" }), 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			if err := s.AddFault(test.fault); err != nil {
				t.Fatal(err)
			}
			struck := 0
			for _, id := range []string{"m-1", "m-2", "m-1", "m-2"} {
				if s.v3("DeleteImage", "ImageId="+id).Code == "InternalError" {
					struck++
				}
			}
			if struck != test.want {
				t.Errorf("struck %d times", struck)
			}
			s.ClearFaults()
			if got := s.v3("DeleteImage", "ImageId=m-1"); got.Code != "InvalidImageId.NotFound" {
				t.Errorf("cleared: %+v", got)
			}
		})
	}
}

func TestAFaultStrikesNoCallThatTheGatewayRefuses(t *testing.T) {
	s := start(t)
	_ = s.AddFault(ecssim.Fault{Kind: ecssim.FaultEmpty})
	got := s.do(signV3(s.newV3("POST", "DeleteImage", "ImageId=m-1", ""), "demo-id", "guess", ""))
	if got.Code != "SignatureDoesNotMatch" || s.last().Fault != "" {
		t.Errorf("got %+v", got)
	}
}
