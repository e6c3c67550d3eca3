package faults

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
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
	// callLimit is the operator's time limit for a call of ECS, which is 45 s by default. On a busy machine an answer may take
	// a second.
	callLimit = 3 * time.Second

	// atOnce is how many objects the operator works on at the same time.
	atOnce = 8

	// longestBackoff is the operator's longest time between two attempts while an obstacle is in place.
	longestBackoff = time.Second
	// busyFor is how long the machine may be busy with other plans.
	busyFor = 4 * time.Second

	// echo is how long after the beginning of a fault its consequences may come: a hung call, and attempts after that.
	echo = callLimit + 5*time.Second

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
	accepted map[string]bool // of an image: whether this operator was told that ECS accepted its deletion
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
	o := &operatorProcess{world: w, lastLook: map[string]bool{}, accepted: map[string]bool{}}
	o.cloud = httptest.NewUnstartedServer(o)
	o.cloud.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that break, as they must
	if w.vpc {
		o.cloud.StartTLS()
	} else {
		o.cloud.Start()
	}
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
			config := openapi.Config{Timeout: callLimit, Connections: 16, Clock: clock.RealClock{}}
			err = runOperator(logr.NewContext(ctx, w.logger(o)), cluster, o.api(config), w.cacheOptions(o))
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
	o.world.starting.Lock()
	defer o.world.starting.Unlock()
	if o.world.ctx.Err() == nil && !o.world.down {
		o.world.startOperator()
	}
}

func (o *operatorProcess) isDead() bool { return o.dead.Load() }

// runOperator does what main does until it waits for a signal, with short backoffs, and with the logger of the context.
func runOperator(ctx context.Context, cluster *rest.Config, api *openapi.Client, objects cache.Options) error {
	mgr, err := newManager(ctx, cluster, objects)
	if err != nil {
		return err
	}
	now := clock.RealClock{}
	environment := map[string]string{
		"ALIBABA_CLOUD_ACCESS_KEY_ID": keyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": keySecret,
	}
	ambient, _ := credentials.Ambient("env", func(name string) string { return environment[name] }, api, region, now)
	images := customimage.New(customimage.Config{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), ECS: ecs.New(api), Operator: serviceAccount,
		Credentials: credentials.New(credentials.Config{
			Secrets: mgr.GetAPIReader(), Ambient: ambient, AmbientNamespaces: []string{"*"}, API: api, STSRegion: region, Clock: now,
		}),
		Events: customimage.NewRecorder(mgr.GetClient()), Clock: now,
		Waiting: customimage.Backoff{First: 200 * time.Millisecond, Longest: longestBackoff},
		Blocked: customimage.Backoff{First: 200 * time.Millisecond, Longest: longestBackoff},
		Resync:  6 * time.Hour, MaxConcurrentReconciles: atOnce,
	})
	if err := images.SetupWithManager(mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// api returns the client with which an operator calls ECS and STS.
func (o *operatorProcess) api(config openapi.Config) *openapi.Client {
	defaultTransport.Lock()
	defer defaultTransport.Unlock()
	if !o.world.vpc {
		config.Endpoints = openapi.Endpoints{Override: o.cloud.URL}
		return openapi.New(config)
	}
	config.Endpoints = openapi.Endpoints{VPC: true}
	roots := x509.NewCertPool()
	roots.AddCert(o.cloud.Certificate())
	original := http.DefaultTransport
	defer func() { http.DefaultTransport = original }()
	http.DefaultTransport = &http.Transport{
		DialContext:     o.dial,
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12}, // that of httptest
	}
	return openapi.New(config)
}

// defaultTransport is held by whoever replaces http.DefaultTransport, or has openapi.New make a copy of it.
var defaultTransport sync.Mutex

// dial knows the host names of two regions.
func (o *operatorProcess) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for _, there := range []string{region, elsewhere} {
		if host == "ecs-vpc."+there+".aliyuncs.com" || host == "sts-vpc."+there+".aliyuncs.com" {
			return new(net.Dialer).DialContext(ctx, network, o.cloud.Listener.Addr().String())
		}
	}
	o.world.tracef("operator %d: there is no host %s", o.number, host)
	return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

func newManager(ctx context.Context, cluster *rest.Config, objects cache.Options) (manager.Manager, error) {
	objects.ByObject = customimage.CacheByObject()
	objects.DefaultTransform = new(customimage.Texts).Slim
	cluster.QPS = -1
	return ctrl.NewManager(cluster, ctrl.Options{
		Scheme: scheme, Logger: logr.FromContextOrDiscard(ctx), Cache: objects, NewCache: mortalCaches(ctx.Done()),
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Controller:              config.Controller{SkipNameValidation: ptr.To(true)},
		GracefulShutdownTimeout: ptr.To(time.Duration(0)),
	})
}

// mortalCache is for an operator that may die before the cache has synced. Its manager would wait for that for ever, and keep
// a core busy (controller-runtime #3440). A dead operator may take the cache for synced: its calls have no effect.
type mortalCache struct {
	cache.Cache
	dead <-chan struct{}
}

func mortalCaches(dead <-chan struct{}) cache.NewCacheFunc {
	return func(config *rest.Config, options cache.Options) (cache.Cache, error) {
		c, err := cache.New(config, options)
		return mortalCache{c, dead}, err
	}
}

func (c mortalCache) WaitForCacheSync(ctx context.Context) bool {
	synced := make(chan bool, 1)
	go func() { synced <- c.Cache.WaitForCacheSync(ctx) }()
	select {
	case isSynced := <-synced:
		return isSynced
	case <-c.dead:
		return true
	}
}

// logger has an operator log into the trace.
func (w *world) logger(o *operatorProcess) logr.Logger {
	return funcr.New(func(prefix, args string) {
		w.checkSecrets("the log", []byte(args))
		w.tracef("operator %d: log: %s %s", o.number, prefix, args[:min(len(args), 400)])
	}, funcr.Options{})
}
