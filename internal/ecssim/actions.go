package ecssim

import (
	"net/http"
	"strings"
)

// action is an operation of a product. What it requires is checked before it runs.
type action struct {
	version  string
	required []string
	run      func(*Server, *request) (any, *failure)
}

const ecsVersion = "2014-05-26"

// actions are all there is: a new one needs an entry here, and failures for its error codes.
var actions = map[string]action{
	"DeleteImage":    {ecsVersion, []string{"RegionId", "ImageId"}, (*Server).deleteImage},
	"DescribeImages": {ecsVersion, []string{"RegionId"}, (*Server).describeImages},
}

// knownRegions exist besides those that images are put in.
var knownRegions = strings.Fields(`cn-hangzhou cn-shanghai cn-qingdao cn-beijing cn-zhangjiakou cn-huhehaote
	cn-wulanchabu cn-shenzhen cn-heyuan cn-guangzhou cn-chengdu cn-nanjing cn-fuzhou cn-wuhan-lr cn-hongkong
	ap-northeast-1 ap-northeast-2 ap-southeast-1 ap-southeast-3 ap-southeast-5 ap-southeast-6 ap-southeast-7
	us-east-1 us-west-1 na-south-1 eu-west-1 eu-central-1 me-east-1 me-central-1`)

func (q *request) action() (action, *failure) {
	act, known := actions[q.Action]
	switch {
	case q.Method != http.MethodGet && q.Method != http.MethodPost:
		return act, fail("UnsupportedHTTPMethod")
	case q.Action == "":
		return act, fail("MissingParameter", "Action")
	case q.version == "":
		return act, fail("MissingParameter", "Version")
	case !known:
		return act, fail("InvalidAction.NotFound")
	case q.version != act.version:
		return act, fail("InvalidVersion")
	}
	return act, nil
}

func (s *Server) check(q *request, act action) *failure {
	for _, name := range act.required {
		if q.params.Get(name) == "" {
			return fail("MissingParameter", name)
		}
		if name == "RegionId" && !s.regions[q.RegionID] {
			return fail("InvalidRegionId.NotFound")
		}
	}
	return nil
}

type deleteImageResponse struct {
	RequestID string `json:"RequestId" xml:"RequestId"`
}

// deleteImage succeeds at once; DescribeImages may go on showing the image for the scenario's deletionDelay.
// A second deletion in that time succeeds too, and prolongs nothing, whatever was put in its way.
func (s *Server) deleteImage(q *request) (any, *failure) {
	switch strings.ToLower(q.params.Get("Force")) {
	case "", "true", "false":
	default:
		return nil, fail("InvalidParameter", "Force")
	}
	answer := deleteImageResponse{RequestID: q.RequestID}
	image, found := s.images[q.ImageID]
	if !found || image.AccountID != q.AccountID || image.RegionID != q.RegionID {
		if s.settings.UnknownImage == UnknownIgnored {
			return answer, nil
		}
		return nil, fail("InvalidImageId.NotFound")
	}
	if s.deleting[q.ImageID] {
		return answer, nil
	}
	if code := image.obstacle(q.Time, q.Force); code != "" {
		return nil, fail(code)
	}
	image.DeletionTime = q.Time
	s.deleting[q.ImageID] = true
	s.sweep() // without a delay it goes here
	return answer, nil
}
