package ecssim

import (
	"cmp"
	"fmt"
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

// Fault makes calls go wrong that the gateway has let in. An empty Action or ImageID stands for any.
type Fault struct {
	Action  string `json:"action,omitempty"`
	ImageID string `json:"imageID,omitempty"`
	// Code of FaultBefore is InternalError by default, and need not be one that the simulator knows.
	Code string `json:"code,omitempty"`
	// HTTPStatus is by default the documented one of Code, else 400.
	HTTPStatus int `json:"httpStatus,omitempty"`
	// Times is how many calls it strikes: 0 stands for one, a negative number for all to come.
	Times int       `json:"times,omitempty"`
	Kind  FaultKind `json:"kind,omitempty"`
}

// AddFault puts a fault behind those that are already there; the first that matches strikes. An error names
// the field at fault.
func (s *Server) AddFault(fault Fault) error {
	fault.Kind, fault.Times = cmp.Or(fault.Kind, FaultBefore), cmp.Or(fault.Times, 1)
	kinds := []FaultKind{FaultBefore, FaultAfter, FaultHang, FaultGarbage, FaultEmpty, FaultNoRequestID}
	_, known := actions[fault.Action]
	switch {
	case fault.Action != "" && !known:
		return fmt.Errorf("action: %q is not known", fault.Action)
	case !slices.Contains(kinds, fault.Kind):
		return fmt.Errorf("kind: %q is none of %v", fault.Kind, kinds)
	case fault.HTTPStatus != 0 && (fault.HTTPStatus < 200 || fault.HTTPStatus > 599):
		return fmt.Errorf("httpStatus: %d is not between 200 and 599", fault.HTTPStatus)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fault)
	return nil
}

// Faults returns those that have not struck as often as they should.
func (s *Server) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Fault{}, s.faults...)
}

// ClearFaults takes away all faults; calls that one of them holds stay held.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// strike finds the fault for a call, and uses it up by one.
func (s *Server) strike(q *request) *Fault {
	n := slices.IndexFunc(s.faults, func(f Fault) bool {
		return cmp.Or(f.Action, q.Action) == q.Action && cmp.Or(f.ImageID, q.ImageID) == q.ImageID
	})
	if n < 0 {
		return nil
	}
	struck := s.faults[n]
	if s.faults[n].Times--; s.faults[n].Times == 0 {
		s.faults = slices.Delete(s.faults, n, n+1)
	}
	return &struck
}

// failure is what the record of the call says, and for FaultBefore the answer.
func (f *Fault) failure() *failure {
	if f.Kind != FaultBefore {
		return &failure{code: cmp.Or(f.Code, string(f.Kind))}
	}
	code := cmp.Or(f.Code, "InternalError")
	known := failures[code]
	return &failure{
		status: cmp.Or(f.HTTPStatus, known.status, http.StatusBadRequest), code: code,
		message: cmp.Or(known.message, "The request was refused."),
	}
}

// breakAnswer gives what is no answer of the gateway.
func (s *Server) breakAnswer(w http.ResponseWriter, r *http.Request, q *request) {
	status := q.fault.HTTPStatus
	switch q.fault.Kind {
	case FaultHang:
		s.wait(r.Context(), Forever)
	case FaultGarbage:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(cmp.Or(status, http.StatusBadGateway))
		_, _ = io.WriteString(w, "<html><body><h1>Bad Gateway</h1></body></html>\n")
		return
	case FaultEmpty:
		if status/100 == 3 {
			w.Header().Set("Location", "/_sim/state") // whoever follows finds a 200
		}
		w.WriteHeader(cmp.Or(status, http.StatusOK))
		return
	case FaultNoRequestID:
		q.write(w, cmp.Or(status, http.StatusOK), q.Action+"Response", struct{}{})
		return
	}
	panic(http.ErrAbortHandler) // the server closes the connection, and logs nothing
}
