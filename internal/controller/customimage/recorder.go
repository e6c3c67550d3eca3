package customimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
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
	client    client.Client
	log       logr.Logger
	instance  string
	requests  chan struct{} // holds one for each request under way
	writing   sync.WaitGroup
	unwritten atomic.Int64
}

const (
	// mostRequests is how many requests are under way at once, and requestTimeout is how long one may take. In API priority
	// and fairness they share seats with all other requests of the operator, and the lease has to be renewed also while the API
	// server cannot store events.
	mostRequests, requestTimeout = 8, 10 * time.Second

	// mostUnwritten is how many events may wait to be written. Each takes 10 KiB.
	mostUnwritten = 10_000
)

// eventRetries spread the requests for an event over two minutes, while its storage may come back. If the API server
// answers nothing at all, a manager with a lease loses it after 10 s and ends.
var eventRetries = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.25, Steps: 8}

// NewRecorder returns a recorder that writes with a client.
func NewRecorder(c client.Client) *Recorder {
	host, _ := os.Hostname()
	return &Recorder{client: c, log: log.Log, instance: fieldOwner + "-" + host, requests: make(chan struct{}, mostRequests)}
}

// Eventf writes an event and returns at once. An event that is lost is logged. Related may be nil.
func (r *Recorder) Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any) {
	now := time.Now()
	event := &eventsv1.Event{
		EventTime: metav1.NewMicroTime(now), ReportingController: fieldOwner, ReportingInstance: r.instance,
		Type: eventType, Reason: reason, Action: action, Note: fmt.Sprintf(note, args...),
	}
	if err := r.refer(event, regarding, related); err != nil {
		r.lose(event, err)
		return
	}
	event.Name = util.GenerateEventName(event.Regarding.Name, now.UnixNano())
	event.Namespace = cmp.Or(event.Regarding.Namespace, corev1.NamespaceDefault)
	if r.unwritten.Add(1) > mostUnwritten {
		r.unwritten.Add(-1)
		r.lose(event, errors.New("too many events wait to be written"))
		return
	}
	r.writing.Go(func() {
		defer r.unwritten.Add(-1)
		if err := r.write(event); err != nil {
			r.lose(event, err)
		}
	})
}

func (r *Recorder) lose(event *eventsv1.Event, err error) {
	r.log.Error(err, "Could not write an event", "namespace", event.Regarding.Namespace, "name", event.Regarding.Name,
		"reason", event.Reason, "note", event.Note)
}

// refer has an event refer to objects. It copies what may be the caller's.
func (r *Recorder) refer(event *eventsv1.Event, regarding, related runtime.Object) error {
	about, err := reference.GetReference(r.client.Scheme(), regarding)
	if err != nil {
		return err
	}
	about.DeepCopyInto(&event.Regarding)
	if related == nil {
		return nil
	}
	about, err = reference.GetReference(r.client.Scheme(), related)
	event.Related = about.DeepCopy()
	return err
}

func (r *Recorder) write(event *eventsv1.Event) error {
	mayExist := false // by a request whose answer does not tell
	return retry.OnError(eventRetries, isPassing, func() error {
		err := r.request(event)
		if mayExist && apierrors.IsAlreadyExists(err) {
			return nil
		}
		mayExist = mayExist || !apierrors.IsTooManyRequests(err)
		return err
	})
}

// request makes one request, when it is its turn.
func (r *Recorder) request(event *eventsv1.Event) error {
	r.requests <- struct{}{}
	defer func() { <-r.requests }()
	ctx := log.IntoContext(context.Background(), r.log) // so that the calls are in the log
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return r.client.Create(ctx, event)
}

// isPassing reports whether an error may be over soon: no answer, or one that does not judge the request.
func isPassing(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || status.Status().Code >= 500 || apierrors.IsTooManyRequests(err)
}

// Wait waits until all events are written, but no longer than this.
func (r *Recorder) Wait(longest time.Duration) {
	written := make(chan struct{})
	go func() { r.writing.Wait(); close(written) }()
	select {
	case <-written:
	case <-time.After(longest):
	}
}

// Unwritten returns how many events wait to be written.
func (r *Recorder) Unwritten() int { return int(r.unwritten.Load()) }
