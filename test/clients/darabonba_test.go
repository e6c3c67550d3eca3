package clients

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	"github.com/alibabacloud-go/darabonba-openapi/v2/models"
	"github.com/alibabacloud-go/tea/dara"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// darabonba is the vendor's current SDK, by its generic call.
type darabonba struct {
	client *openapi.Client
	region string
}

func newDarabonba(t *testing.T, host string, key ecssim.AccessKey) caller {
	t.Helper()
	config := &models.Config{
		AccessKeyId: &key.ID, AccessKeySecret: &key.Secret, Endpoint: &host, Protocol: dara.String("http"),
	}
	if key.SecurityToken != "" {
		config.SecurityToken = &key.SecurityToken
	}
	client, err := openapi.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.DisableSDKError = dara.Bool(true) // or the time to wait is lost
	return &darabonba{client: client, region: region}
}

func (d *darabonba) setRegion(id string) { d.region = id }

func (d *darabonba) call(action string, query map[string]string) (map[string]any, error) {
	request := &models.OpenApiRequest{Query: map[string]*string{"RegionId": &d.region}}
	for name, value := range query {
		request.Query[name] = &value
	}
	return d.do(action, "2014-05-26", "AK", request)
}

func (d *darabonba) do(
	action, version, auth string, request *models.OpenApiRequest,
) (map[string]any, error) {
	params := &models.Params{
		Action: &action, Version: &version, Protocol: dara.String("http"), Pathname: dara.String("/"),
		Method: dara.String(http.MethodPost), AuthType: &auth, Style: dara.String("RPC"),
		ReqBodyType: dara.String("formData"), BodyType: dara.String("json"),
	}
	result, err := d.client.CallApi(params, request, &dara.RuntimeOptions{})
	if err != nil {
		return nil, darabonbaRefusal(err)
	}
	return result["body"].(map[string]any), nil
}

func darabonbaRefusal(err error) error {
	var r refusal
	if throttled := (*openapi.ThrottlingError)(nil); errors.As(err, &throttled) {
		r.requestID, r.wait = *throttled.RequestId, time.Duration(*throttled.RetryAfter)*time.Millisecond
	} else if refused := (*openapi.ClientError)(nil); errors.As(err, &refused) {
		r.requestID = *refused.RequestId
	}
	if answered := dara.ResponseError(nil); errors.As(err, &answered) {
		r.status, r.code, r.message = *answered.GetStatusCode(), *answered.GetCode(), answered.Error()
		return r
	}
	return err
}

func (d *darabonba) deleteImage(imageID string, force bool) (string, error) {
	body, err := d.call("DeleteImage", map[string]string{"ImageId": imageID, "Force": strconv.FormatBool(force)})
	if err != nil {
		return "", err
	}
	return dara.ToString(body["RequestId"]), nil
}

func (d *darabonba) describeImages(page, size int) (int, []string, error) {
	body, err := d.call("DescribeImages", map[string]string{
		"PageNumber": strconv.Itoa(page), "PageSize": strconv.Itoa(size), "Status": "ALL",
	})
	if err != nil {
		return 0, nil, err
	}
	var ids []string
	for _, image := range body["Images"].(map[string]any)["Image"].([]any) {
		ids = append(ids, image.(map[string]any)["ImageId"].(string))
	}
	total, err := body["TotalCount"].(json.Number).Int64()
	return int(total), ids, err
}

func (d *darabonba) describeInstances(imageID, token string, size int) (string, []string, error) {
	body, err := d.call("DescribeInstances", map[string]string{
		"ImageId": imageID, "NextToken": token, "MaxResults": strconv.Itoa(size),
	})
	if err != nil {
		return "", nil, err
	}
	var ids []string
	for _, instance := range body["Instances"].(map[string]any)["Instance"].([]any) {
		ids = append(ids, instance.(map[string]any)["InstanceId"].(string))
	}
	return body["NextToken"].(string), ids, nil
}

func (d *darabonba) callerIdentity() (string, string, error) {
	body, err := d.do("GetCallerIdentity", "2015-04-01", "AK", &models.OpenApiRequest{})
	if err != nil {
		return "", "", err
	}
	return body["AccountId"].(string), body["Arn"].(string), nil
}

// signedRequest is what a client sent: all that its Authorization was computed from.
type signedRequest struct {
	method        string
	host          string
	query         url.Values
	headers       map[string]string // by their names in lower case, without host and authorization
	authorization string
}

// captureDarabonba has darabonba make a POST of an ECS action, and returns what it sent. RegionId is in the
// query beside the parameters.
func captureDarabonba(t *testing.T, key ecssim.AccessKey, action string, parameters map[string]string) signedRequest {
	t.Helper()
	var sent signedRequest
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = signedRequest{
			method: r.Method, host: r.Host, query: r.URL.Query(), headers: map[string]string{},
			authorization: r.Header.Get("Authorization"),
		}
		for name := range r.Header {
			if name != "Authorization" {
				sent.headers[strings.ToLower(name)] = r.Header.Get(name)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"RequestId":"captured"}`))
	}))
	defer server.Close()
	client := newDarabonba(t, strings.TrimPrefix(server.URL, "http://"), key).(*darabonba)
	if _, err := client.call(action, parameters); err != nil {
		t.Fatal(err)
	}
	return sent
}

func TestWhatDarabonbaSignsIsCapturedWhole(t *testing.T) {
	got := captureDarabonba(t, goodKey, "DeleteImage", map[string]string{"ImageId": "m-bp1"})
	if got.method != "POST" || got.query.Encode() != "ImageId=m-bp1&RegionId=cn-hangzhou" || got.host == "" {
		t.Errorf("got %+v", got)
	}
	_, list, _ := strings.Cut(got.authorization, "SignedHeaders=")
	list, signature, _ := strings.Cut(list, ",Signature=")
	if len(signature) != 64 {
		t.Errorf("Authorization: %s", got.authorization)
	}
	for _, name := range strings.Split(list, ";") {
		if _, found := got.headers[name]; !found && name != "host" {
			t.Errorf("%s is signed and was not captured", name)
		}
	}
}
