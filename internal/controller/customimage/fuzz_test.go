package customimage

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// FuzzBackoff computes attempts from any times. The next one is later than now and no further than the longest wait, two
// that are computed from the same facts are the same, and time does not pass without an attempt.
func FuzzBackoff(f *testing.F) {
	f.Add(int64(5*time.Second), int64(5*time.Minute), int64(0), int64(time.Hour), "a")
	f.Add(int64(1), int64(1), int64(time.Hour), int64(0), "")
	f.Add(int64(30*time.Second), int64(10*time.Minute), int64(0), int64(1), "an object")
	f.Fuzz(func(t *testing.T, first, longest, start, passed int64, uid string) {
		const year = int64(365 * 24 * time.Hour)
		first = 1 + abs(first)%year
		longest = first + abs(longest)%year
		if longest/first > 1<<40 { // a flag of a nanosecond and a year; each attempt is a step of a loop
			return
		}
		b := Backoff{time.Duration(first), time.Duration(longest)}
		began := time.Unix(0, 0).Add(time.Duration(start % year))
		now := began.Add(time.Duration(passed % year))
		next := b.next(began, now, types.UID(uid))
		wait := next.Sub(now)
		if wait <= 0 || wait > b.Longest {
			t.Errorf("%v from %v at %v: next after %v", b, began, now, wait)
		}
		if again := b.next(began, now, types.UID(uid)); !again.Equal(next) {
			t.Errorf("%v and %v from the same facts", next, again)
		}
		if later := b.next(began, next, types.UID(uid)); !later.After(next) {
			t.Errorf("the attempt after %v is %v", next, later)
		}
	})
}

func abs(n int64) int64 {
	if n < 0 {
		return -(n + 1)
	}
	return n
}
