package openapi

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// What is kept of an error's code and text, in bytes: a status has to hold them.
const (
	maxCode    = 128
	maxMessage = 512
)

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
		wait := throttleWait(response.Header)
		if !isThrottle(answer.Code) { // the headers come with other answers too
			wait = 0
		}
		return "", &failure.Error{
			Code:       cut(hide(answer.Code, call), maxCode),
			Message:    stableText(answer.Message, answer.RequestID, call),
			RequestID:  hide(answer.RequestID, call),
			HTTPStatus: response.StatusCode,
			Wait:       wait,
		}
	case parsed == nil && answer.RequestID != "" && response.StatusCode/100 == 2:
		if out == nil {
			return answer.RequestID, nil
		}
		if err := unmarshal(body, out); err != nil {
			return "", unusable(response, answer.RequestID, "unexpected form of the response body")
		}
		return answer.RequestID, nil
	case len(body) == 0:
		return "", unusable(response, "", "empty response body")
	default:
		return "", unusable(response, answer.RequestID, "unexpected response body (a proxy may have answered)")
	}
}

func unusable(response *http.Response, requestID, what string) error {
	return &failure.Error{
		Code:       failure.CodeUnusableAnswer,
		Message:    fmt.Sprintf("HTTP %d: %s.", response.StatusCode, what),
		RequestID:  requestID,
		HTTPStatus: response.StatusCode,
	}
}

// unmarshal reads JSON or XML, whichever the body is: the content types of the gateway are not reliable.
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

// hide replaces the secrets of a call in a server's text, plain and as a URL encodes them.
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

// stableText keeps of a message what is the same for the same failure, without secrets. These are replaced first,
// while they are whole.
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

// rateLimit is what the headers of an answer say about the quota that the call was counted in; all zero if they say
// nothing.
type rateLimit struct {
	limit, remain int
	left          time.Duration // until it is renewed
}

var rateLimitText = regexp.MustCompile(`^Limit:(\d+),Remain:(\d+),TimeLeft:(\d+)`)

// rateLimitOf reads the header for the quota of the action.
func rateLimitOf(header http.Header) rateLimit {
	match := rateLimitText.FindStringSubmatch(header.Get("X-Ratelimit-User-Api"))
	if match == nil {
		return rateLimit{}
	}
	limit, _ := strconv.Atoi(match[1])
	remain, _ := strconv.Atoi(match[2])
	left, _ := strconv.Atoi(match[3])
	return rateLimit{limit, remain, milliseconds(left)}
}

// milliseconds is a time from a header, from 0 to longestWait.
func milliseconds(n int) time.Duration {
	return time.Duration(min(max(n, 0), int(longestWait.Milliseconds()))) * time.Millisecond
}

// longestWait bounds the wait that a header asks for: the longest quotas are counted by the hour.
const longestWait = time.Hour

var timeLeft = regexp.MustCompile(`TimeLeft:(\d+)`)

// throttleWait reads the time until a quota is renewed, in milliseconds both in the newer header and in the
// TimeLeft of the older ones. The longest counts, up to longestWait. 0 means that no header has it.
func throttleWait(header http.Header) time.Duration {
	longest, _ := strconv.Atoi(header.Get("X-Acs-Retry-After"))
	for _, name := range []string{"X-Ratelimit-User-Api", "X-Ratelimit-User"} {
		if match := timeLeft.FindStringSubmatch(header.Get(name)); match != nil {
			left, _ := strconv.Atoi(match[1])
			longest = max(longest, left)
		}
	}
	return milliseconds(longest)
}
