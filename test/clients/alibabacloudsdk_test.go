package clients

import (
	"encoding/xml"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ecs"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// sdk is the vendor's former SDK, by its typed calls.
type sdk struct {
	client               *ecs.Client
	sts                  *sts.Client
	host, format, region string
}

func newSDK(format string) func(*testing.T, string, ecssim.AccessKey) caller {
	return func(t *testing.T, host string, key ecssim.AccessKey) caller {
		t.Helper()
		client, err := ecs.NewClientWithAccessKey(region, key.ID, key.Secret)
		if err != nil {
			t.Fatal(err)
		}
		identity, err := sts.NewClientWithAccessKey(region, key.ID, key.Secret)
		if err != nil {
			t.Fatal(err)
		}
		return &sdk{client: client, sts: identity, host: host, format: format, region: region}
	}
}

func (s *sdk) setRegion(id string) { s.region = id }

func (s *sdk) direct(request *requests.RpcRequest) {
	request.Scheme, request.Domain, request.AcceptFormat, request.RegionId = "http", s.host, s.format, s.region
}

func (s *sdk) deleteImage(imageID string, force bool) (string, error) {
	request := ecs.CreateDeleteImageRequest()
	s.direct(request.RpcRequest)
	request.ImageId, request.Force = imageID, requests.NewBoolean(force)
	response, err := s.client.DeleteImage(request)
	if err != nil {
		return "", sdkRefusal(err)
	}
	return response.RequestId, nil
}

func (s *sdk) describeImages(page, size int) (int, []string, error) {
	request := ecs.CreateDescribeImagesRequest()
	s.direct(request.RpcRequest)
	request.PageNumber, request.PageSize = requests.NewInteger(page), requests.NewInteger(size)
	response, err := s.client.DescribeImages(request)
	if err != nil {
		return 0, nil, sdkRefusal(err)
	}
	var ids []string
	for _, image := range response.Images.Image {
		ids = append(ids, image.ImageId)
	}
	return response.TotalCount, ids, nil
}

func (s *sdk) describeInstances(imageID, token string, size int) (string, []string, error) {
	request := ecs.CreateDescribeInstancesRequest()
	s.direct(request.RpcRequest)
	request.ImageId, request.NextToken, request.MaxResults = imageID, token, requests.NewInteger(size)
	response, err := s.client.DescribeInstances(request)
	if err != nil {
		return "", nil, sdkRefusal(err)
	}
	var ids []string
	for _, instance := range response.Instances.Instance {
		ids = append(ids, instance.InstanceId)
	}
	return response.NextToken, ids, nil
}

func (s *sdk) callerIdentity() (string, string, error) {
	request := sts.CreateGetCallerIdentityRequest()
	s.direct(request.RpcRequest)
	response, err := s.sts.GetCallerIdentity(request)
	if err != nil {
		return "", "", sdkRefusal(err)
	}
	return response.AccountId, response.Arn, nil
}

var timeLeft = regexp.MustCompile(`TimeLeft:(\d+)`)

// sdkRefusal reads an XML error from the message: the SDK hands it on without looking into it.
func sdkRefusal(err error) error {
	var answered *sdkerrors.ServerError
	if !errors.As(err, &answered) {
		return err
	}
	r := refusal{answered.HttpStatus(), answered.ErrorCode(), answered.Message(), answered.RequestId(), 0}
	if strings.HasPrefix(r.message, "<?xml") {
		var body struct {
			Code, Message string
			RequestID     string `xml:"RequestId"`
		}
		if err := xml.Unmarshal([]byte(r.message), &body); err != nil {
			return err
		}
		r.code, r.message, r.requestID = body.Code, body.Message, body.RequestID
	}
	header := http.Header(answered.RespHeaders).Get("x-ratelimit-user-api")
	if left := timeLeft.FindStringSubmatch(header); left != nil {
		milliseconds, _ := strconv.Atoi(left[1])
		r.wait = time.Duration(milliseconds) * time.Millisecond
	}
	return r
}
