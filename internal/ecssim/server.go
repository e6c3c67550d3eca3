// Package ecssim is a small working model of Alibaba Cloud ECS behind its OpenAPI gateway, served over HTTP.
//
// It knows DeleteImage, DescribeImages, and who uses and shares an image, by DescribeInstances and
// DescribeImageSharePermission; of STS it knows GetCallerIdentity, AssumeRole and AssumeRoleWithOIDC, at the same
// address. It has their documented errors, and the gateway around them: V1 and V3 signatures with their clock window
// and nonces, GET and POST, JSON and XML, request IDs, and quotas for each account, region and action. Temporary keys
// expire. A key or a role can be denied an action, or be blind: listings then answer it with an empty list, as ECS
// did for keys without the permission, and DeleteImage deletes. DescribeImages knows DryRun. Images pass through the
// states that a deletion meets, by a clock that a test can hold, and faults put in on purpose break calls in the ways
// that networks and gateways do. The endpoints under /_sim/ show and change all that while it runs.
//
// It does not know snapshots, image families, tasks or RAM policies: what uses or shares an image is a list on the
// image, a key may do everything in its account that is not denied by name, every key of the scenario is one of a RAM
// user that is named like it, and an account sees only its own images. Like the real gateway for most actions it
// ignores parameters that it does not know, such as the DryRun of DeleteImage. Where the vendor documents no
// behaviour, the comment beside the code says what was chosen.
package ecssim

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/yaml"
)

// Server is the simulator. It is safe for concurrent use. Images that it is given and that it returns share
// their lists and maps with it: replace these, and do not change them.
type Server struct {
	clock  clock.PassiveClock
	mux    *http.ServeMux
	closed context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	settings Scenario // without images
	images   map[string]*Image
	sessions map[string]identity // by the ID of the temporary key
	nonces   map[string]bool
	used     map[string]int // calls, by what a quota counts by
	faults   []Fault
	calls    []Call
}

// New starts a simulator from a scenario; a nil clock is the real one. An error names the field at fault.
func New(s Scenario, clk clock.PassiveClock) (*Server, error) {
	if clk == nil {
		clk = clock.RealClock{}
	}
	server := &Server{clock: clk, mux: http.NewServeMux(), images: map[string]*Image{}, nonces: map[string]bool{},
		sessions: map[string]identity{}, used: map[string]int{}, calls: []Call{}}
	server.closed, server.cancel = context.WithCancel(context.Background())
	server.route()
	if err := server.adopt(s); err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	return server, nil
}

// Close lets go of every connection that a fault holds.
func (s *Server) Close() { s.cancel() }

// Configure changes the scenario under way, all at once or, on an error, not at all: accounts, roles, quotas, latency
// and the ways of deletion. The images in it are to be put in addition; change gets none. Temporary keys outlive a
// change, and obey what it denies to their role.
func (s *Server) Configure(change func(*Scenario)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.settings
	next.AccessKeys, next.Roles = slices.Clone(next.AccessKeys), slices.Clone(next.Roles)
	next.Quotas = maps.Clone(next.Quotas)
	change(&next)
	return s.adopt(next)
}

func (s *Server) adopt(next Scenario) error {
	next.Images = slices.Clone(next.Images)
	if err := next.validate(); err != nil {
		return err
	}
	for _, image := range next.Images {
		s.put(image)
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
	s.put(image)
	return nil
}

func (s *Server) put(valid Image) {
	valid.clock, valid.put, valid.shownUntil = s.clock, s.clock.Now(), time.Time{}
	valid.CreationTime = cmp.Or(valid.CreationTime, valid.put).UTC().Truncate(time.Second)
	s.images[valid.ImageID] = &valid
}

// DeleteImage takes the image away at once, whatever its state, and says whether it was there.
func (s *Server) DeleteImage(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.images[id].shown()
	delete(s.images, id)
	return found
}

// Image returns the image for as long as DescribeImages could show it.
func (s *Server) Image(id string) (Image, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if image := s.images[id]; image.shown() {
		return *image, true
	}
	return Image{}, false
}

// Images returns all images of all accounts, by ID.
func (s *Server) Images() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	images := make([]Image, 0, len(s.images))
	for _, id := range slices.Sorted(maps.Keys(s.images)) {
		if image := s.images[id]; image.shown() {
			images = append(images, *image)
		}
	}
	return images
}

// Calls returns every call so far, refused ones too, in the order in which they took effect.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// ForgetCalls drops what grows with each call: the record of the calls, their nonces, and the images that they deleted.
func (s *Server) ForgetCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.nonces = []Call{}, map[string]bool{}
	maps.DeleteFunc(s.images, func(_ string, image *Image) bool { return !image.shown() })
}

// ServeHTTP answers calls, and the administration of the simulator under /_sim/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func (s *Server) route() {
	s.mux.HandleFunc("/", s.serveCall)
	s.mux.Handle("/_sim/", http.NotFoundHandler())
	s.mux.HandleFunc("GET /_sim/state", s.serveState)
	s.mux.HandleFunc("PUT /_sim/images/{imageID}", reading(func(r *http.Request, image Image) error {
		image.ImageID = r.PathValue("imageID")
		return s.PutImage(image)
	}))
	s.mux.HandleFunc("DELETE /_sim/images/{imageID}", func(w http.ResponseWriter, r *http.Request) {
		if !s.DeleteImage(r.PathValue("imageID")) {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("POST /_sim/faults", reading(func(_ *http.Request, f Fault) error { return s.AddFault(f) }))
}

// reading hands on a body in YAML or JSON. What is wrong in it is answered with 400.
func reading[T any](do func(*http.Request, T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var value T
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = yaml.UnmarshalStrict(data, &value)
		}
		if err == nil {
			err = do(r, value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) serveState(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(map[string]any{"images": s.Images(), "calls": s.Calls()}) // the client may have gone
}

// wait ends early when the client leaves or the server is closed.
func (s *Server) wait(ctx context.Context, d Duration) {
	select {
	case <-time.After(time.Duration(d)):
	case <-ctx.Done():
	case <-s.closed.Done():
	}
}
