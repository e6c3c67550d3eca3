package ecssim

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Server is the simulator. It is safe for concurrent use.
type Server struct {
	clock  clock.PassiveClock
	start  time.Time
	admin  http.Handler
	closed context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	settings Scenario // without images
	keys     map[string]credential
	images   map[string]*Image
	deleting map[string]bool // image IDs that are still shown
	regions  map[string]bool
	nonces   map[string]bool
	windows  map[quotaKey]window
	faults   []Fault
	calls    []Call
}

// New starts a simulator from a scenario; a nil clock is the real one. An error names the field at fault.
func New(s Scenario, clk clock.PassiveClock) (*Server, error) {
	if clk == nil {
		clk = clock.RealClock{}
	}
	server := &Server{
		clock: clk, start: clk.Now(), images: map[string]*Image{}, deleting: map[string]bool{},
		regions: map[string]bool{}, nonces: map[string]bool{}, windows: map[quotaKey]window{},
	}
	server.closed, server.cancel = context.WithCancel(context.Background())
	server.admin = server.adminHandler()
	for _, id := range knownRegions {
		server.regions[id] = true
	}
	if err := server.adopt(s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	return server, nil
}

// Close lets go of every connection that a fault holds.
func (s *Server) Close() { s.cancel() }

// Configure changes the scenario under way, all at once or, on an error, not at all: accounts, quotas, latency
// and the ways of deletion. The images in it are to be put in addition; change gets none.
func (s *Server) Configure(change func(*Scenario)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	next := s.settings
	next.Quotas = maps.Clone(next.Quotas)
	change(&next)
	return s.adopt(next)
}

func (s *Server) adopt(next Scenario) error {
	next.Images = slices.Clone(next.Images)
	keys, err := next.validate()
	if err != nil {
		return err
	}
	s.keys = keys
	for i := range next.Images {
		s.put(&next.Images[i])
	}
	next.Images = nil
	s.settings = next
	return nil
}

// PutImage adds the image or replaces the one of that ID. The operations that it says are running start now.
// An error names the field at fault.
func (s *Server) PutImage(image Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := image.validate(s.settings.accounts()); err != nil {
		return err
	}
	s.put(&image)
	return nil
}

func (s *Server) put(valid *Image) {
	image := valid.clone()
	image.put, image.DeletionTime = s.clock.Now(), time.Time{}
	image.CreationTime = cmp.Or(image.CreationTime, s.start).UTC().Truncate(time.Second)
	s.images[image.ImageID] = &image
	s.regions[image.RegionID] = true
	delete(s.deleting, image.ImageID)
}

// DeleteImage takes the image away at once, whatever its state, and says whether it was there.
func (s *Server) DeleteImage(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	_, found := s.images[id]
	delete(s.images, id)
	delete(s.deleting, id)
	return found
}

// Image returns the image for as long as DescribeImages could show it.
func (s *Server) Image(id string) (Image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	image, found := s.images[id]
	if !found {
		return Image{}, false
	}
	return image.clone(), true
}

// Images returns all images of all accounts, by ID.
func (s *Server) Images() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	images := make([]Image, 0, len(s.images))
	for _, id := range slices.Sorted(maps.Keys(s.images)) {
		images = append(images, s.images[id].clone())
	}
	return images
}

// Calls returns every call so far, refused ones too, in the order in which they took effect.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// sweep drops the deleted images that are no longer shown.
func (s *Server) sweep() {
	now, delay := s.clock.Now(), time.Duration(s.settings.DeletionDelay)
	for id := range s.deleting {
		if !now.Before(s.images[id].DeletionTime.Add(delay)) {
			delete(s.images, id)
			delete(s.deleting, id)
		}
	}
}

// ServeHTTP answers calls, and the administration of the simulator under /_sim/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_sim/") {
		s.admin.ServeHTTP(w, r)
		return
	}
	q, err := newRequest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.wait(r.Context(), s.process(q))
	switch {
	case q.fault != nil && q.fault.Kind != FaultBefore:
		s.breakAnswer(w, r, q)
	case q.failed != nil:
		q.writeFailure(w)
	default:
		q.write(w, http.StatusOK, q.Action+"Response", q.answer)
	}
}

// process takes a call to its effect, records it, and returns how long the answer takes.
func (s *Server) process(q *request) (latency Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	q.Time = s.clock.Now()
	if q.failed = s.perform(q); q.failed != nil {
		q.Code = q.failed.code
	}
	s.calls = append(s.calls, q.Call)
	return s.settings.Latency
}

// perform passes the call through the gateway to its action. A fault strikes only what the gateway lets in.
func (s *Server) perform(q *request) *failure {
	if failed := s.authenticate(q); failed != nil {
		return failed
	}
	act, failed := q.action()
	if failed == nil {
		failed = s.throttle(q)
	}
	if failed != nil {
		return failed
	}
	if q.fault = s.strike(q); q.fault != nil {
		if q.Fault = q.fault.Kind; q.Fault != FaultAfter {
			return q.fault.failure()
		}
	}
	if failed = s.check(q, act); failed == nil {
		q.answer, failed = act.run(s, q)
	}
	return failed
}

// wait ends early when the client goes away or the server is closed.
func (s *Server) wait(ctx context.Context, d Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(time.Duration(d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.closed.Done():
	}
}
