package ecssim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// adminHandler serves what the methods of Server do.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_sim/state", s.serveState)
	mux.HandleFunc("PUT /_sim/images/{imageID}", reading(func(r *http.Request, image Image) error {
		id := r.PathValue("imageID")
		if image.ImageID = cmp.Or(image.ImageID, id); image.ImageID != id {
			return fmt.Errorf("imageID: %q is not %q, as the path has it", image.ImageID, id)
		}
		return s.PutImage(image)
	}))
	mux.HandleFunc("DELETE /_sim/images/{imageID}", func(w http.ResponseWriter, r *http.Request) {
		if !s.DeleteImage(r.PathValue("imageID")) {
			http.Error(w, fmt.Sprintf("imageID: there is no image %q", r.PathValue("imageID")), http.StatusNotFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /_sim/faults", reading(func(_ *http.Request, fault Fault) error { return s.AddFault(fault) }))
	mux.HandleFunc("DELETE /_sim/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// reading hands on a body in YAML or JSON. What is wrong in it is answered with 400 and the name of the field.
func reading[T any](do func(*http.Request, T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var value T
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil {
			err = decode(data, &value)
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
	state := struct {
		Images []Image `json:"images"`
		Calls  []Call  `json:"calls"`
		Faults []Fault `json:"faults"`
	}{s.Images(), append([]Call{}, s.Calls()...), s.Faults()}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(state) // a client that has gone needs no answer
}
