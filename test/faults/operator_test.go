package faults

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

const (
	// callLimit is the operator's time limit for a call of ECS, which is 45 s by default.
	callLimit = time.Second

	// serviceAccount is how the operator is told who it is.
	serviceAccount = "--serviceaccount=default:operator"
)

// The access key of the operator's environment.
const (
	keyID     = "key-of-operator"
	keySecret = "secret-of-operator" // #nosec G101: of the simulator
)

// operatorProcess is one life of the operator, from its start to its death. What it does after that has no effect.
type operatorProcess struct {
	world  *world
	number int
	cloud  *httptest.Server // where it calls ECS
	dead   atomic.Bool
	stop   func()

	lastLook map[string]bool // of an image: whether it was shown
}

func (w *world) startOperators(atOnce int) {
	w.operatorsAtOnce = atOnce
	for range atOnce {
		w.startOperator()
	}
}

// startOperator starts the operator. When it ends by itself, it is started again, as a kubelet would.
func (w *world) startOperator() {
	ctx, cancel := context.WithCancel(w.ctx)
	o := &operatorProcess{world: w, lastLook: map[string]bool{}}
	o.cloud = httptest.NewServer(o)
	o.stop = func() {
		o.dead.Store(true)
		cancel()
		go func() { // a handler that calls this must not wait for itself
			o.cloud.CloseClientConnections()
			o.cloud.Close()
		}()
	}
	w.mu.Lock()
	o.number = len(w.operators) + 1
	w.operators = append(w.operators, o)
	w.mu.Unlock()
	cluster := rest.CopyConfig(operator)
	cluster.Wrap(func(next http.RoundTripper) http.RoundTripper { return transport{o, next} })
	w.running.Add(1)
	go func() {
		defer w.running.Done()
		var err error
		if w.child != nil {
			err = w.startChild(ctx, o)
		} else {
			err = runOperator(logr.NewContext(ctx, w.logger(o)), cluster, o.cloud.URL, w.cacheOptions(o))
		}
		if w.ctx.Err() == nil && !o.dead.Load() {
			w.tracef("operator %d: ends: %v", o.number, err)
			o.die()
		}
	}()
}

// die ends an operator like kill -9, and starts the next one.
func (o *operatorProcess) die() {
	if o.dead.Swap(true) {
		return
	}
	o.world.tracef("operator %d: dies", o.number)
	o.stop()
	if o.world.ctx.Err() == nil {
		o.world.startOperator()
	}
}

func (o *operatorProcess) isDead() bool { return o.dead.Load() }

// runOperator is what main does, with short backoffs, and with the logger of the context.
func runOperator(ctx context.Context, cluster *rest.Config, cloud string, objects cache.Options) error {
	mgr, err := newManager(cluster, objects, logr.FromContextOrDiscard(ctx))
	if err != nil {
		return err
	}
	now := clock.RealClock{}
	api := openapi.New(openapi.Config{
		Endpoints: openapi.Endpoints{Override: cloud}, Timeout: callLimit, Connections: 16, Clock: now,
	})
	environment := map[string]string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID": keyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": keySecret,
	}
	ambient, _ := credentials.Ambient("env", func(name string) string { return environment[name] }, api, "", now)
	images := customimage.New(customimage.Config{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), ECS: ecs.New(api), Operator: serviceAccount,
		Credentials: credentials.New(credentials.Config{
			Secrets: mgr.GetAPIReader(), Ambient: ambient, AmbientNamespaces: []string{"*"}, API: api, Clock: now,
		}),
		Events: mgr.GetEventRecorder("ecs-image-gc"), Clock: now,
		Waiting: customimage.Backoff{First: 200 * time.Millisecond, Longest: time.Second},
		Blocked: customimage.Backoff{First: 200 * time.Millisecond, Longest: time.Second},
		Resync:  6 * time.Hour, MaxConcurrentReconciles: 8,
	})
	if err := images.SetupWithManager(mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(cluster *rest.Config, objects cache.Options, log logr.Logger) (manager.Manager, error) {
	objects.ByObject = customimage.CacheByObject()
	objects.DefaultTransform = new(customimage.Texts).Slim
	cluster.QPS = -1
	return ctrl.NewManager(cluster, ctrl.Options{
		Scheme: scheme, Logger: log, Cache: objects,
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Controller:              config.Controller{SkipNameValidation: ptr.To(true)},
		GracefulShutdownTimeout: ptr.To(time.Duration(0)),
	})
}

// logger has an operator log into the trace.
func (w *world) logger(o *operatorProcess) logr.Logger {
	return funcr.New(func(prefix, args string) {
		w.checkSecrets("the log", []byte(args))
		w.tracef("operator %d: log: %s %s", o.number, prefix, args[:min(len(args), 400)])
	}, funcr.Options{})
}
