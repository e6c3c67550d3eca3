package openapi

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
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
)

// What is kept of an error's code and text, in bytes: a status has to hold them.
const (
	maxCode    = 128
	maxMessage = 512
)

// Error is a call that did not succeed. Decide on Code alone: texts change, and one HTTP status stands for
// many things.
type Error struct {
	// Code is the error code as Alibaba Cloud spells it, or one of the codes above.
	Code string
	// Message is the text that came with it, without any request ID: the same failure has the same text.
	Message string
	// RequestID is what the vendor's support asks for; empty if no answer came.
	RequestID string
	// HTTPStatus is 0 if no answer came.
	HTTPStatus int
	// Action is what was asked for, as RAM policies name it: ecs:DeleteImage. Empty if nothing was.
	Action string
	// Origin says in words where the access key came from.
	Origin string
	// Wait is how long a used-up quota stays so; 0 unless Code says that the call was throttled.
	Wait time.Duration

	cause error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// of adds what the error is about.
func (e *Error) of(call Call) *Error {
	e.Action, e.Origin = call.Product+":"+call.Action, call.Credentials.Origin
	return e
}

// Unwrap returns the failure of the connection, if that is what it was.
func (e *Error) Unwrap() error { return e.cause }

// ErrorCode returns the code of an *Error, "" for nil, and "Other" for any other error.
func ErrorCode(err error) string {
	if err == nil {
		return ""
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return "Other"
}

// envelope is what every answer of the gateway has, in either form.
type envelope struct {
	RequestID string `json:"RequestId" xml:"RequestId"`
	Code      string `json:"Code" xml:"Code"`
	Message   string `json:"Message" xml:"Message"`
}

// decode tells a success from everything else: its status is 2xx, and its body has a RequestId and no Code.
func decode(response *http.Response, body []byte, call Call, out any) (string, error) {
	var answer envelope
	parsed := unmarshal(body, &answer)
	switch {
	case parsed == nil && answer.Code != "":
		return "", &Error{
			Code:       cut(hide(answer.Code, call), maxCode),
			Message:    stableText(answer.Message, answer.RequestID, call),
			RequestID:  hide(answer.RequestID, call),
			HTTPStatus: response.StatusCode,
			Wait:       throttleWait(response.Header),
		}
	case parsed == nil && answer.RequestID != "" && response.StatusCode/100 == 2:
		if out == nil {
			return answer.RequestID, nil
		}
		if err := unmarshal(body, out); err != nil {
			return "", unusable(response, answer.RequestID, "an answer of an unexpected form")
		}
		return answer.RequestID, nil
	case len(body) == 0:
		return "", unusable(response, "", "an empty body")
	default:
		return "", unusable(response, answer.RequestID, "a body that is no answer of the gateway")
	}
}

func unusable(response *http.Response, requestID, what string) error {
	return &Error{
		Code:       CodeUnusableAnswer,
		Message:    fmt.Sprintf("HTTP %d with %s.", response.StatusCode, what),
		RequestID:  requestID,
		HTTPStatus: response.StatusCode,
	}
}

// unmarshal reads JSON or XML, whichever the body is: the gateway's content types are not reliable.
func unmarshal(body []byte, out any) error {
	if body = bytes.TrimSpace(body); bytes.HasPrefix(body, []byte("<")) {
		return xml.Unmarshal(body, out)
	}
	return json.Unmarshal(body, out)
}

// What differs from one failure to the next: a request ID, on its own or behind a name, and the text that a wrong
// signature is answered with.
var (
	requestIDText = regexp.MustCompile(`(?i)[,;]?\s*(\(?\s*request[ _-]?id\s*[:=]?\s*)?` +
		`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\)?`)
	stringToSignText = regexp.MustCompile(`(?is)\s*(the )?server (string ?to ?sign|canonical ?request).*`)
)

// hide takes out of a server's text what the call has that is secret, as it is and as a URL has it.
func hide(text string, call Call) string {
	key := call.Credentials
	secrets := []string{key.AccessKeyID, key.AccessKeySecret, key.SecurityToken}
	for _, values := range call.Secret {
		secrets = append(secrets, values...)
	}
	for _, secret := range secrets {
		if secret != "" {
			text = strings.NewReplacer(secret, "[hidden]", url.QueryEscape(secret), "[hidden]").Replace(text)
		}
	}
	return text
}

// stableText keeps of a message what is the same for the same failure, and shows nothing secret: that is looked for
// first, while it is still whole.
func stableText(message, requestID string, call Call) string {
	message = stringToSignText.ReplaceAllString(hide(message, call), "")
	if requestID != "" {
		message = strings.ReplaceAll(message, requestID, "00000000-0000-0000-0000-000000000000")
	}
	return cut(strings.TrimSpace(requestIDText.ReplaceAllString(message, "")), maxMessage)
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

var timeLeft = regexp.MustCompile(`TimeLeft:(\d+)`)

// throttleWait reads how long a quota stays used up, in milliseconds both in the newer header and in the
// TimeLeft of the older ones, of which the longest counts, up to longestWait. 0 means that no header says.
func throttleWait(header http.Header) time.Duration {
	longest, _ := strconv.Atoi(header.Get("X-Acs-Retry-After"))
	for _, name := range []string{"X-Ratelimit-User-Api", "X-Ratelimit-User"} {
		if match := timeLeft.FindStringSubmatch(header.Get(name)); match != nil {
			left, _ := strconv.Atoi(match[1])
			longest = max(longest, left)
		}
	}
	return time.Duration(min(longest, int(longestWait.Milliseconds()))) * time.Millisecond
}
