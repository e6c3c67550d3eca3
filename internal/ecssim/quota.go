package ecssim

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Quota allows Limit calls in each window; windows do not slide. It is written like "200/60s".
type Quota struct {
	Limit  int
	Window Duration
}

// UnmarshalText reads a number of calls and a duration with a slash between them.
func (q *Quota) UnmarshalText(text []byte) error {
	limit, length, _ := strings.Cut(string(text), "/")
	calls, err := strconv.ParseUint(limit, 10, 31)
	if err != nil || q.Window.UnmarshalText([]byte(length)) != nil {
		return malformed[Quota](text)
	}
	q.Limit = int(calls)
	return nil
}

// quotaKey is what a quota counts by.
type quotaKey struct{ accountID, regionID, action string }

type window struct {
	start time.Time
	used  int
}

// throttle counts a call against its quota. Refused calls do not count.
func (s *Server) throttle(q *request) *failure {
	quota, limited := s.settings.Quotas[q.Action]
	if !limited {
		return nil
	}
	length := time.Duration(quota.Window)
	key := quotaKey{q.AccountID, q.RegionID, q.Action}
	start := q.Time.Truncate(length)
	w := s.windows[key]
	if !w.start.Equal(start) {
		w = window{start: start}
	}
	if w.used++; w.used <= quota.Limit {
		s.windows[key] = w
		return nil
	}
	end := start.Add(length)
	left := (end.Sub(q.Time) + time.Millisecond - 1).Milliseconds() // rounded up: then it is over
	limit := fmt.Sprintf("Limit:%d,Remain:0,TimeLeft:%d,Reset:%d", quota.Limit, left, end.Unix())
	f := fail("Throttling")
	f.header = http.Header{}
	f.header.Set("X-Ratelimit-User-Api", limit)
	f.header.Set("X-Ratelimit-User", limit)
	f.header.Set("X-Acs-Retry-After", strconv.FormatInt(left, 10))
	return f
}
