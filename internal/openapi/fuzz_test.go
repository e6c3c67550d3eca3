package openapi

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// FuzzDecode gives the decoder answers of any form. What comes out fits into a status, holds no secret, and is a success
// only with a status of 2xx and a request ID.
func FuzzDecode(f *testing.F) {
	f.Add(200, "", "", `{"RequestId":"1","Images":{"Image":[{"ImageId":"m-1","Size":40}]}}`)
	f.Add(400, "Limit:10,Remain:0,TimeLeft:1500,Reset:1", "1500", `{"RequestId":"1","Code":"Throttling","Message":"Slow down."}`)
	f.Add(404, "", "-1", `<Error><RequestId>1</RequestId><Code>Throttling</Code><Message>the-secret</Message></Error>`)
	f.Add(502, "TimeLeft:99999999999999999999", "", `<html><body>Bad Gateway</body></html>`)
	f.Add(200, "", "", ``)
	f.Fuzz(func(t *testing.T, status int, quota, retryAfter, body string) {
		call := Call{Credentials: Credentials{AccessKeyID: "the-key", AccessKeySecret: "the-secret", SecurityToken: "the-token"}}
		response := &http.Response{StatusCode: status, Header: http.Header{}}
		response.Header.Set("X-Ratelimit-User-Api", quota)
		response.Header.Set("X-Acs-Retry-After", retryAfter)
		if l := rateLimitOf(response.Header); l.limit < 0 || l.remain < 0 || l.left < 0 || l.left > longestWait {
			t.Errorf("quota %+v", l)
		}
		var out struct {
			Images struct{ Image []struct{ ImageID string } }
		}
		requestID, err := decode(response, []byte(body), call, &out)
		if err == nil {
			if requestID == "" || status/100 != 2 {
				t.Errorf("a success with status %d and request ID %q", status, requestID)
			}
			return
		}
		var e *failure.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		if e.Code == "" || e.Wait < 0 || e.Wait > longestWait {
			t.Errorf("%#v", e)
		}
		const dots = len("…")
		if len(e.Code) > maxCode+dots || len(e.Message) > maxMessage+dots || utf8.ValidString(body) && !utf8.ValidString(e.Message) {
			t.Errorf("does not fit into a status: %q %q", e.Code, e.Message)
		}
		for _, secret := range []string{"the-secret", "the-token"} {
			if strings.Contains(e.Error()+e.RequestID, secret) {
				t.Errorf("holds a secret: %#v", e)
			}
		}
	})
}
