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
// that some are left for others, and one more.
func Calls(concurrent int) int { return concurrent + reserveOf(concurrent) + 1 }

// workers returns how many workers there are: so many that calls need not wait for the API server's answers.
func workers(concurrent int) int { return 2 * Calls(concurrent) }

func reserveOf(concurrent int) int { return max(2, concurrent/4) }

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
	lines   map[claim]*line
	inLine  map[reconcile.Request]claim // who waits in which line
	invited map[reconcile.Request]claim
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
}

// line holds the objects that wait for the same shares, in the order in which they came: those that are patient, and the
// others. They take turns: neither thousands of the ones nor a steady flow of the others keep the others waiting.
type line struct {
	waiting [2][]reconcile.Request
	turn    int
}

func newShares(concurrent int, c clock.WithDelayedExecution) *shares {
	return &shares{
		concurrent: max(concurrent, 1), clock: c, wake: func(reconcile.Request) {}, by: map[string]*share{},
		lines: map[claim]*line{}, inLine: map[reconcile.Request]claim{}, invited: map[reconcile.Request]claim{},
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
// calls are not answered, enter returns the failure of the last one. Patient objects take turns with the others.
func (s *shares) enter(request reconcile.Request, c claim, isPatient bool) (refusal *failure.Error, entered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	isInvited := s.uninvite(request)
	if !s.hasRoom(c) || !isInvited && s.lines[c].isWaitedFor() {
		s.standInLine(request, c, isPatient)
		return s.silence(c), false
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
		s.wakeAll(name) // to say why they wait
	}
	share.probe = probing.next(share.since, now, "")
	s.inviteAfter(share.probe.Sub(now))
}

// waiting counts the objects that stand in line, for a worker and for an answer.
func (s *shares) waiting() (forWorker, forAnswer int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.inLine {
		if s.silence(c) != nil {
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

// hasRoom reports whether there is a worker for a claim: in all its shares.
func (s *shares) hasRoom(c claim) bool {
	region := s.of(c.region, c)
	isFirst, hasRoom := region.held+region.invited == 0, true
	for _, name := range c.names() { // each of them is there afterwards
		hasRoom = s.shareHasRoom(s.of(name, c), isFirst) && hasRoom
	}
	return hasRoom
}

// shareHasRoom reports whether a share may have another worker. One that is alone may have as many as are concurrent. The
// next one gets most of the reserve, but not the last two workers: one is for the first of a region whose account or key
// has others, and one for an account or key that has none.
func (s *shares) shareHasRoom(share *share, isFirst bool) bool {
	held, free := share.held+share.invited, Calls(s.concurrent)-s.busy-len(s.invited)
	switch {
	case share.isSilent():
		return held == 0 && !s.clock.Now().Before(share.probe)
	case share.first > 0 && held >= share.first && (share.firstUntil.IsZero() || s.clock.Now().Before(share.firstUntil)):
		return false
	}
	return held == 0 && free > 0 || isFirst && free > 1 || (held+1)*reserveOf(s.concurrent) <= s.concurrent*(free-2)
}

func (s *shares) standInLine(request reconcile.Request, c claim, isPatient bool) {
	if known, ok := s.inLine[request]; ok && known == c {
		return
	}
	if s.lines[c] == nil {
		s.lines[c] = &line{}
	}
	class := 0
	if isPatient {
		class = 1
	}
	s.lines[c].waiting[class] = append(s.lines[c].waiting[class], request)
	s.inLine[request] = c
}

// invite puts those into the work queue for whom there is room.
func (s *shares) invite() {
	for c, line := range s.lines {
		for line.isWaitedFor() && s.hasRoom(c) {
			request := line.next()
			if s.leaveLine(request, c) {
				s.invited[request] = c
				for _, name := range c.names() {
					s.by[name].invited++
				}
				s.wake(request)
			}
		}
		if !line.isWaitedFor() {
			delete(s.lines, c)
		}
	}
}

// wakeAll puts all that wait for a share into the work queue.
func (s *shares) wakeAll(name string) {
	for c, line := range s.lines {
		for slices.Contains(c.names(), name) && line.isWaitedFor() {
			if request := line.next(); s.leaveLine(request, c) {
				s.wake(request)
			}
		}
	}
}

// leaveLine is false for one that has entered or joined another line since.
func (s *shares) leaveLine(request reconcile.Request, c claim) bool {
	known, ok := s.inLine[request]
	if ok && known == c {
		delete(s.inLine, request)
		return true
	}
	return false
}

func (s *shares) uninvite(request reconcile.Request) bool {
	c, ok := s.invited[request]
	if ok {
		delete(s.invited, request)
		for _, name := range c.names() {
			s.by[name].invited--
		}
	}
	return ok
}

// silence returns the failure of the last call if calls are not answered.
func (s *shares) silence(c claim) *failure.Error {
	for _, name := range c.names() {
		if share := s.by[name]; share.isSilent() {
			refusal := *share.last
			refusal.Wait = longestLine
			return &refusal
		}
	}
	return nil
}

func (s *share) isSilent() bool { return s.unanswered >= silenceAfter }

// next takes one from the line, which is not empty.
func (l *line) next() reconcile.Request {
	l.turn = 1 - l.turn
	if len(l.waiting[l.turn]) == 0 {
		l.turn = 1 - l.turn
	}
	request := l.waiting[l.turn][0]
	l.waiting[l.turn] = l.waiting[l.turn][1:]
	return request
}

func (l *line) isWaitedFor() bool { return l != nil && len(l.waiting[0])+len(l.waiting[1]) > 0 }
