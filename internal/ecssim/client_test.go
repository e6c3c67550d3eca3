package ecssim_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	account = "1234567890123456"
	region  = "cn-hangzhou"
)

var noon = time.Date(2024, 1, 2, 12, 0, 0, 0, time.UTC)

// simulator is a server with its clock held at noon, and a client that signs as the published documentation
// of the two signatures says.
type simulator struct {
	*ecssim.Server
	t     *testing.T
	clock *clocktesting.FakeClock
}

func start(t *testing.T, images ...ecssim.Image) simulator {
	t.Helper()
	return startScenario(t, ecssim.Scenario{Images: images})
}

func startScenario(t *testing.T, s ecssim.Scenario) simulator {
	t.Helper()
	s.AccountID = account
	s.AccessKeys = append(s.AccessKeys, ecssim.AccessKey{ID: "demo-id", Secret: "demo-secret"})
	clk := clocktesting.NewFakeClock(noon)
	server, err := ecssim.New(s, clk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return simulator{server, t, clk}
}

func image(id string, change ...func(*ecssim.Image)) ecssim.Image {
	i := ecssim.Image{ImageID: id, RegionID: region}
	for _, c := range change {
		c(&i)
	}
	return i
}

// params are the parameters of an action, as "ImageId=m-bp1&Force=true", in the test region.
func params(query string) url.Values {
	values, err := url.ParseQuery(query)
	if err != nil {
		panic(err)
	}
	if !values.Has("RegionId") {
		values.Set("RegionId", region)
	}
	return values
}

// answer is a reply, and the fields of it that the actions and errors have.
type answer struct {
	status                           int
	header                           http.Header
	body                             string
	RequestID                        string `json:"RequestId" xml:"RequestId"`
	HostID                           string `json:"HostId" xml:"HostId"`
	Code, Message, Recommend         string
	PageNumber, PageSize, TotalCount int
	Images                           struct {
		Image []struct {
			ImageID string `json:"ImageId" xml:"ImageId"`
		}
	}
	Instances struct {
		Instance []struct {
			InstanceID string `json:"InstanceId" xml:"InstanceId"`
			ImageID    string `json:"ImageId" xml:"ImageId"`
			Status     string
		}
	}
	NextToken string
	Accounts  struct {
		Account []struct {
			AliyunID json.Number `json:"AliyunId" xml:"AliyunId"`
		}
	}
	IdentityType, Arn string
	AccountID         string `json:"AccountId" xml:"AccountId"`
	UserID            string `json:"UserId" xml:"UserId"`
	RoleID            string `json:"RoleId" xml:"RoleId"`
	PrincipalID       string `json:"PrincipalId" xml:"PrincipalId"`
	Credentials       struct {
		AccessKeyID     string `json:"AccessKeyId" xml:"AccessKeyId"`
		AccessKeySecret string
		SecurityToken   string
		Expiration      time.Time
	}
	AssumedRoleUser struct {
		Arn           string
		AssumedRoleID string `json:"AssumedRoleId" xml:"AssumedRoleId"`
	}
	XMLName xml.Name `json:"-"`
}

func (a answer) ids() string {
	var ids []string
	for _, i := range a.Images.Image {
		ids = append(ids, i.ImageID)
	}
	return strings.Join(ids, " ")
}

func (s simulator) do(r *http.Request) answer {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), body: w.Body.String()}
	var err error
	switch kind := w.Header().Get("Content-Type"); kind {
	case "application/json;charset=utf-8":
		err = json.Unmarshal([]byte(a.body), &a)
	case "text/xml;charset=utf-8":
		err = xml.Unmarshal([]byte(a.body), &a)
	default:
		err = fmt.Errorf("content type %q", kind)
	}
	if err != nil {
		s.t.Fatalf("answer %d %q: %v", a.status, a.body, err)
	}
	return a
}

// last is the record of the latest call.
func (s simulator) last() ecssim.Call {
	calls := s.Calls()
	return calls[len(calls)-1]
}

var nonces atomic.Int64

func nonce() string { return fmt.Sprintf("nonce-%d", nonces.Add(1)) }

// v3 makes a call with a V3 signature and the parameters in the query.
func (s simulator) v3(action, query string) answer {
	s.t.Helper()
	return s.do(signV3(s.newV3(http.MethodPost, action, query, ""), "demo-id", "demo-secret", ""))
}

// as makes a call with a V3 signature of another key.
func (s simulator) as(key ecssim.AccessKey, action, query string) answer {
	s.t.Helper()
	r := s.newV3(http.MethodPost, action, query, "")
	if key.SecurityToken != "" {
		r.Header.Set("X-Acs-Security-Token", key.SecurityToken)
	}
	return s.do(signV3(r, key.ID, key.Secret, ""))
}

// version is that of the action's service.
func version(action string) string {
	if strings.HasPrefix(action, "AssumeRole") || action == "GetCallerIdentity" {
		return "2015-04-01"
	}
	return "2014-05-26"
}

func newRequest(method, target, body string) *http.Request {
	return httptest.NewRequestWithContext(context.Background(), method, target, strings.NewReader(body))
}

func (s simulator) newV3(method, action, query, body string) *http.Request {
	return s.headersV3(newRequest(method, "http://ecs.test/?"+params(query).Encode(), body), action)
}

func (s simulator) headersV3(r *http.Request, action string) *http.Request {
	r.Header.Set("X-Acs-Action", action)
	r.Header.Set("X-Acs-Version", version(action))
	r.Header.Set("X-Acs-Date", s.clock.Now().UTC().Format("2006-01-02T15:04:05Z"))
	r.Header.Set("X-Acs-Signature-Nonce", nonce())
	return r
}

// signV3 signs host, content-type and every x-acs-* header.
func signV3(r *http.Request, id, secret, body string) *http.Request {
	sum := sha256.Sum256([]byte(body))
	r.Header.Set("X-Acs-Content-Sha256", hex.EncodeToString(sum[:]))
	headers := map[string]string{"host": r.Host}
	for name := range r.Header {
		if lower := strings.ToLower(name); lower == "content-type" || strings.HasPrefix(lower, "x-acs-") {
			headers[lower] = r.Header.Get(name)
		}
	}
	var names []string
	for name := range headers {
		names = append(names, name)
	}
	sort.Strings(names)
	canonical := r.Method + "\n/\n" + strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20") + "\n"
	for _, name := range names {
		canonical += name + ":" + headers[name] + "\n"
	}
	canonical += "\n" + strings.Join(names, ";") + "\n" + hex.EncodeToString(sum[:])
	hashed := sha256.Sum256([]byte(canonical))
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte("ACS3-HMAC-SHA256\n" + hex.EncodeToString(hashed[:])))
	r.Header.Set("Authorization", fmt.Sprintf("ACS3-HMAC-SHA256 Credential=%s,SignedHeaders=%s,Signature=%x",
		id, strings.Join(names, ";"), m.Sum(nil)))
	return r
}

// v1 makes a call with a V1 signature and the parameters in the query.
func (s simulator) v1(action, query, format string) answer {
	s.t.Helper()
	p := s.paramsV1(action, query)
	p.Set("Format", format)
	return s.do(requestV1(http.MethodGet, signV1(http.MethodGet, p, "demo-secret")))
}

func (s simulator) paramsV1(action, query string) url.Values {
	p := params(query)
	for name, value := range map[string]string{
		"Action": action, "Version": version(action), "AccessKeyId": "demo-id", "SignatureMethod": "HMAC-SHA1",
		"SignatureVersion": "1.0", "SignatureNonce": nonce(), "SignatureType": "",
		"Timestamp": s.clock.Now().UTC().Format("2006-01-02T15:04:05Z"),
	} {
		p.Set(name, value)
	}
	return p
}

func signV1(method string, p url.Values, secret string) url.Values {
	encode := func(s string) string { return strings.ReplaceAll(s, "+", "%20") }
	m := hmac.New(sha1.New, []byte(secret+"&"))
	m.Write([]byte(method + "&%2F&" + encode(url.QueryEscape(encode(p.Encode())))))
	p.Set("Signature", base64.StdEncoding.EncodeToString(m.Sum(nil)))
	return p
}

// requestV1 puts the parameters into the query of a GET and the form of a POST.
func requestV1(method string, p url.Values) *http.Request {
	if method == http.MethodGet {
		return newRequest(method, "http://ecs.test/?"+p.Encode(), "")
	}
	r := newRequest(method, "http://ecs.test/", p.Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	return r
}
