package ecssim_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func listed(t *testing.T) simulator {
	at := func(hour int) time.Time { return time.Date(2024, 1, 1, hour, 0, 0, 0, time.UTC) }
	return start(t,
		ecssim.Image{ImageID: "m-web1", RegionID: region, Name: "Web-One", Family: "web", CreationTime: at(1),
			SnapshotIDs: []string{"s-1", "s-2"}, Tags: map[string]string{"team": "web", "env": "prod"},
			ResourceGroupID: "rg-1"},
		ecssim.Image{ImageID: "m-web2", RegionID: region, Name: "web-two", Family: "web", CreationTime: at(2),
			UsedBy: []string{"i-1"}, Tags: map[string]string{"team": "web", "env": "test"}},
		ecssim.Image{ImageID: "m-db", RegionID: region, Name: "db", CreationTime: at(3)},
		ecssim.Image{ImageID: "m-old", RegionID: region, Name: "web-old", Family: "web", CreationTime: at(0),
			Status: "Deprecated"},
		ecssim.Image{ImageID: "m-new", RegionID: region, Name: "fresh", CreationTime: at(4),
			Creating: ecssim.Duration(time.Minute)},
	)
}

func TestACriterionOfDescribeImages(t *testing.T) {
	for query, want := range map[string]string{
		"":                                  "m-db m-web2 m-web1", // Available alone, the newest first
		"Status=ALL":                        "m-new m-db m-web2 m-web1 m-old",
		"Status=Deprecated":                 "m-old",
		"Status=Creating,Deprecated":        "m-new m-old",
		"ImageId=m-web1":                    "m-web1",
		"ImageId=m-web1,m-db,m-none,m-db":   "m-db m-web1",
		"ImageId=m-none":                    "",
		"ImageId=m-old":                     "",
		"ImageName=WEB":                     "m-web2 m-web1",
		"ImageName=eb-t":                    "m-web2",
		"ImageFamily=web":                   "m-web2 m-web1",
		"ImageFamily=we":                    "",
		"ImageOwnerAlias=self&ImageName=db": "m-db",
		"ImageOwnerAlias=system":            "",
		"SnapshotId=s-2":                    "m-web1",
		"Usage=instance":                    "m-web2",
		"Usage=none":                        "m-db m-web1",
		"ResourceGroupId=rg-1":              "m-web1",
		"Tag.1.Key=team":                    "m-web2 m-web1",
		"Tag.1.Key=team&Tag.2.Key=env&Tag.2.Value=prod":                   "m-web1",
		"Tag.20.Key=team&Tag.20.Value=db":                                 "",
		"Filter.1.Key=CreationStartTime&Filter.1.Value=2024-01-01T02:00Z": "m-db m-web2",
		"Filter.1.Key=CreationEndTime&Filter.1.Value=2024-01-01T02:00Z":   "m-web2 m-web1",
		"PageSize=1&PageNumber=2":                                         "m-web2",
		"PageSize=2&PageNumber=2":                                         "m-web1",
		"PageSize=2&PageNumber=9":                                         "",
	} {
		for name, call := range calls {
			t.Run(query+" "+name, func(t *testing.T) {
				if got := call(listed(t), "DescribeImages", query); got.status != 200 || got.ids() != want {
					t.Errorf("got %q, want %q: %s", got.ids(), want, got.body)
				}
			})
		}
	}
}

func TestEveryDocumentedErrorOfDescribeImagesInJSONAndXML(t *testing.T) {
	for _, test := range []struct {
		query  string
		status int
		code   string
	}{
		{"RegionId=", 400, "MissingParameter"},
		{"RegionId=cn-atlantis", 404, "InvalidRegionId.NotFound"},
		{"ImageOwnerAlias=mine", 400, "InvalidImageOwnerAlias.ValueNotSupported"},
		{"Tag.21.Key=team", 400, "InvalidTagCount"},
		{"Filter.1.Key=Name&Filter.1.Value=x", 404, "InvalidFilterKey.NotFound"},
		{"Filter.1.Key=CreationEndTime&Filter.1.Value=2024-01-01T02:00:00Z", 404, "InvalidFilterValue"},
		{"Usage=disk", 404, "InvalidUsage"},
		{"Status=Fine", 400, "InvalidParameter"},
		{"Status=ALL,Available", 400, "InvalidParameter"},
		{"PageNumber=0", 400, "InvalidParameter"},
		{"PageSize=0", 400, "InvalidParameter"},
		{"PageSize=101", 400, "InvalidParameter"},
		{"PageSize=ten", 400, "InvalidParameter"},
	} {
		for name, call := range calls {
			t.Run(test.query+" "+name, func(t *testing.T) {
				got := call(listed(t), "DescribeImages", test.query)
				if got.status != test.status || got.Code != test.code {
					t.Errorf("got %+v", got)
				}
			})
		}
	}
}

func TestAnImageIsCreatingWhileItIsCreatedOrImported(t *testing.T) {
	s := listed(t)
	s.clock.Step(time.Minute)
	if got := s.v3("DescribeImages", ""); got.ids() != "m-new m-db m-web2 m-web1" {
		t.Errorf("got %s", got.ids())
	}
}

func TestAnEntryHasEveryFieldThatECSGives(t *testing.T) {
	got := listed(t).v3("DescribeImages", "ImageId=m-web1&PageSize=100")
	want := fmt.Sprintf(`{"RequestId":%q,"RegionId":"cn-hangzhou","PageNumber":1,"PageSize":100,"TotalCount":1,
		"Images":{"Image":[{
		"ImageId":"m-web1","ImageName":"Web-One","ImageFamily":"web","ImageVersion":"","Description":"",
		"CreationTime":"2024-01-01T01:00:00Z","Status":"Available","Usage":"none","Progress":"100%%",
		"Platform":"Aliyun","OSName":"Alibaba Cloud Linux 3 64 bit","OSType":"linux","Architecture":"x86_64","ImageOwnerAlias":"self",
		"IsSelfShared":"","ImageOwnerId":1234567890123456,"ResourceGroupId":"rg-1",
		"IsCopied":false,"IsPublic":false,"Size":40,
		"DiskDeviceMappings":{"DiskDeviceMapping":[
			{"SnapshotId":"s-1","Size":"40","Device":"/dev/xvda","Type":"system","Format":"","Progress":""},
			{"SnapshotId":"s-2","Size":"40","Device":"/dev/xvdb","Type":"data","Format":"","Progress":""}]},
		"Tags":{"Tag":[{"TagKey":"env","TagValue":"prod"},{"TagKey":"team","TagValue":"web"}]}}]}}`, got.RequestID)
	if compact(t, got.body) != compact(t, want) {
		t.Errorf("got %s", got.body)
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	data, _ := json.Marshal(value)
	return string(data)
}

func TestPagesAddUpToTheWhole(t *testing.T) {
	s := start(t)
	for n := range 250 {
		if err := s.PutImage(image(fmt.Sprintf("m-%03d", n))); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for page := 1; page <= 3; page++ {
		got := s.v3("DescribeImages", fmt.Sprintf("PageSize=100&PageNumber=%d", page))
		if got.TotalCount != 250 || got.PageNumber != page || got.PageSize != 100 {
			t.Errorf("page %d: %d of %d", got.PageNumber, got.PageSize, got.TotalCount)
		}
		for _, id := range strings.Fields(got.ids()) {
			seen[id] = true
		}
	}
	if len(seen) != 250 {
		t.Errorf("saw %d images", len(seen))
	}
	if got := s.v3("DescribeImages", ""); len(got.Images.Image) != 10 {
		t.Errorf("%d on a page by default", len(got.Images.Image))
	}
}
