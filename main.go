// The manager of ECS Image GC: flags, clients, controllers. Wiring only.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // for kubeconfigs that log in with a plugin
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

// settings is what flags say: of the manager, of the client of Alibaba Cloud, and of the reconciler.
type settings struct {
	manager ctrl.Options
	api     openapi.Config
	images  controller.CustomImageReconciler
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
	mgr, err := ctrl.NewManager(config, s.manager)
	if err != nil {
		return fmt.Errorf("create the manager: %w", err)
	}
	s.api.Credentials = credentials.FromEnvironment(os.Getenv)
	s.api.Connections = s.images.MaxConcurrentReconciles
	s.api.Clock = clock.RealClock{}
	s.api.UserAgent = "ecs-image-gc/" + version()
	s.api.Observe = controller.ObserveECSCall

	s.images.Client = mgr.GetClient()
	s.images.Live = mgr.GetAPIReader()
	s.images.ECS = ecs.New(openapi.New(s.api))
	s.images.Events = mgr.GetEventRecorder("ecs-image-gc")
	s.images.Clock = clock.RealClock{}
	if err := s.images.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("add the CustomImage controller: %w", err)
	}
	metrics.Registry.MustRegister(controller.CustomImageCollector{Reader: mgr.GetCache()})
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", version())
	return mgr.Start(ctrl.SetupSignalHandler())
}

func parseFlags() (*settings, error) {
	s := &settings{images: controller.CustomImageReconciler{
		Waiting: controller.Backoff{First: 5 * time.Second, Longest: 5 * time.Minute},
		Blocked: controller.Backoff{First: 30 * time.Second, Longest: 10 * time.Minute},
	}}
	m := &s.manager
	flag.StringVar(&s.api.Endpoints.Override, "ecs-endpoint", "",
		"Where to send all calls, such as http://127.0.0.1:8089 of a simulator. Default: Alibaba Cloud's own endpoints.")
	network := flag.String("network", "public", "Which of Alibaba Cloud's endpoints to call: public or vpc.")
	flag.DurationVar(&s.api.Timeout, "request-timeout", 45*time.Second, "How long one ECS call may take.")
	flag.Var(&s.images.Waiting, "waiting-backoff", "First and longest wait while ECS works on an image.")
	flag.Var(&s.images.Blocked, "blocked-backoff", "First and longest wait while somebody has to act.")
	flag.DurationVar(&s.images.Resync, "resync-interval", 6*time.Hour, "How often ECS is asked about a live image.")
	flag.IntVar(&s.images.MaxConcurrentReconciles, "max-concurrent-reconciles", 64,
		"How many objects are worked on at once.")
	namespaces := flag.String("namespaces", "", "Which namespaces to watch, separated by commas. Default: all.")
	flag.BoolVar(&m.LeaderElection, "leader-elect", false, "Work only while this process is the elected leader.")
	flag.StringVar(&m.LeaderElectionNamespace, "leader-election-namespace", "",
		"Where the Lease of the leader election is. Default: the operator's own namespace; needed outside a cluster.")
	flag.StringVar(&m.Metrics.BindAddress, "metrics-bind-address", ":8443", "Where metrics are served; 0 for nowhere.")
	flag.BoolVar(&m.Metrics.SecureServing, "metrics-secure", true,
		"Serve metrics with TLS, to those alone whom the cluster authenticates and authorizes.")
	flag.StringVar(&m.HealthProbeBindAddress, "health-probe-bind-address", ":8081",
		"Where /healthz and /readyz are served; 0 for nowhere.")
	logging := zap.Options{StacktraceLevel: zapcore.PanicLevel} // that ECS cannot be reached needs no stack trace
	logging.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))

	s.completeManager(*namespaces)
	s.api.Endpoints.VPC = *network == "vpc"
	if flag.NArg() > 0 { // what stands behind it would be ignored, an --ecs-endpoint for example
		return nil, fmt.Errorf("%q is no flag; a bool is written --flag=true", flag.Arg(0))
	}
	if *namespaces != "" && len(m.Cache.DefaultNamespaces) == 0 {
		return nil, fmt.Errorf("--namespaces is %q: want names separated by commas", *namespaces)
	}
	return s, s.validate(*network)
}

// completeManager adds what follows from the flags, and what no flag decides.
func (s *settings) completeManager(namespaces string) {
	m := &s.manager
	m.Scheme = runtime.NewScheme()
	_ = clientgoscheme.AddToScheme(m.Scheme) // these two fail only on a program error
	_ = v1alpha1.AddToScheme(m.Scheme)
	m.Metrics.TLSOpts = []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }}
	if m.Metrics.SecureServing {
		m.Metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	m.LeaderElectionID = "ecs-image-gc"
	m.LeaderElectionReleaseOnCancel = true
	// An attempt is up to three calls, and the one under way when the manager stops is finished.
	stop := 3*s.api.Timeout + 10*time.Second
	m.GracefulShutdownTimeout = &stop
	for namespace := range strings.FieldsFuncSeq(namespaces, func(c rune) bool { return c == ',' || c == ' ' }) {
		if m.Cache.DefaultNamespaces == nil {
			m.Cache.DefaultNamespaces = map[string]cache.Config{}
		}
		m.Cache.DefaultNamespaces[namespace] = cache.Config{}
	}
}

func (s *settings) validate(network string) error {
	for _, duration := range []struct {
		flag  string
		value time.Duration
	}{{"request-timeout", s.api.Timeout}, {"resync-interval", s.images.Resync}} {
		if duration.value <= 0 {
			return fmt.Errorf("--%s is %s: want more than 0", duration.flag, duration.value)
		}
	}
	if s.images.MaxConcurrentReconciles < 1 {
		return fmt.Errorf("--max-concurrent-reconciles is %d: want 1 or more", s.images.MaxConcurrentReconciles)
	}
	if network != "public" && network != "vpc" {
		return fmt.Errorf("--network is %q: want public or vpc", network)
	}
	if err := s.api.Endpoints.Validate(); err != nil {
		return fmt.Errorf("--ecs-endpoint: %w", err)
	}
	return nil
}

// version returns the version of this build, for logs and for Alibaba Cloud.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
