package customimage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/record/util"
	"k8s.io/client-go/tools/reference"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Recorder writes events in the background, and can be waited for when the process ends: client-go's recorder loses those
// that it has not sent by then, and an event is all that is left of a deleted object.
type Recorder struct {
	client   client.Client
	instance string
	writing  sync.WaitGroup
}

// NewRecorder returns a recorder that writes with a client.
func NewRecorder(c client.Client) *Recorder {
	host, _ := os.Hostname()
	return &Recorder{client: c, instance: fieldOwner + "-" + host}
}

// eventRetries last for two minutes, which an API server may take to come back.
var eventRetries = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.25, Steps: 8}

// Eventf writes an event and returns at once. What the API server refuses is logged.
func (r *Recorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	now := time.Now()
	event := &eventsv1.Event{
		EventTime: metav1.NewMicroTime(now), ReportingController: fieldOwner, ReportingInstance: r.instance,
		Type: eventType, Reason: reason, Action: action, Note: fmt.Sprintf(note, args...),
	}
	about, err := reference.GetReference(r.client.Scheme(), regarding)
	if err == nil {
		event.Regarding = *about
		event.Related, err = reference.GetReference(r.client.Scheme(), related)
	}
	if err != nil {
		log.Log.Error(err, "Could not write an event", "reason", reason, "note", event.Note)
		return
	}
	event.Name, event.Namespace = util.GenerateEventName(about.Name, now.UnixNano()), about.Namespace
	if event.Namespace == "" {
		event.Namespace = corev1.NamespaceDefault
	}
	r.writing.Go(func() {
		ctx := log.IntoContext(context.Background(), log.Log) // so that the calls are in the log
		err := retry.OnError(eventRetries, isPassing, func() error { return r.client.Create(ctx, event) })
		if err != nil && !apierrors.IsAlreadyExists(err) { // by a request that got no answer
			log.Log.Error(err, "Could not write an event", "reason", reason, "note", event.Note)
		}
	})
}

// isPassing reports whether an error may be over soon: no answer, or one that does not judge the request.
func isPassing(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || status.Status().Code >= 500
}

// Wait waits until all events are written, but no longer than this, and reports whether they are.
func (r *Recorder) Wait(longest time.Duration) bool {
	written := make(chan struct{})
	go func() { r.writing.Wait(); close(written) }()
	select {
	case <-written:
		return true
	case <-time.After(longest):
		return false
	}
}
