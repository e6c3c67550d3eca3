package ecssim

import (
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Call is the record of one call of an action, in the order in which they took effect.
type Call struct {
	Time   time.Time `json:"time"`
	Action string    `json:"action"`
	Method string    `json:"method"`
	// Parameters are those of the action, without the gateway's.
	Parameters map[string]string `json:"parameters,omitempty"`
	RegionID   string            `json:"regionID,omitempty"`
	ImageID    string            `json:"imageID,omitempty"`
	Force      bool              `json:"force,omitempty"`
	// AccessKeyID is as the call claims. AccountID is set when its signature is valid.
	AccessKeyID    string `json:"accessKeyID,omitempty"`
	AccountID      string `json:"accountID,omitempty"`
	SignatureValid bool   `json:"signatureValid"`
	RequestID      string `json:"requestID"`
	// Code is the error, "" if the call took effect. A fault without effect and code leaves its kind here.
	Code string `json:"code"`
	// Fault is the kind of the fault that struck the call, if one did.
	Fault FaultKind `json:"fault,omitempty"`
}

// request is a call under way.
type request struct {
	Call
	v3      bool
	version string
	http    *http.Request
	body    []byte
	params  url.Values // of query and form

	// What becomes of it.
	fault  *Fault
	failed *failure
	answer any
}

const maxBody = 1 << 20

// gatewayParameters are a V1 call's own, and none of the action's.
var gatewayParameters = []string{"Action", "Version", "Format", "AccessKeyId", "SecurityToken", "Timestamp",
	"Signature", "SignatureMethod", "SignatureVersion", "SignatureNonce", "SignatureType"}

// newRequest reads a call. Only the Authorization header tells V3 from V1, since V1 clients too send x-acs-*
// headers, unsigned.
func newRequest(r *http.Request) (*request, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	q := &request{http: r, body: body, params: r.URL.Query()}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		for key, values := range form {
			q.params[key] = append(q.params[key], values...)
		}
	}
	q.Method, q.RequestID = r.Method, newRequestID()
	q.Action, q.version = q.params.Get("Action"), q.params.Get("Version")
	if q.v3 = strings.HasPrefix(r.Header.Get("Authorization"), schemeV3); q.v3 {
		q.Action, q.version = r.Header.Get("X-Acs-Action"), r.Header.Get("X-Acs-Version")
	}
	q.RegionID, q.ImageID = q.params.Get("RegionId"), q.params.Get("ImageId")
	q.Force = strings.EqualFold(q.params.Get("Force"), "true")
	q.Parameters = map[string]string{}
	for key := range q.params {
		if !slices.Contains(gatewayParameters, key) {
			q.Parameters[key] = q.params.Get(key)
		}
	}
	return q, nil
}

func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// number is an integer parameter between 1 and highest.
func (q *request) number(name string, byDefault, highest int) (int, *failure) {
	text := q.params.Get(name)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > highest {
		return 0, fail("InvalidParameter", name)
	}
	return n, nil
}

type errorBody struct {
	RequestID string `json:"RequestId" xml:"RequestId"`
	HostID    string `json:"HostId" xml:"HostId"`
	Code      string
	Message   string
	Recommend string `xml:"-"`
}

func (q *request) writeFailure(w http.ResponseWriter) {
	f := q.failed
	for name := range f.header {
		w.Header().Set(name, f.header.Get(name))
	}
	q.write(w, f.status, "Error", errorBody{
		RequestID: q.RequestID, HostID: q.http.Host, Code: f.code, Message: f.message,
		Recommend: "https://error-center.aliyun.com/status/search?Keyword=" + url.QueryEscape(f.code) + "&source=PopGw",
	})
}

// write answers in JSON for V3, and in the Format that a V1 call asks for, which is XML by default.
func (q *request) write(w http.ResponseWriter, status int, root string, body any) {
	w.Header().Set("x-acs-request-id", q.RequestID)
	if q.v3 || strings.EqualFold(q.params.Get("Format"), "JSON") {
		w.Header().Set("Content-Type", "application/json;charset=utf-8")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // a client that has gone needs no answer
		return
	}
	w.Header().Set("Content-Type", "text/xml;charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).EncodeElement(body, xml.StartElement{Name: xml.Name{Local: root}})
}
