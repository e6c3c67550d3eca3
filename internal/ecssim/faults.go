package ecssim

import (
	"cmp"
	"io"
	"net/http"
	"slices"
)

// FaultKind is what a fault does to a call.
type FaultKind string

// In each kind but FaultAfter the call is without effect.
const (
	FaultBefore      FaultKind = "before"      // answers with the fault's code; the default
	FaultAfter       FaultKind = "after"       // takes effect, then breaks the connection without an answer
	FaultHang        FaultKind = "hang"        // holds the connection until the client leaves or Close is called
	FaultGarbage     FaultKind = "garbage"     // answers a page of HTML with httpStatus, by default 502
	FaultEmpty       FaultKind = "empty"       // answers no body with httpStatus, by default 200; 3xx is a redirect
	FaultNoRequestID FaultKind = "norequestid" // answers like a success, but with no RequestId in the body
)

// defaultStatus is the HTTP status of a fault that has none of its own, but for FaultBefore.
var defaultStatus = map[FaultKind]int{
	FaultBefore: 0, FaultAfter: 200, FaultHang: 200, FaultGarbage: 502, FaultEmpty: 200, FaultNoRequestID: 200,
}

// Fault makes calls go wrong that the gateway has let in. An empty Action or ImageID stands for any.
type Fault struct {
	Action  string `json:"action,omitempty"`
	ImageID string `json:"imageID,omitempty"`
	// Code of FaultBefore is InternalError by default, and need not be one that the simulator knows. In the
	// other kinds it is for the record alone, and by default the kind.
	Code string `json:"code,omitempty"`
	// HTTPStatus of FaultBefore is by default the documented one of Code, else 400.
	HTTPStatus int `json:"httpStatus,omitempty"`
	// Times is how many calls it strikes: 0 stands for one, a negative number for all to come.
	Times int       `json:"times,omitempty"`
	Kind  FaultKind `json:"kind,omitempty"`
}

// AddFault puts a fault behind those that are already there; the first that matches strikes. An error names
// the field at fault.
func (s *Server) AddFault(fault Fault) error {
	fault.Kind, fault.Times = cmp.Or(fault.Kind, FaultBefore), cmp.Or(fault.Times, 1)
	fault.Code = cmp.Or(fault.Code, pick(fault.Kind == FaultBefore, "InternalError", string(fault.Kind)))
	status, known := defaultStatus[fault.Kind]
	fault.HTTPStatus = cmp.Or(fault.HTTPStatus, status, failures[fault.Code].status, 400)
	err := cmp.Or(
		require(fault.Action == "" || isAction(fault.Action), "action", "a known action", fault.Action),
		require(known, "kind", "a known kind", fault.Kind),
		require(fault.HTTPStatus >= 200 && fault.HTTPStatus <= 599, "httpStatus", "200 to 599", fault.HTTPStatus),
	)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fault)
	return nil
}

// ClearFaults takes away all faults; calls that one of them holds stay held.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// strike uses up by one the fault for a call, if there is one. Its failure is what the record of the call says.
func (s *Server) strike(q *request) *failure {
	n := slices.IndexFunc(s.faults, func(f Fault) bool {
		return cmp.Or(f.Action, q.Action) == q.Action && cmp.Or(f.ImageID, q.ImageID) == q.ImageID
	})
	if n < 0 {
		return nil
	}
	f := s.faults[n]
	if s.faults[n].Times--; s.faults[n].Times == 0 {
		s.faults = slices.Delete(s.faults, n, n+1)
	}
	q.fault, q.Fault = f, f.Kind
	if f.Kind == FaultAfter {
		return nil
	}
	return &failure{f.HTTPStatus, f.Code, cmp.Or(failures[f.Code].message, "The request was refused.")}
}

// breakAnswer gives what is no answer of the gateway.
func (s *Server) breakAnswer(w http.ResponseWriter, r *http.Request, q *request) {
	switch q.fault.Kind {
	case FaultGarbage:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(q.fault.HTTPStatus)
		_, _ = io.WriteString(w, "<html><body><h1>Bad Gateway</h1></body></html>\n")
	case FaultEmpty:
		w.Header().Set("Location", "/_sim/state") // whoever follows a redirect finds a 200
		w.WriteHeader(q.fault.HTTPStatus)
	case FaultNoRequestID:
		q.write(w, q.fault.HTTPStatus, q.Action+"Response", object{})
	default:
		if q.fault.Kind == FaultHang {
			s.wait(r.Context(), Forever)
		}
		panic(http.ErrAbortHandler) // the server closes the connection, and logs nothing
	}
}
