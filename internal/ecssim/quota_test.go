package ecssim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func TestAQuotaHoldsForItsWindow(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{
		Quotas: map[string]ecssim.Quota{"DeleteImage": {Limit: 2, Window: ecssim.Duration(time.Minute)}},
	})
	s.clock.Step(58*time.Second + time.Microsecond)
	for range 2 {
		if got := s.v3("DeleteImage", "ImageId=m-1"); got.Code != "InvalidImageId.NotFound" {
			t.Fatalf("within the quota: %+v", got)
		}
	}
	for name, call := range calls {
		got := call(s, "DeleteImage", "ImageId=m-1")
		if got.status != 400 || got.Code != "Throttling" || s.last().Code != "Throttling" {
			t.Errorf("%s: %+v", name, got)
		}
		limit := "Limit:2,Remain:0,TimeLeft:2000,Reset:1704196860"
		for header, want := range map[string]string{
			"x-ratelimit-user-api": limit, "x-ratelimit-user": limit, "x-acs-retry-after": "2000",
		} {
			if got.header.Get(header) != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got.header.Get(header), want)
			}
		}
	}
	if got := s.v3("DeleteImage", "ImageId=m-1&RegionId=cn-shanghai"); got.Code == "Throttling" {
		t.Error("another region has the same quota")
	}
	if got := s.v3("DescribeImages", ""); got.Code != "" {
		t.Error("another action has the same quota")
	}
	s.clock.Step(2 * time.Second)
	if got := s.v3("DeleteImage", "ImageId=m-1"); got.Code == "Throttling" {
		t.Error("the next window has not begun")
	}
}

func TestAnAnswerTellsItsQuota(t *testing.T) {
	const header = "x-ratelimit-user-api"
	scenario := ecssim.Scenario{Quotas: map[string]ecssim.Quota{"DescribeImages": {Limit: 2, Window: ecssim.Duration(time.Minute)}}}
	s := startScenario(t, scenario)
	for _, want := range []string{"Limit:2,Remain:1,", "Limit:2,Remain:0,", "Limit:2,Remain:0,"} {
		if got := s.v3("DescribeImages", "").header.Get(header); !strings.HasPrefix(got, want) {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	scenario.SilentQuotas = true
	s = startScenario(t, scenario)
	for _, want := range []bool{false, false, true} {
		if got := s.v3("DescribeImages", "").header.Get(header); (got != "") != want {
			t.Errorf("silent: %s is %q", header, got)
		}
	}
}

func TestEachAccountHasItsOwnQuota(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{
		Accounts: []ecssim.Account{{AccountID: "2", AccessKeys: []ecssim.AccessKey{{ID: "other", Secret: "s"}}}},
		Quotas:   map[string]ecssim.Quota{"DescribeImages": {Limit: 1, Window: ecssim.Duration(time.Minute)}},
	})
	s.v3("DescribeImages", "")
	if got := s.do(signV3(s.newV3("GET", "DescribeImages", "", ""), "other", "s", "")); got.Code != "" {
		t.Errorf("got %+v", got)
	}
	if got := s.v3("DescribeImages", ""); got.Code != "Throttling" {
		t.Errorf("got %+v", got)
	}
}
