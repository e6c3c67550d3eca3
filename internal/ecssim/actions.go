package ecssim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// action is an operation of one of the services.
type action struct {
	version  string
	do       func(*Server, *request) *failure
	required []string // parameters
	// open is one that needs no permission.
	open bool
}

// actions are all there is: a new one needs an entry here, and failures for its error codes.
var actions = map[string]action{
	"DeleteImage":                  {version: ecsVersion, do: (*Server).deleteImage, required: ofImage},
	"DescribeImages":               {version: ecsVersion, do: (*Server).describeImages, required: ofRegion},
	"DescribeInstances":            {version: ecsVersion, do: (*Server).describeInstances, required: ofRegion},
	"DescribeImageSharePermission": {version: ecsVersion, do: (*Server).describeSharing, required: ofImage},
	"GetCallerIdentity":            {version: stsVersion, do: (*Server).getCallerIdentity, open: true},
	"AssumeRole": {version: stsVersion, do: (*Server).assumeRole,
		required: []string{"RoleArn", "RoleSessionName"}},
	withOIDC: {version: stsVersion, do: (*Server).assumeRoleWithOIDC, open: true,
		required: []string{"OIDCProviderArn", "OIDCToken", "RoleArn", "RoleSessionName"}},
}

var ofRegion, ofImage = []string{"RegionId"}, []string{"RegionId", "ImageId"}

func isAction(name string) bool { return actions[name].do != nil }

// deniable is false for what needs no permission.
func deniable(name string) bool { return isAction(name) && !actions[name].open }

// deleteImage succeeds at once; DescribeImages may go on showing the image for the scenario's deletionDelay.
// A second deletion in that time succeeds too, and prolongs nothing, whatever was put in its way.
func (s *Server) deleteImage(q *request) *failure {
	image := s.own(q)
	switch {
	case image == nil:
		if s.settings.UnknownImage != UnknownIgnored {
			return fail("InvalidImageId.NotFound")
		}
	case image.shownUntil.IsZero():
		if code := image.obstacle(q.Force); code != "" {
			return fail(code)
		}
		image.shownUntil = q.Time.Add(time.Duration(s.settings.DeletionDelay))
	}
	return nil
}

// own returns the image of a call if the caller's account has it in the region.
func (s *Server) own(q *request) *Image {
	image := s.images[q.ImageID]
	if !image.shown() || image.AccountID != q.AccountID || image.RegionID != q.RegionID {
		return nil
	}
	return image
}

const minutes = "2006-01-02T15:04Z"

// formats are how a parameter has to be, if it is given, and the code for one that is not.
var formats = []struct {
	parameter, value *regexp.Regexp
	code             string
}{
	{exactly(`RegionId`), exactly(strings.Join(regions, "|")), "InvalidRegionId.NotFound"},
	{exactly(`Force`), exactly(`(?i)true|false`), "InvalidParameter"},
	{exactly(`PageNumber`), exactly(`[1-9]\d{0,8}`), "InvalidParameter"},
	{exactly(`PageSize|MaxResults`), exactly(`[1-9]\d?|100`), "InvalidParameter"},
	{exactly(`DurationSeconds`), exactly(`\d{1,9}`), "InvalidParameter.DurationSeconds"},
	{exactly(`RoleSessionName`), exactly(`[\w.@-]{2,64}`), "InvalidParameter.RoleSessionName"},
	{exactly(`NextToken`), exactly(`([0-9a-f]{2})+`), "InvalidParameter"},
	{exactly(`Status`), exactly(`ALL|` + listOf(statuses...)), "InvalidParameter"},
	{exactly(`ImageOwnerAlias`), exactly(listOf("self", "system", "others", "marketplace")),
		"InvalidImageOwnerAlias.ValueNotSupported"},
	{exactly(`Usage`), exactly(listOf("instance", "none")), "InvalidUsage"},
	{exactly(`Tag\.21\.Key`), exactly(``), "InvalidTagCount"},
	{exactly(`Filter\.\d+\.Key`), exactly(`CreationStartTime|CreationEndTime`), "InvalidFilterKey.NotFound"},
	{exactly(`Filter\.\d+\.Value`), exactly(`\d{4}-\d\d-\d\dT\d\d:\d\dZ`), "InvalidFilterValue"},
}

func exactly(pattern string) *regexp.Regexp { return regexp.MustCompile("^(" + pattern + ")$") }

// listOf is the pattern of some of the values with commas between them.
func listOf(values ...string) string {
	one := "(" + strings.Join(values, "|") + ")"
	return one + "(," + one + ")*"
}

// checkFormat looks at the parameters of every action.
func (s *Server) checkFormat(q *request) *failure {
	for _, name := range actions[q.Action].required {
		if q.Parameters[name] == "" {
			return fail("MissingParameter", name)
		}
	}
	for _, format := range formats {
		for parameter, value := range q.Parameters {
			if value != "" && format.parameter.MatchString(parameter) && !format.value.MatchString(value) {
				return fail(format.code, parameter)
			}
		}
	}
	return nil
}

// criteria are the parameters by which DescribeImages selects, besides ImageId. ImageName is looked for anywhere
// in a name, in either case; the others compare as a whole, some of them with each of a list.
var criteria = map[string]func(i *Image, want string) bool{
	"ImageName": func(i *Image, want string) bool {
		return strings.Contains(strings.ToLower(i.Name), strings.ToLower(want))
	},
	"ImageFamily":     func(i *Image, want string) bool { return lists(want, i.Family) },
	"ImageOwnerAlias": func(_ *Image, want string) bool { return lists(want, "self") },
	"RegionId":        func(i *Image, want string) bool { return i.RegionID == want },
	"ResourceGroupId": func(i *Image, want string) bool { return i.ResourceGroupID == want },
	"SnapshotId":      func(i *Image, want string) bool { return slices.Contains(i.SnapshotIDs, want) },
	"Status":          func(i *Image, want string) bool { return want == "ALL" || lists(want, i.status()) },
	"Usage":           func(i *Image, want string) bool { return lists(want, i.usage()) },
}

func lists(list, value string) bool { return slices.Contains(strings.Split(list, ","), value) }

// dryRun reports whether a call is a dry run of the one action that knows it. DeleteImage ignores DryRun and deletes.
func (q *request) dryRun() bool { return q.DryRun && q.Action == "DescribeImages" }

// visible are the images that a listing may show to the caller.
func (s *Server) visible(q *request) map[string]*Image {
	if q.caller.Blind {
		return nil
	}
	return s.images
}

// describeImages lists the newest image first. A dry run ends where the reading begins.
func (s *Server) describeImages(q *request) *failure {
	if q.dryRun() && !q.caller.Blind {
		return fail("DryRunOperation")
	}
	selects, visible := q.selector(), s.visible(q)
	candidates := visible
	if q.ImageID != "" { // which spares a walk over thousands of others
		candidates = map[string]*Image{}
		for id := range strings.SplitSeq(q.ImageID, ",") {
			candidates[id] = visible[id]
		}
	}
	var found []*Image
	for _, image := range candidates {
		if image.shown() && selects(image) {
			found = append(found, image)
		}
	}
	slices.SortFunc(found, func(a, b *Image) int {
		return cmp.Or(b.CreationTime.Compare(a.CreationTime), cmp.Compare(a.ImageID, b.ImageID))
	})
	entries := []object{} // a list in JSON even when empty
	for _, image := range page(q, found) {
		entries = append(entries, image.entry())
	}
	q.answer["RegionId"], q.answer["Images"] = q.RegionID, object{"Image": entries}
	return nil
}

// page puts the numbers of a page into the answer, and returns what is on it.
func page[T any](q *request, all []T) []T {
	number, size := q.number("PageNumber", 1), q.number("PageSize", 10)
	q.answer["PageNumber"], q.answer["PageSize"], q.answer["TotalCount"] = number, size, len(all)
	first := min((number-1)*size, len(all))
	return all[first:min(first+size, len(all))]
}

// number reads a parameter that has digits alone, by its format.
func (q *request) number(parameter string, otherwise int) int {
	if value, err := strconv.Atoi(q.Parameters[parameter]); err == nil {
		return value
	}
	return otherwise
}

// selector is all the criteria of a call together, among them the caller's account. Bounds are inclusive, all
// tags have to fit, and one without a value asks for its key alone.
func (q *request) selector() func(*Image) bool {
	tags, bounds := q.numbered("Tag"), q.numbered("Filter")
	start, end := bounds["CreationStartTime"], cmp.Or(bounds["CreationEndTime"], "forever")
	wanted := maps.Clone(q.Parameters)
	wanted["Status"] = cmp.Or(wanted["Status"], available)
	return func(i *Image) bool {
		for parameter, matches := range criteria {
			if want := wanted[parameter]; want != "" && !matches(i, want) {
				return false
			}
		}
		for key, want := range tags {
			if value, found := i.Tags[key]; !found || want != "" && want != value {
				return false
			}
		}
		created := i.CreationTime.Format(minutes)
		return i.AccountID == q.AccountID && start <= created && created <= end
	}
}

// numbered returns the parameters prefix.N.Value by their prefix.N.Key.
func (q *request) numbered(prefix string) map[string]string {
	values := map[string]string{}
	for n := 1; n <= 20; n++ {
		name := fmt.Sprintf("%s.%d.", prefix, n)
		if key := q.Parameters[name+"Key"]; key != "" {
			values[key] = q.Parameters[name+"Value"]
		}
	}
	return values
}

// entry is what DescribeImages says of the image.
func (i *Image) entry() object {
	disks, tags := []object{}, []object{}
	for n, id := range i.SnapshotIDs {
		disks = append(disks, object{"SnapshotId": id, "Size": strconv.Itoa(i.SizeGiB), "Format": "", "Progress": "",
			"Device": "/dev/xvd" + string(rune('a'+n)), "Type": pick(n == 0, "system", "data")})
	}
	for _, key := range slices.Sorted(maps.Keys(i.Tags)) {
		tags = append(tags, object{"TagKey": key, "TagValue": i.Tags[key]})
	}
	return object{
		"ImageId": i.ImageID, "ImageName": i.Name, "ImageFamily": i.Family, "ImageVersion": "", "Description": "",
		"CreationTime": i.CreationTime.Format(time.RFC3339), "Status": i.status(), "Usage": i.usage(),
		"Progress": pick(i.status() == creating, "0%", "100%"), "Size": i.SizeGiB, "IsCopied": i.Copying > 0,
		"IsSelfShared": pick(len(i.SharedWith) > 0, "True", ""), "IsPublic": i.Public, "ImageOwnerAlias": "self",
		"ImageOwnerId": json.Number(i.AccountID), "Platform": "Aliyun", "OSName": "Alibaba Cloud Linux 3 64 bit",
		"OSType": "linux", "Architecture": "x86_64", "ResourceGroupId": i.ResourceGroupID,
		"DiskDeviceMappings": object{"DiskDeviceMapping": disks}, "Tags": object{"Tag": tags},
	}
}
