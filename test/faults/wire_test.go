package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
)

// way is how a call goes wrong.
type way string

const (
	refused    way = "refused"     // fails with an error of the peer, without an effect
	lost       way = "lost"        // takes effect, and another answer arrives
	hung       way = "hung"        // no effect, and no answer before the time limit
	diesBefore way = "dies-before" // the operator dies before the call
	diesAfter  way = "dies-after"  // the call takes effect, and the operator dies
)

// fault makes the nth call of a kind go wrong, counted from 1 over all operators of a world.
type fault struct {
	what   string
	n      int
	way    way
	answer string // for refused and lost; "reset" is none at all
}

func (f fault) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s.%d/%s/%s", f.what, f.n, f.way, f.answer), "/")
}

// hungFor is how long a hung call of the API server takes until the connection breaks. ECS hangs until the operator's own
// time limit.
const hungFor = 1500 * time.Millisecond

// wire counts the calls of a world's operators, and has some go wrong.
type wire struct {
	choose func(what string, n int) (fault, bool)
	quiet  bool // no calls are kept

	mu     sync.Mutex
	counts map[string]int
	order  []string // the kinds of calls, as they were first made
	struck int
	last   time.Time // when the last fault struck, or a call to a hung region began
}

// call counts a call, and returns the fault for it.
func (w *wire) call(what string) (n int, f fault, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts = map[string]int{}
	}
	if w.counts[what] == 0 {
		w.order = append(w.order, what)
	}
	w.counts[what]++
	n = w.counts[what]
	if w.choose != nil {
		if f, ok = w.choose(what, n); ok {
			w.struck++
			w.last = time.Now()
		}
	}
	return n, f, ok
}

func (w *wire) calls() (counts map[string]int, order []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.counts), slices.Clone(w.order)
}

func (w *wire) faults() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.struck
}

// noteHang is for a call to a hung region, which is not a fault.
func (w *wire) noteHang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = time.Now()
}

// sinceFault is how long ago the last fault struck, or a call to a hung region began; very long if there was none.
func (w *wire) sinceFault() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.last)
}

var requestInfo = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

// kubeCall is a request to the API server.
type kubeCall struct {
	*request.RequestInfo
	what string // get-customimages, patch-customimages-status
}

func kubeCallOf(r *http.Request) kubeCall {
	info, err := requestInfo.NewRequestInfo(r)
	if err != nil || !info.IsResourceRequest {
		return kubeCall{&request.RequestInfo{}, "discovery"}
	}
	what := info.Verb + "-" + info.Resource
	if info.Subresource != "" {
		what += "-" + info.Subresource
	}
	return kubeCall{info, what}
}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// transport carries the calls of one operator to the API server.
type transport struct {
	operator *operatorProcess
	next     http.RoundTripper
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	o, c := t.operator, kubeCallOf(r)
	if o.isDead() {
		return nil, errReset
	}
	body := readBody(r)
	n, f, faulty := o.world.wire.call(c.what)
	name := fmt.Sprintf("%s.%d %s", c.what, n, c.Name)
	if faulty {
		o.world.tracef("operator %d: %s: fault %s %s", o.number, name, f.way, f.answer)
		switch f.way {
		case refused:
			return kubeAnswer(f.answer, c)
		case hung:
			select {
			case <-time.After(hungFor):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return nil, errReset
		case diesBefore:
			o.die()
			return nil, errReset
		}
	}
	o.world.checkKube(o, c, body)
	done := o.world.users.readBy(o, c)
	response, err := t.next.RoundTrip(narrow(r, c, o.world.namespace, body))
	done()
	if c.Verb != "watch" {
		o.world.tracef("operator %d: %s: %s%s", o.number, name, outcome(response, err), changes(c, body))
	}
	if !faulty || err != nil {
		return response, err
	}
	_ = response.Body.Close() // of a watch, which would never end
	if f.way == diesAfter {
		o.die()
		return nil, errReset
	}
	return kubeAnswer(f.answer, c)
}

func readBody(r *http.Request) []byte {
	if r.Body == nil {
		return nil
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	return body
}

func outcome(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(response.StatusCode)
}

// changes shows what a write is about, on one line.
func changes(c kubeCall, body []byte) string {
	if c.Verb != "patch" {
		return ""
	}
	return " " + string(body[:min(len(body), 300)])
}

// narrow leaves of the cluster only what belongs to the world: many worlds share one API server.
func narrow(r *http.Request, c kubeCall, namespace string, body []byte) *http.Request {
	r = r.Clone(r.Context())
	if body != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if c.Name != "" || c.Verb != "list" && c.Verb != "watch" {
		return r
	}
	switch c.Resource {
	case "customimages":
		r.URL.Path = fmt.Sprintf("/apis/%s/namespaces/%s/customimages", v1alpha1.GroupVersion, namespace)
	case "namespaces":
		query := r.URL.Query()
		query.Set("fieldSelector", "metadata.name="+namespace)
		r.URL.RawQuery = query.Encode()
	}
	return r
}

// kubeAnswers are the errors that an API server gives, by the name that plans have for them. What is not here is a
// connection that breaks.
var kubeAnswers = map[string]func(schema.GroupResource, string) *apierrors.StatusError{
	"403": func(r schema.GroupResource, name string) *apierrors.StatusError {
		return apierrors.NewForbidden(r, name, fmt.Errorf("no rule allows it"))
	},
	"404": func(schema.GroupResource, string) *apierrors.StatusError { // while the definition is established anew
		return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, true)
	},
	"409": func(r schema.GroupResource, name string) *apierrors.StatusError {
		return apierrors.NewConflict(r, name, fmt.Errorf("the object has been modified"))
	},
	"422": func(schema.GroupResource, string) *apierrors.StatusError {
		return apierrors.NewInvalid(schema.GroupKind{}, "", nil)
	},
	"429": func(schema.GroupResource, string) *apierrors.StatusError {
		return apierrors.NewTooManyRequests("too many requests", 1)
	},
	"500": func(schema.GroupResource, string) *apierrors.StatusError {
		return apierrors.NewInternalError(fmt.Errorf("etcdserver: leader changed"))
	},
	"504": func(schema.GroupResource, string) *apierrors.StatusError {
		return apierrors.NewTimeoutError("timed out", 0)
	},
}

func kubeAnswer(name string, c kubeCall) (*http.Response, error) {
	answer, ok := kubeAnswers[name]
	if !ok {
		return nil, errReset
	}
	status := answer(schema.GroupResource{Group: c.APIGroup, Resource: c.Resource}, c.Name).ErrStatus
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	data, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	recorded := httptest.NewRecorder()
	recorded.Header().Set("Content-Type", "application/json")
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		recorded.Header().Set("Retry-After", fmt.Sprint(status.Details.RetryAfterSeconds))
	}
	recorded.WriteHeader(int(status.Code))
	_, _ = recorded.Write(data)
	return recorded.Result(), nil
}

// ecsCall is a call of ECS or STS.
type ecsCall struct {
	action, region, imageID, keyID string
	force, dryRun                  bool
}

func ecsCallOf(r *http.Request) ecsCall {
	query := r.URL.Query()
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	keyID, _, _ := strings.Cut(credential, ",")
	return ecsCall{
		action: r.Header.Get("X-Acs-Action"), region: query.Get("RegionId"), imageID: query.Get("ImageId"), keyID: keyID,
		force: query.Get("Force") == "true", dryRun: query.Get("DryRun") == "true",
	}
}

// ServeHTTP is ECS and STS for one operator.
func (o *operatorProcess) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if o.isDead() {
		panic(http.ErrAbortHandler)
	}
	w, c := o.world, ecsCallOf(r)
	n, f, faulty := w.wire.call(c.action)
	name := fmt.Sprintf("%s.%d %s", c.action, n, c.imageID)
	if faulty {
		w.tracef("operator %d: %s: fault %s %s", o.number, name, f.way, f.answer)
	}
	switch {
	case faulty && f.way == refused:
		w.users.release(o, c.imageID)
		ecsAnswer(rw, f.answer)
		return
	case faulty && f.way == hung || w.hangs(c.region):
		w.users.release(o, c.imageID)
		w.wire.noteHang()
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case faulty && f.way == diesBefore:
		o.die()
		panic(http.ErrAbortHandler)
	}
	w.checkHost(c, r.Host)
	object := w.checkECS(o, c)
	recorded := httptest.NewRecorder()
	w.cloud.Lock()
	w.sim.ServeHTTP(recorded, r)
	w.cloud.Unlock()
	w.users.release(o, c.imageID)
	w.countEffect(object, codeOf(recorded.Body.Bytes()))
	w.tracef("operator %d: %s: %d %s", o.number, name, recorded.Code, codeOf(recorded.Body.Bytes()))
	if !faulty && r.Context().Err() != nil { // the time limit was over: the machine is busy
		w.late.Add(1)
	}
	switch {
	case faulty && f.way == diesAfter:
		o.die()
		panic(http.ErrAbortHandler)
	case faulty: // lost
		ecsAnswer(rw, f.answer)
		return
	}
	w.learn(o, c, recorded)
	for name, values := range recorded.Header() {
		rw.Header()[name] = values
	}
	rw.WriteHeader(recorded.Code)
	_, _ = rw.Write(recorded.Body.Bytes())
}

// checkHost: by their host names, ECS is called in the region of the image, and STS in its own.
func (w *world) checkHost(c ecsCall, host string) {
	want := "ecs-vpc." + c.region + ".aliyuncs.com"
	if c.action == "GetCallerIdentity" || c.action == "AssumeRole" {
		want = "sts-vpc." + region + ".aliyuncs.com"
	}
	if w.vpc && host != want {
		w.violatedf("%s is sent to %s, and not to %s", c.action, host, want)
	}
}

func codeOf(body []byte) string {
	var answer struct{ Code string }
	_ = json.Unmarshal(body, &answer) // a success has none
	return answer.Code
}

// ecsAnswer gives one of the wrong answers that plans have names for. What is not here is a connection that breaks.
func ecsAnswer(rw http.ResponseWriter, name string) {
	refuse := func(status int, code string) {
		rw.Header().Set("Content-Type", "application/json;charset=utf-8")
		rw.WriteHeader(status)
		_, _ = fmt.Fprintf(rw, `{"RequestId":"F-1","Code":%q,"Message":"The request was refused."}`, code)
	}
	switch name {
	case "500":
		refuse(http.StatusInternalServerError, "InternalError")
	case "throttled":
		rw.Header().Set("X-Acs-Retry-After", "300")
		refuse(http.StatusBadRequest, "Throttling")
	case "403":
		refuse(http.StatusForbidden, "Forbidden.RAM")
	case "html":
		rw.Header().Set("Content-Type", "text/html")
		rw.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(rw, "<html><body><h1>Bad Gateway</h1></body></html>")
	case "truncated":
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Length", "400")
		_, _ = io.WriteString(rw, `{"RequestId":"F-1","TotalCount":0,"Images":{"Ima`)
		panic(http.ErrAbortHandler)
	default:
		panic(http.ErrAbortHandler)
	}
}
