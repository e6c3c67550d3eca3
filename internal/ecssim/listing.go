package ecssim

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// describeImagesResponse and what is in it have ECS's field names; a tag is where Go spells them differently.
type describeImagesResponse struct {
	RequestID                        string `json:"RequestId" xml:"RequestId"`
	RegionID                         string `json:"RegionId" xml:"RegionId"`
	PageNumber, PageSize, TotalCount int
	Images                           struct{ Image []imageEntry }
}

type imageEntry struct {
	ImageID                              string `json:"ImageId" xml:"ImageId"`
	ImageName, ImageFamily, ImageVersion string
	Description, CreationTime, Status    string
	Usage, Progress, Platform, OSName    string
	OSType, Architecture                 string
	ImageOwnerAlias, IsSelfShared        string
	ImageOwnerID                         int64  `json:"ImageOwnerId" xml:"ImageOwnerId"`
	ResourceGroupID                      string `json:"ResourceGroupId" xml:"ResourceGroupId"`
	IsCopied, IsPublic                   bool
	Size                                 int
	DiskDeviceMappings                   struct{ DiskDeviceMapping []diskEntry }
	Tags                                 struct{ Tag []tagEntry }
}

type diskEntry struct {
	SnapshotID                           string `json:"SnapshotId" xml:"SnapshotId"`
	Size, Device, Type, Format, Progress string
}

type tagEntry struct{ TagKey, TagValue string }

// describeImages lists the newest image first.
func (s *Server) describeImages(q *request) (any, *failure) {
	page, failedPage := q.number("PageNumber", 1, 1<<30)
	size, failedSize := q.number("PageSize", 10, 100)
	matches, failed := q.imageFilter()
	if failed = cmp.Or(failedPage, failedSize, failed); failed != nil {
		return nil, failed
	}
	found := slices.DeleteFunc(s.candidates(q), func(i *Image) bool { return !matches(i) })
	slices.SortFunc(found, func(a, b *Image) int {
		return cmp.Or(b.CreationTime.Compare(a.CreationTime), cmp.Compare(a.ImageID, b.ImageID))
	})
	answer := describeImagesResponse{RequestID: q.RequestID, RegionID: q.RegionID,
		PageNumber: page, PageSize: size, TotalCount: len(found)}
	answer.Images.Image = []imageEntry{} // a list in JSON even when empty
	first := min((page-1)*size, len(found))
	for _, image := range found[first:min(first+size, len(found))] {
		answer.Images.Image = append(answer.Images.Image, image.entry(q.Time))
	}
	return answer, nil
}

// candidates spares a call that names its images a walk over thousands of others.
func (s *Server) candidates(q *request) []*Image {
	if q.ImageID == "" {
		return slices.Collect(maps.Values(s.images))
	}
	var named []*Image
	for _, id := range slices.Compact(slices.Sorted(strings.SplitSeq(q.ImageID, ","))) {
		if image, found := s.images[id]; found {
			named = append(named, image)
		}
	}
	return named
}

func (i *Image) entry(now time.Time) imageEntry {
	e := imageEntry{
		ImageID: i.ImageID, ImageName: i.Name, ImageFamily: i.Family, CreationTime: i.CreationTime.Format(time.RFC3339),
		Status: i.shownStatus(now), Usage: i.usage(), Progress: "100%", Size: i.SizeGiB, IsCopied: i.Copying > 0,
		IsPublic: i.Public, ImageOwnerAlias: "self", Platform: "Aliyun", OSName: "Alibaba Cloud Linux 3 64 bit",
		OSType: "linux", Architecture: "x86_64", ResourceGroupID: i.ResourceGroupID,
	}
	e.ImageOwnerID, _ = strconv.ParseInt(i.AccountID, 10, 64) // digits, by validation
	if e.Status == creating {
		e.Progress = "0%"
	}
	if len(i.SharedWith) > 0 {
		e.IsSelfShared = "True"
	}
	e.DiskDeviceMappings.DiskDeviceMapping, e.Tags.Tag = []diskEntry{}, []tagEntry{}
	for n, id := range i.SnapshotIDs {
		disk := diskEntry{SnapshotID: id, Size: strconv.Itoa(i.SizeGiB), Device: "/dev/xvd" + string(rune('a'+n))}
		if disk.Type = "data"; n == 0 {
			disk.Type = "system"
		}
		e.DiskDeviceMappings.DiskDeviceMapping = append(e.DiskDeviceMappings.DiskDeviceMapping, disk)
	}
	for _, key := range slices.Sorted(maps.Keys(i.Tags)) {
		e.Tags.Tag = append(e.Tags.Tag, tagEntry{key, i.Tags[key]})
	}
	return e
}

func (i *Image) usage() string {
	if len(i.UsedBy) > 0 {
		return "instance"
	}
	return "none"
}

// imageFilter is all the criteria of a call together, among them the caller's account. A parameter may list
// several values with commas between them; ImageName is looked for anywhere in a name, in either case.
func (q *request) imageFilter() (func(*Image) bool, *failure) {
	wanted, failedValues := q.wantedValues()
	hasTags, failedTags := q.tagFilter()
	inTime, failedTime := q.creationTimeFilter()
	name := strings.ToLower(q.params.Get("ImageName"))
	return func(i *Image) bool {
		for parameter, has := range i.values(q.Time) {
			want, given := wanted[parameter]
			if given && !slices.ContainsFunc(has, func(v string) bool { return slices.Contains(want, v) }) {
				return false
			}
		}
		return i.AccountID == q.AccountID && strings.Contains(strings.ToLower(i.Name), name) && hasTags(i) && inTime(i)
	}, cmp.Or(failedValues, failedTags, failedTime)
}

// values are what the parameters of those names are compared with.
func (i *Image) values(now time.Time) map[string][]string {
	return map[string][]string{
		"RegionId": {i.RegionID}, "ImageFamily": {i.Family}, "SnapshotId": i.SnapshotIDs,
		"ResourceGroupId": {i.ResourceGroupID}, "Usage": {i.usage()}, "ImageOwnerAlias": {"self"},
		"Status": {i.shownStatus(now)},
	}
}

func (q *request) wantedValues() (map[string][]string, *failure) {
	wanted := map[string][]string{"Status": {available}}
	for parameter := range q.params {
		if value := q.params.Get(parameter); value != "" {
			wanted[parameter] = strings.Split(value, ",")
		}
	}
	if q.params.Get("Status") == "ALL" {
		wanted["Status"] = statuses
	}
	switch {
	case !subset(wanted["Status"], statuses):
		return nil, fail("InvalidParameter", "Status")
	case !subset(wanted["ImageOwnerAlias"], []string{"self", "system", "others", "marketplace"}):
		return nil, fail("InvalidImageOwnerAlias.ValueNotSupported")
	case !subset(wanted["Usage"], []string{"instance", "none"}):
		return nil, fail("InvalidUsage")
	}
	return wanted, nil
}

func subset(part, whole []string) bool {
	return !slices.ContainsFunc(part, func(v string) bool { return !slices.Contains(whole, v) })
}

// numbered returns the parameters prefix.N.Key with their prefix.N.Value, by N.
func (q *request) numbered(prefix string) map[string]tagEntry {
	entries := map[string]tagEntry{}
	for name := range q.params {
		stem, isKey := strings.CutSuffix(name, ".Key")
		if n, ours := strings.CutPrefix(stem, prefix+"."); isKey && ours {
			entries[n] = tagEntry{q.params.Get(name), q.params.Get(stem + ".Value")}
		}
	}
	return entries
}

// tagFilter wants all the tags; one without a value asks for its key alone.
func (q *request) tagFilter() (func(*Image) bool, *failure) {
	tags := q.numbered("Tag")
	for n := range tags {
		if number, err := strconv.Atoi(n); err != nil || number < 1 || number > 20 {
			return nil, fail("InvalidTagCount")
		}
	}
	return func(i *Image) bool {
		for _, tag := range tags {
			if value, found := i.Tags[tag.TagKey]; !found || tag.TagValue != "" && tag.TagValue != value {
				return false
			}
		}
		return true
	}, nil
}

// creationTimeFilter reads bounds that are both inclusive.
func (q *request) creationTimeFilter() (func(*Image) bool, *failure) {
	bounds := map[string]time.Time{"CreationStartTime": {}, "CreationEndTime": time.Unix(1<<40, 0)}
	for _, filter := range q.numbered("Filter") {
		if _, known := bounds[filter.TagKey]; !known {
			return nil, fail("InvalidFilterKey.NotFound")
		}
		bound, err := time.Parse("2006-01-02T15:04Z", filter.TagValue)
		if err != nil {
			return nil, fail("InvalidFilterValue")
		}
		bounds[filter.TagKey] = bound
	}
	return func(i *Image) bool {
		t := i.CreationTime
		return !t.Before(bounds["CreationStartTime"]) && !t.After(bounds["CreationEndTime"])
	}, nil
}
