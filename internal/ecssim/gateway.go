package ecssim

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	ecsVersion = "2014-05-26"
	stsVersion = "2015-04-01"
)

// Call is the record of one call of an action, in the order in which they took effect.
type Call struct {
	Time   time.Time `json:"time"`
	Action string    `json:"action"`
	Method string    `json:"method"`
	// Parameters are those in query and form, in V1 with the gateway's. Of a token it only says that there was one.
	Parameters map[string]string `json:"parameters,omitempty"`
	RegionID   string            `json:"regionID,omitempty"`
	ImageID    string            `json:"imageID,omitempty"`
	Force      bool              `json:"force,omitempty"`
	// DryRun is set if the call asks for a dry run, even of an action that ignores it.
	DryRun bool `json:"dryRun,omitempty"`
	// AccessKeyID is as the call claims. AccountID is set when its signature is valid.
	AccessKeyID    string `json:"accessKeyID,omitempty"`
	AccountID      string `json:"accountID,omitempty"`
	SignatureValid bool   `json:"signatureValid"`
	RequestID      string `json:"requestID"`
	// Code is the error or the fault, "" if the call took effect.
	Code string `json:"code"`
	// Fault is the kind of the fault that struck the call, if one did.
	Fault FaultKind `json:"fault,omitempty"`
}

// request is a call under way, and its answer.
type request struct {
	Call
	http    *http.Request
	body    string
	version string
	proof   proof
	// unsigned is a call that needs no signature, and has none.
	unsigned bool
	caller   identity
	xml      bool // the form of the answer

	header http.Header // of the answer
	answer object      // without the RequestId
	fault  Fault
}

// newRequest reads a call. Only the Authorization header tells V3 from V1, since V1 clients too send x-acs-* headers,
// unsigned. V3 is answered in JSON, V1 in the Format that it asks for, which is XML by default. A call with no
// signature at all may name its action either way. One that cannot be read whole fails by its signature.
func newRequest(r *http.Request, header http.Header) *request {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	_ = r.ParseForm()
	q := &request{http: r, body: string(body), header: header, answer: object{}}
	q.Method, q.RequestID, q.Parameters = r.Method, newRequestID(), map[string]string{}
	for name := range r.Form {
		q.Parameters[name] = r.Form.Get(name)
		if q.Parameters[name] != "" && slices.Contains(secrets, name) {
			q.Parameters[name] = "…"
		}
	}
	q.RegionID, q.ImageID = q.Parameters["RegionId"], q.Parameters["ImageId"]
	q.Force = strings.EqualFold(q.Parameters["Force"], "true")
	q.DryRun = strings.EqualFold(q.Parameters["DryRun"], "true")
	if strings.HasPrefix(r.Header.Get("Authorization"), schemeV3) {
		q.Action, q.version = r.Header.Get("X-Acs-Action"), r.Header.Get("X-Acs-Version")
		q.proof = q.proofV3()
		return q
	}
	q.Action, q.version = q.Parameters["Action"], q.Parameters["Version"]
	q.xml = !strings.EqualFold(q.Parameters["Format"], "JSON")
	q.proof = q.proofV1()
	if r.Header.Get("Authorization")+q.Parameters["Signature"]+q.Parameters["AccessKeyId"] == "" {
		if q.Action == "" && r.Header.Get("X-Acs-Action") != "" {
			q.Action, q.version, q.xml = r.Header.Get("X-Acs-Action"), r.Header.Get("X-Acs-Version"), false
		}
		q.unsigned = q.Action == withOIDC
	}
	return q
}

// secrets are the parameters that no record may hold.
var secrets = []string{"OIDCToken", "SecurityToken"}

func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// serveCall answers a call of an action.
func (s *Server) serveCall(w http.ResponseWriter, r *http.Request) {
	q := newRequest(r, w.Header())
	failed, latency := s.process(q)
	s.wait(r.Context(), latency)
	switch {
	case q.Fault != "" && q.Fault != FaultBefore:
		s.breakAnswer(w, r, q)
	case failed != nil:
		q.answer = object{"RequestId": q.RequestID, "HostId": r.Host, "Code": failed.code, "Message": failed.message}
		if !q.xml {
			q.answer["Recommend"] = "https://error-center.aliyun.com/status/search?Keyword=" + failed.code
		}
		q.write(w, failed.status, "Error", q.answer)
	default:
		q.answer["RequestId"] = q.RequestID
		q.write(w, http.StatusOK, q.Action+"Response", q.answer)
	}
}

// process passes a call through the gateway to its action, records it, and returns how long the answer takes.
// A fault strikes only what the gateway lets in.
func (s *Server) process(q *request) (failed *failure, latency Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.Time = s.clock.Now()
	for _, step := range []func(*Server, *request) *failure{
		(*Server).authenticate, (*Server).checkAction, (*Server).throttle, (*Server).authorize,
		(*Server).strike, (*Server).checkFormat, actions[q.Action].do,
	} {
		if failed = step(s, q); failed != nil {
			q.Code = failed.code
			break
		}
	}
	s.calls = append(s.calls, q.Call)
	return failed, s.settings.Latency
}

// checkAction also takes the region from a call of STS, which has none.
func (s *Server) checkAction(q *request) *failure {
	if actions[q.Action].version == stsVersion {
		q.RegionID = ""
	}
	switch {
	case q.Action == "":
		return fail("MissingParameter", "Action")
	case q.version == "":
		return fail("MissingParameter", "Version")
	case !isAction(q.Action), q.Method != http.MethodGet && q.Method != http.MethodPost:
		return fail("InvalidAction.NotFound")
	case q.version != actions[q.Action].version:
		return fail("InvalidVersion")
	}
	return nil
}

// throttle counts a call against its quota. Refused calls do not count.
func (s *Server) throttle(q *request) *failure {
	quota, limited := s.settings.Quotas[q.Action]
	if !limited {
		return nil
	}
	start := q.Time.Truncate(time.Duration(quota.Window))
	window := fmt.Sprintf("%s %s %s %s", q.AccountID, q.RegionID, q.Action, start)
	end := start.Add(time.Duration(quota.Window))
	left := (end.Sub(q.Time) + time.Millisecond - 1).Milliseconds() // rounded up: then it is over
	refused := s.used[window] >= quota.Limit
	if !refused {
		s.used[window]++
	}
	if refused || !s.settings.SilentQuotas {
		limit := fmt.Sprintf("Limit:%d,Remain:%d,TimeLeft:%d,Reset:%d", quota.Limit, quota.Limit-s.used[window], left, end.Unix())
		q.header.Set("X-Ratelimit-User-Api", limit)
		q.header.Set("X-Ratelimit-User", limit)
	}
	if !refused {
		return nil
	}
	q.header.Set("X-Acs-Retry-After", strconv.FormatInt(left, 10))
	return fail("Throttling")
}

// object is what an answer is made of, in JSON and in XML alike; []object in it is a list.
type object map[string]any

// MarshalXML writes an element for each field, in order.
func (o object) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	err := e.EncodeToken(start)
	for _, name := range slices.Sorted(maps.Keys(o)) {
		err = errors.Join(err, e.EncodeElement(o[name], xml.StartElement{Name: xml.Name{Local: name}}))
	}
	return errors.Join(err, e.EncodeToken(start.End()))
}

// write answers; a client that has gone needs none.
func (q *request) write(w http.ResponseWriter, status int, root string, body object) {
	w.Header().Set("X-Acs-Request-Id", q.RequestID)
	if !q.xml {
		w.Header().Set("Content-Type", "application/json;charset=utf-8")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
		return
	}
	w.Header().Set("Content-Type", "text/xml;charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).EncodeElement(body, xml.StartElement{Name: xml.Name{Local: root}})
}
