package customimage

import (
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

const (
	// firstCalls is how many attempts go on at a time in a region, and with a key, until the first call is answered.
	firstCalls = 4

	// firstWait is how long the second call under a quota waits for the answer to the first, which may tell how many there
	// may be.
	firstWait = time.Second

	// silenceAfter is after how many calls in a row without an answer only one call at a time finds out whether there are
	// answers again.
	silenceAfter = 3

	// longestLine is how long an object stands in line before it is looked at again, in case it was forgotten there.
	longestLine = 10 * time.Minute
)

// probing spaces the calls that find out whether there are answers again.
var probing = Backoff{time.Second, time.Minute}

// Calls returns how many attempts may call at the same time: a quarter more than those of one region, account or key, so
// that some are left for others.
func Calls(concurrent int) int { return concurrent + reserveOf(concurrent) }

// workers returns how many workers there are: so many that calls need not wait for the API server's answers.
func workers(concurrent int) int { return 2 * Calls(concurrent) }

func reserveOf(concurrent int) int { return max(1, concurrent/4) }

// shares divides the workers among what can hold them up: regions, accounts and the sources of access keys. One that holds
// many gets no more while few are left, and one that does not answer gets a single one now and then. An object that
// gets no worker stands in line, and is put into the work queue again when there is one for it.
type shares struct {
	concurrent int
	clock      clock.WithDelayedExecution
	started    time.Time
	wake       func(reconcile.Request) // puts an object into the work queue

	mu      sync.Mutex
	busy    int // workers that the shares hold
	by      map[string]*share
	inLine  map[reconcile.Request]*share
	invited map[reconcile.Request]*share
}

// share is what one region, account or source of keys has of the workers.
type share struct {
	held, invited int
	first         int       // how many attempts before the first answer; 0 for as many as otherwise
	firstUntil    time.Time // when first ends without an answer; zero for never

	unanswered int            // calls in a row
	last       *failure.Error // of them
	since      time.Time      // the first of them that made it silent
	probe      time.Time      // when the next call may be made to a silent one

	// Those that were there before this process, and those that came later, in the order in which they came. They take
	// turns: neither of a thousand of the ones and a steady flow of the others keeps the others waiting.
	lines [2][]reconcile.Request
	turn  int
}

func newShares(concurrent int, c clock.WithDelayedExecution) *shares {
	return &shares{
		concurrent: max(concurrent, 1), clock: c, wake: func(reconcile.Request) {}, by: map[string]*share{},
		inLine: map[reconcile.Request]*share{}, invited: map[reconcile.Request]*share{},
	}
}

// claim is what an attempt has a part of.
type claim struct{ region, account, key, quota string }

func (c claim) names() []string {
	names := []string{c.region, c.key, c.quota}
	if c.account != "" {
		names = append(names, c.account)
	}
	return names
}

// enter gives an attempt a worker to call with, until finish. Else the object stands in line, and if that is because
// calls are not answered, enter returns the failure of the last one. isOld is for objects that were there before this
// process.
func (s *shares) enter(request reconcile.Request, c claim, isOld bool) (refusal *failure.Error, entered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	isInvited := s.uninvite(request)
	for _, name := range c.names() {
		share := s.of(name, c)
		if !s.hasRoom(share) || !isInvited && share.isWaitedFor() {
			s.standInLine(request, share, isOld)
			return share.silence(), false
		}
	}
	delete(s.inLine, request)
	s.busy++
	for _, name := range c.names() {
		s.by[name].held++
	}
	return nil, true
}

// finish ends the calls of an attempt, whether or not it entered, and has others come in.
func (s *shares) finish(request reconcile.Request, c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uninvite(request)
	if c != nil {
		s.busy--
		for _, name := range c.names() {
			s.by[name].held--
		}
	}
	s.invite()
}

// heard tells what became of a call: nil for an answer, be it an error.
func (s *shares) heard(name string, noAnswer *failure.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	share := s.by[name]
	if noAnswer == nil {
		changed := share.unanswered > 0 || share.first > 0
		share.unanswered, share.first = 0, 0
		if changed {
			s.invite()
		}
		return
	}
	now := s.clock.Now()
	share.unanswered, share.last = share.unanswered+1, noAnswer
	if share.unanswered < silenceAfter {
		return
	}
	if share.unanswered == silenceAfter {
		share.since = now
		s.wakeAll(share) // to say why they wait
	}
	share.probe = probing.next(share.since, now, "")
	s.inviteAfter(share.probe.Sub(now))
}

// waiting counts the objects that stand in line, for a worker and for an answer.
func (s *shares) waiting() (forWorker, forAnswer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, share := range s.inLine {
		if share.isSilent() {
			forAnswer++
		} else {
			forWorker++
		}
	}
	return forWorker, forAnswer
}

func (s *shares) of(name string, c claim) *share {
	if s.by[name] == nil {
		share := &share{}
		switch name {
		case c.region, c.key:
			share.first = firstCalls
		case c.quota:
			share.first, share.firstUntil = 1, s.clock.Now().Add(firstWait)
			s.inviteAfter(firstWait)
		}
		s.by[name] = share
	}
	return s.by[name]
}

func (s *shares) inviteAfter(wait time.Duration) {
	s.clock.AfterFunc(wait, func() {
		go func() { // a clock that a test holds must not be asked for the time in here
			s.mu.Lock()
			defer s.mu.Unlock()
			s.invite()
		}()
	})
}

// hasRoom reports whether a share may have another worker. The share of one that is alone is as many as are concurrent.
// The next one gets most of the reserve, but not the last worker: that is for one that has none.
func (s *shares) hasRoom(share *share) bool {
	held, busy, reserve := share.held+share.invited, s.busy+len(s.invited), reserveOf(s.concurrent)
	switch {
	case share.isSilent():
		return held == 0 && !s.clock.Now().Before(share.probe)
	case share.first > 0 && held >= share.first && (share.firstUntil.IsZero() || s.clock.Now().Before(share.firstUntil)):
		return false
	}
	free := s.concurrent + reserve - busy
	return held == 0 && free > 0 || (held+1)*reserve <= s.concurrent*(free-1)
}

func (s *shares) standInLine(request reconcile.Request, share *share, isOld bool) {
	if s.inLine[request] == share {
		return
	}
	line := 0
	if isOld {
		line = 1
	}
	share.lines[line] = append(share.lines[line], request)
	s.inLine[request] = share
}

// invite puts those into the work queue for whom there is room.
func (s *shares) invite() {
	if len(s.inLine) == 0 {
		return
	}
	for _, share := range s.by {
		for share.isWaitedFor() && s.hasRoom(share) {
			if request, ok := s.next(share); ok {
				share.invited++
				s.invited[request] = share
				s.wake(request)
			}
		}
	}
}

// next takes one from a line. It may have entered or joined another line since.
func (s *shares) next(share *share) (reconcile.Request, bool) {
	share.turn = 1 - share.turn
	if len(share.lines[share.turn]) == 0 {
		share.turn = 1 - share.turn
	}
	request := share.lines[share.turn][0]
	share.lines[share.turn] = share.lines[share.turn][1:]
	if s.inLine[request] != share {
		return request, false
	}
	delete(s.inLine, request)
	return request, true
}

func (s *shares) wakeAll(share *share) {
	for share.isWaitedFor() {
		if request, ok := s.next(share); ok {
			s.wake(request)
		}
	}
}

func (s *shares) uninvite(request reconcile.Request) bool {
	share, ok := s.invited[request]
	if ok {
		share.invited--
		delete(s.invited, request)
	}
	return ok
}

func (s *share) isSilent() bool { return s.unanswered >= silenceAfter }

func (s *share) isWaitedFor() bool {
	return slices.ContainsFunc(s.lines[:], func(line []reconcile.Request) bool { return len(line) > 0 })
}

// silence returns the failure of the last call if calls are not answered.
func (s *share) silence() *failure.Error {
	if !s.isSilent() {
		return nil
	}
	refusal := *s.last
	refusal.Wait = longestLine
	return &refusal
}
