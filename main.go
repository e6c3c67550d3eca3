// The manager of ECS Image GC: flags, clients, controllers. Wiring only.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/zapr"
	uberzap "go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // for kubeconfigs that log in with a plugin
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// settings is what flags say: of the manager, of the client of Alibaba Cloud, and of the reconciler.
type settings struct {
	manager ctrl.Options
	api     openapi.Config
	images  customimage.Config

	network, stsEndpoint, stsRegion, credentials string
	ambientNamespaces                            []string // whose objects may use the operator's own identity
}

// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

func main() {
	s, err := parseFlags()
	if err == nil {
		err = s.run()
	}
	if err != nil {
		ctrl.Log.Error(err, "Stopped with an error")
		os.Exit(1)
	}
}

func (s *settings) run() error {
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster (give --kubeconfig, or set KUBECONFIG): %w", err)
	}
	config.QPS = -1 // no limit here: the API server's priority and fairness decides
	mgr, err := ctrl.NewManager(config, s.manager)
	if err != nil {
		return fmt.Errorf("create the manager: %w", err)
	}
	s.api.Connections = customimage.Calls(s.images.MaxConcurrentReconciles)
	s.api.Clock = clock.RealClock{}
	s.api.UserAgent = "ecs-image-gc/" + buildVersion()
	s.api.Observe = customimage.ObserveECSCall

	api := openapi.New(s.api)
	s.images.Client = mgr.GetClient()
	s.images.Live = mgr.GetAPIReader()
	s.images.ECS = ecs.New(api)
	if err := s.identify(mgr, api); err != nil {
		return err
	}
	recorder := customimage.NewRecorder(mgr.GetClient())
	s.images.Events = recorder
	s.images.Clock = clock.RealClock{}
	images := customimage.New(s.images)
	if err := images.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("add the CustomImage controller: %w", err)
	}
	metrics.Registry.MustRegister(customimage.Collector{Reader: mgr.GetCache(), Waiting: images.Waiting})
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", buildVersion(), "credentials", s.credentials, "ambientNamespaces", s.ambientNamespaces)
	return start(mgr, recorder)
}

// lastEvents is how long the process waits for its last events; terminationGracePeriodSeconds allows for it.
const lastEvents = 10 * time.Second

// start runs the manager until the process is told to stop, and then has the last events written. If the manager ends with an
// error, nothing waits for them: without the lease, workers must not go on.
func start(mgr ctrl.Manager, recorder *customimage.Recorder) error {
	err := runUntil(ctrl.SetupSignalHandler(), mgr)
	if err == nil {
		recorder.Wait(lastEvents)
	}
	if unwritten := recorder.Unwritten(); unwritten > 0 {
		ctrl.Log.Info("Stopped before all events were written", "unwritten", unwritten)
	}
	return err
}

// runUntil runs the manager until ctx ends. If the manager has not begun to work by then, it has a second to end: before its
// caches have synced, it never would (controller-runtime #3440).
func runUntil(ctx context.Context, mgr ctrl.Manager) error {
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case <-mgr.Elected():
		return <-ended
	case err := <-ended:
		return err
	case <-time.After(time.Second):
		return nil
	}
}

// identify decides once who the operator is: to Alibaba Cloud, and to the cluster.
func (s *settings) identify(mgr ctrl.Manager, api *openapi.Client) (err error) {
	source := credentials.Config{
		Secrets: mgr.GetAPIReader(), AmbientNamespaces: s.ambientNamespaces, API: api, STSRegion: s.stsRegion,
		Clock: clock.RealClock{},
	}
	source.Ambient, s.credentials = credentials.Ambient(s.credentials, os.Getenv, api, s.stsRegion, clock.RealClock{})
	s.images.Credentials = credentials.New(source)
	s.images.Operator, err = customimage.WhoAmI(context.Background(), mgr.GetClient())
	return err
}

func parseFlags() (*settings, error) {
	s := &settings{}
	s.bindCloudFlags()
	s.bindManagerFlags()
	logging := zap.Options{StacktraceLevel: zapcore.PanicLevel} // that ECS cannot be reached needs no stack trace
	logging.BindFlags(flag.CommandLine)
	flag.Parse()
	setLogger(zap.NewRaw(zap.UseFlagOptions(&logging)))
	if flag.NArg() > 0 { // what stands behind it would be ignored, an --ecs-endpoint for example
		return nil, fmt.Errorf("unexpected argument %q; write booleans as --flag=true", flag.Arg(0))
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return s, s.complete()
}

// setLogger sends every line to one logger: those of this program, of client-go, and of net/http, which uses package log.
func setLogger(logger *uberzap.Logger) {
	ctrl.SetLogger(zapr.NewLogger(logger))
	klog.SetLogger(zapr.NewLogger(logger))
	uberzap.RedirectStdLog(logger)
}

func (s *settings) bindCloudFlags() {
	flag.StringVar(&s.api.Endpoints.Override, "ecs-endpoint", "",
		"URL for all calls of ECS, such as http://127.0.0.1:8089 of a simulator. Default: the endpoints of Alibaba Cloud.")
	flag.StringVar(&s.stsEndpoint, "sts-endpoint", "",
		"URL for all calls of STS. Default: --ecs-endpoint if that is set, else the endpoint of Alibaba Cloud.")
	flag.StringVar(&s.network, "network", "public", "Which endpoints of Alibaba Cloud to call: public or vpc.")
	flag.StringVar(&s.stsRegion, "sts-region", credentials.STSRegion(os.Getenv), "Region of the STS endpoint to call, "+
		"required with --network=vpc unless an endpoint is set. Default: the environment variable "+
		"ALIBABA_CLOUD_STS_REGION or ALIBABA_CLOUD_REGION_ID.")
	flag.StringVar(&s.credentials, "credentials", "auto", "The operator's own identity, for objects that name no "+
		"Secret: auto (rrsa if its variables are set, else env), rrsa, env, ecs-role or none.")
	flag.Func("ambient-namespaces", "Namespaces whose objects may use the operator's own identity, separated by "+
		"commas; * for all. Default: the operator's own namespace; outside a cluster: all.", names(&s.ambientNamespaces))
	flag.DurationVar(&s.api.Timeout, "request-timeout", 45*time.Second, "Time limit of one call of ECS or STS.")
}

func (s *settings) bindManagerFlags() {
	m := &s.manager
	s.images.Waiting, s.images.Blocked = customimage.DefaultWaiting, customimage.DefaultBlocked
	flag.Var(&s.images.Waiting, "waiting-backoff", "First and longest wait between attempts while ECS works on an image.")
	flag.Var(&s.images.Blocked, "blocked-backoff", "First and longest wait between attempts while a user has to act.")
	flag.DurationVar(&s.images.Resync, "resync-interval", 6*time.Hour, "How often to check a live image in ECS.")
	flag.IntVar(&s.images.MaxConcurrentReconciles, "max-concurrent-reconciles", 64,
		"How many objects of one region, account or source of access keys to work on at the same time. A quarter more, and "+
			"at least 3, is left for others.")
	flag.Func("namespaces", "Namespaces to watch, separated by commas. Default: all.", names(&s.images.Namespaces))
	flag.BoolVar(&m.LeaderElection, "leader-elect", false, "Work only while this process is the elected leader.")
	flag.StringVar(&m.LeaderElectionNamespace, "leader-election-namespace", "",
		"Namespace of the Lease for leader election. Default: the operator's own namespace; required outside a cluster.")
	flag.StringVar(&m.Metrics.BindAddress, "metrics-bind-address", ":8443", "Address to serve metrics on; 0 to disable.")
	flag.BoolVar(&m.Metrics.SecureServing, "metrics-secure", true,
		"Serve metrics over HTTPS and require Kubernetes authentication and authorization.")
	flag.StringVar(&m.HealthProbeBindAddress, "health-probe-bind-address", ":8081",
		"Address to serve /healthz and /readyz on; 0 to disable.")
}

// names reads the namespaces that a flag lists.
func names(into *[]string) func(list string) error {
	return func(list string) error {
		*into = strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' })
		if list != "" && len(*into) == 0 {
			return errors.New("want names separated by commas")
		}
		return nil
	}
}

// complete adds what follows from the flags, and what no flag decides.
func (s *settings) complete() (err error) {
	m := &s.manager
	m.Scheme = runtime.NewScheme()
	_ = clientgoscheme.AddToScheme(m.Scheme) // these two fail only on a program error
	_ = v1alpha1.AddToScheme(m.Scheme)
	m.Metrics.TLSOpts = []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion, c.NextProtos = tls.VersionTLS12, []string{"http/1.1"} // and no HTTP/2
	}}
	if m.Metrics.SecureServing {
		m.Metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	m.LeaderElectionID = "ecs-image-gc"
	m.LeaderElectionReleaseOnCancel = true
	// What is finished when the manager stops is a deletion: the call, and one that tells what came of it.
	stop := 2*s.api.Timeout + 10*time.Second
	m.GracefulShutdownTimeout = &stop
	m.Cache.ByObject = customimage.CacheByObject()
	m.Cache.DefaultTransform = new(customimage.Texts).Slim
	s.api.Endpoints.VPC = s.network == "vpc"
	s.api.Endpoints.Products = map[string]string{"sts": s.stsEndpoint}

	for _, namespace := range s.images.Namespaces {
		if m.Cache.DefaultNamespaces == nil {
			m.Cache.DefaultNamespaces = map[string]cache.Config{}
		}
		m.Cache.DefaultNamespaces[namespace] = cache.Config{}
	}
	if len(s.ambientNamespaces) == 0 {
		s.ambientNamespaces, err = credentials.OwnNamespaces(os.Getenv, os.ReadFile)
	}
	return err
}

func (s *settings) validate() error {
	for _, flag := range []struct {
		name  string
		value any
		valid bool
		want  string
	}{
		{"request-timeout", s.api.Timeout, s.api.Timeout > 0, "more than 0"},
		{"resync-interval", s.images.Resync, s.images.Resync > 0, "more than 0"},
		{"max-concurrent-reconciles", s.images.MaxConcurrentReconciles, s.images.MaxConcurrentReconciles > 0, "1 or more"},
		{"network", s.network, s.network == "public" || s.network == "vpc", "public or vpc"},
		{"sts-region", s.stsRegion, s.stsRegion != "" || !s.callsRegionalSTS(), "a region with --network=vpc, such as cn-hangzhou"},
		{"sts-region", s.stsRegion, regionID.MatchString(s.stsRegion), "the ID of a region, such as cn-hangzhou"},
		{"credentials", s.credentials, slices.Contains(credentials.Sources, s.credentials),
			"one of " + strings.Join(credentials.Sources, ", ")},
		{"ecs-endpoint", s.api.Endpoints.Override, openapi.IsEndpoint(s.api.Endpoints.Override), openapi.WantEndpoint},
		{"sts-endpoint", s.stsEndpoint, openapi.IsEndpoint(s.stsEndpoint), openapi.WantEndpoint},
	} {
		if !flag.valid {
			return fmt.Errorf("--%s is %q: want %s", flag.name, fmt.Sprint(flag.value), flag.want)
		}
	}
	return nil
}

var regionID = regexp.MustCompile(`^([a-z]{2}(-[a-z0-9]+)+)?$`)

// callsRegionalSTS reports whether STS is called at the endpoint of a region.
func (s *settings) callsRegionalSTS() bool {
	return s.network == "vpc" && s.stsEndpoint == "" && s.api.Endpoints.Override == ""
}

// version is set when an image is built, by -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion returns the version of this build, for logs and for Alibaba Cloud.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
