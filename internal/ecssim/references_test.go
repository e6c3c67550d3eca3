package ecssim_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func usedBy(ids ...string) func(*ecssim.Image) { return func(i *ecssim.Image) { i.UsedBy = ids } }

// instances are "instance of image", in their order.
func (a answer) instances() string {
	var all []string
	for _, i := range a.Instances.Instance {
		all = append(all, i.InstanceID+" of "+i.ImageID)
	}
	return strings.Join(all, ", ")
}

func TestDescribeInstancesListsTheUsersOfImagesInJSONAndXML(t *testing.T) {
	other := func(i *ecssim.Image) { i.AccountID = "2000000000000002" }
	elsewhere := func(i *ecssim.Image) { i.RegionID = "cn-shanghai" }
	images := []ecssim.Image{
		image("m-bp1", usedBy("i-2", "i-1")), image("m-bp2", usedBy("i-3")), image("m-free"),
		image("m-else", usedBy("i-4"), elsewhere), image("m-other", usedBy("i-5"), other), image("m-gone", usedBy("i-6")),
	}
	for query, want := range map[string]string{
		"":                     "i-1 of m-bp1, i-2 of m-bp1, i-3 of m-bp2",
		"ImageId=m-bp1":        "i-1 of m-bp1, i-2 of m-bp1",
		"ImageId=m-free":       "",
		"ImageId=m-none":       "",
		"ImageId=m-else":       "",
		"ImageId=m-other":      "",
		"RegionId=cn-shanghai": "i-4 of m-else",
	} {
		for name, call := range calls {
			t.Run(query+" "+name, func(t *testing.T) {
				s := startRole(t, func(c *ecssim.Scenario) { c.Images = images })
				s.v3("DeleteImage", "ImageId=m-gone&Force=true")
				got := call(s, "DescribeInstances", query)
				if got.status != 200 || got.instances() != want || got.TotalCount != len(got.Instances.Instance) ||
					got.NextToken != "" || got.PageNumber != 1 || got.PageSize != 10 {
					t.Errorf("got %s", got.body)
				}
				if want == "" && !strings.Contains(name, "XML") && !strings.Contains(got.body, `"Instance":[]`) {
					t.Errorf("no list in %s", got.body)
				}
			})
		}
	}
}

func TestTheTokenLeadsThroughAllInstances(t *testing.T) {
	var ids []string
	for n := range 25 {
		ids = append(ids, fmt.Sprintf("i-%02d", n))
	}
	for size, pages := range map[string]int{"": 3, "&MaxResults=25": 1, "&MaxResults=100": 1, "&MaxResults=1": 25} {
		t.Run(size, func(t *testing.T) {
			s := start(t, image("m-bp1", usedBy(ids...)))
			var seen []string
			for token, page := "", 1; ; page++ {
				got := s.v3("DescribeInstances", "ImageId=m-bp1&NextToken="+token+size)
				for _, i := range got.Instances.Instance {
					seen = append(seen, i.InstanceID)
				}
				if token = got.NextToken; token == "" || got.TotalCount != 25 || page > 25 {
					if page != pages || strings.Join(seen, " ") != strings.Join(ids, " ") {
						t.Errorf("saw %v in %d pages, the last %s", seen, page, got.body)
					}
					return
				}
			}
		})
	}
}

func TestParametersOfDescribeInstancesAreLookedAt(t *testing.T) {
	for query, code := range map[string]string{
		"MaxResults=0": "InvalidParameter", "MaxResults=101": "InvalidParameter", "NextToken=me": "InvalidParameter",
		"RegionId=": "MissingParameter", "RegionId=cn-atlantis": "InvalidRegionId.NotFound",
	} {
		if got := start(t).v3("DescribeInstances", query); got.Code != code {
			t.Errorf("%s: %s", query, got.body)
		}
	}
}

func TestDescribeImageSharePermissionListsTheAccountsInJSONAndXML(t *testing.T) {
	var ids []string
	for n := range 12 {
		ids = append(ids, fmt.Sprint(1000000000000001+n))
	}
	for query, want := range map[string]string{
		"":                         strings.Join(ids[:10], " "),
		"&PageNumber=2":            strings.Join(ids[10:], " "),
		"&PageNumber=3":            "",
		"&PageSize=100":            strings.Join(ids, " "),
		"&PageSize=5&PageNumber=2": strings.Join(ids[5:10], " "),
	} {
		for name, call := range calls {
			t.Run(query+" "+name, func(t *testing.T) {
				s := start(t, image("m-bp1", func(i *ecssim.Image) { i.SharedWith = ids }))
				got := call(s, "DescribeImageSharePermission", "ImageId=m-bp1"+query)
				var accounts []string
				for _, a := range got.Accounts.Account {
					accounts = append(accounts, a.AliyunID.String())
				}
				if strings.Join(accounts, " ") != want || got.TotalCount != 12 {
					t.Errorf("got %s", got.body)
				}
				if !strings.Contains(name, "XML") && strings.Contains(got.body, `"AliyunId":"`) {
					t.Errorf("no number in %s", got.body)
				}
			})
		}
	}
}

func TestAnImageInAResourceShareIsSharedWithNobodyThatIsShown(t *testing.T) {
	s := start(t, image("m-bp1", func(i *ecssim.Image) { i.ResourceShared = true }))
	if got := s.v3("DeleteImage", "ImageId=m-bp1&Force=true"); got.Code != "ImageUseShared" {
		t.Errorf("got %+v", got)
	}
	got := s.v3("DescribeImageSharePermission", "ImageId=m-bp1")
	if got.status != 200 || got.TotalCount != 0 || !strings.Contains(got.body, `"Account":[]`) {
		t.Errorf("got %s", got.body)
	}
}

func TestOnlyTheOwnerSeesWithWhomAnImageIsShared(t *testing.T) {
	for query, code := range map[string]string{
		"ImageId=m-bp1": "", "ImageId=m-bp2": "InvalidImageId.NotFound", "ImageId=m-none": "InvalidImageId.NotFound",
		"ImageId=m-bp1&RegionId=cn-shanghai": "InvalidImageId.NotFound", "ImageId=": "MissingParameter",
		"ImageId=m-bp1&PageSize=101": "InvalidParameter",
	} {
		if got := startRole(t).v3("DescribeImageSharePermission", query); got.Code != code {
			t.Errorf("%s: %s", query, got.body)
		}
	}
}
