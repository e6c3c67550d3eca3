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

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubeconfigs that log in with a plugin
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller"
	"github.com/imagegc/ecs-image-gc/internal/credentials"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

func main() {
	if err := run(); err != nil {
		ctrl.Log.Error(err, "Stopped with an error")
		os.Exit(1)
	}
}

// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

func run() error {
	options, err := parseFlags()
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	mgr, err := ctrl.NewManager(config, options.manager())
	if err != nil {
		return fmt.Errorf("create the manager: %w", err)
	}
	api := openapi.New(openapi.Config{
		Credentials: credentials.FromEnvironment(os.Getenv),
		Endpoints:   options.endpoints,
		Timeout:     options.requestTimeout,
		UserAgent:   "ecs-image-gc/" + version(),
		Observe:     controller.ObserveECSCall,
		Clock:       clock.RealClock{},
	})
	images := &controller.CustomImageReconciler{
		Client:                  mgr.GetClient(),
		Live:                    mgr.GetAPIReader(),
		ECS:                     ecs.New(api),
		Events:                  mgr.GetEventRecorder("ecs-image-gc"),
		Clock:                   clock.RealClock{},
		Waiting:                 options.waiting,
		Blocked:                 options.blocked,
		Resync:                  options.resync,
		MaxConcurrentReconciles: options.concurrency,
	}
	if err := images.SetupWithManager(mgr); err != nil {
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

type flags struct {
	endpoints        openapi.Endpoints
	waiting, blocked controller.Backoff
	resync           time.Duration
	requestTimeout   time.Duration
	concurrency      int
	namespaces       string
	leaderElect      bool
	leaderNamespace  string
	metricsAddress   string
	metricsSecure    bool
	healthAddress    string
}

func parseFlags() (*flags, error) {
	f := &flags{
		waiting: controller.Backoff{First: 5 * time.Second, Longest: 5 * time.Minute},
		blocked: controller.Backoff{First: 30 * time.Second, Longest: 10 * time.Minute},
	}
	network := "public"
	flag.StringVar(&f.endpoints.Override, "ecs-endpoint", "",
		"One URL for every region, for a simulator or a private gateway.")
	flag.StringVar(&network, "network", network, "Which endpoints of ECS to call: public or vpc.")
	flag.DurationVar(&f.requestTimeout, "request-timeout", 45*time.Second, "How long one ECS call may take.")
	flag.Var(&f.waiting, "waiting-backoff", "First and longest wait while ECS works on an image.")
	flag.Var(&f.blocked, "blocked-backoff", "First and longest wait while somebody has to act.")
	flag.DurationVar(&f.resync, "resync-interval", 6*time.Hour, "How often ECS is asked about a live image.")
	flag.IntVar(&f.concurrency, "max-concurrent-reconciles", 64, "How many objects are worked on at once.")
	flag.StringVar(&f.namespaces, "namespaces", "", "Which namespaces to watch, separated by commas. Default: all.")
	flag.BoolVar(&f.leaderElect, "leader-elect", false, "Work only while this process is the elected leader.")
	flag.StringVar(&f.leaderNamespace, "leader-election-namespace", "",
		"The namespace of the leader election's Lease. Default: the operator's own; needed outside a cluster.")
	flag.StringVar(&f.metricsAddress, "metrics-bind-address", ":8443", "Where metrics are served; 0 for nowhere.")
	flag.BoolVar(&f.metricsSecure, "metrics-secure", true,
		"Serve metrics with TLS, to those alone whom the cluster authenticates and authorizes.")
	flag.StringVar(&f.healthAddress, "health-probe-bind-address", ":8081", "Where /healthz and /readyz are served.")
	var logging zap.Options
	logging.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
	return f, f.validate(network)
}

func (f *flags) validate(network string) error {
	if network != "public" && network != "vpc" {
		return fmt.Errorf("--network is %q: want public or vpc", network)
	}
	f.endpoints.VPC = network == "vpc"
	if err := f.endpoints.Validate(); err != nil {
		return fmt.Errorf("--ecs-endpoint: %w", err)
	}
	if f.requestTimeout <= 0 {
		return fmt.Errorf("--request-timeout is %s: want more than 0", f.requestTimeout)
	}
	if f.resync <= 0 {
		return fmt.Errorf("--resync-interval is %s: want more than 0", f.resync)
	}
	if f.concurrency < 1 {
		return fmt.Errorf("--max-concurrent-reconciles is %d: want at least 1", f.concurrency)
	}
	return nil
}

func (f *flags) manager() ctrl.Options {
	scheme := runtime.NewScheme()
	_ = clientgoscheme.AddToScheme(scheme)
	_ = v1alpha1.AddToScheme(scheme)
	served := metricsserver.Options{
		BindAddress:   f.metricsAddress,
		SecureServing: f.metricsSecure,
		TLSOpts:       []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
	}
	if f.metricsSecure {
		served.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	// An attempt is up to three calls, and the one under way when the manager stops is finished.
	stop := 3*f.requestTimeout + 10*time.Second
	options := ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       served,
		HealthProbeBindAddress:        f.healthAddress,
		LeaderElection:                f.leaderElect,
		LeaderElectionID:              "ecs-image-gc",
		LeaderElectionNamespace:       f.leaderNamespace,
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &stop,
	}
	for namespace := range strings.SplitSeq(f.namespaces, ",") {
		if namespace = strings.TrimSpace(namespace); namespace != "" {
			if options.Cache.DefaultNamespaces == nil {
				options.Cache.DefaultNamespaces = map[string]cache.Config{}
			}
			options.Cache.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	return options
}

// version returns the version of this build, for logs and for Alibaba Cloud.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
