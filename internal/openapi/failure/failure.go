// Package failure holds the error of a call to Alibaba Cloud, for those who judge errors and make no calls.
package failure

import (
	"errors"
	"time"
)

// The codes of failures in which no code came from Alibaba Cloud.
const (
	// CodeNoAnswer stands for a connection that failed and for an answer that did not come in time. The call
	// may have taken effect.
	CodeNoAnswer = "NoAnswer"
	// CodeUnusableAnswer stands for an answer that is neither a success nor an error of the gateway: an HTML
	// page, an empty body, a redirect. The call may have taken effect.
	CodeUnusableAnswer = "UnusableAnswer"
	// CodeEndpointNotFound stands for a host name that was made from a region and does not resolve: there is no
	// such region, or the product is not offered in it. The call had no effect.
	CodeEndpointNotFound = "EndpointNotFound"
)

// Error is a call that did not succeed. Decide on Code and Action only: texts change, and one HTTP status stands
// for many things.
type Error struct {
	// Code is the error code as Alibaba Cloud spells it, or one of the codes above.
	Code string
	// Message is the text that came with it, without any request ID: the same failure has the same text.
	Message string
	// RequestID is what the vendor's support asks for; empty if no answer came.
	RequestID string
	// HTTPStatus is 0 if no answer came.
	HTTPStatus int
	// Action is the operation as RAM policies name it: ecs:DeleteImage. Empty if no operation was called.
	Action string
	// Origin says in words where the access key came from.
	Origin string
	// Wait is the time until a quota that is used up is renewed; 0 unless Code says that the call was throttled.
	Wait time.Duration
	// Cause is the failure of the connection, if that is what it was.
	Cause error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the code of an *Error, "" for nil, and "Other" for any other error.
func CodeOf(err error) string {
	if err == nil {
		return ""
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return "Other"
}
