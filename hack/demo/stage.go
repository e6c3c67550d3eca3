package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	namespace = "imagegc-system"
	account   = "1234567890123456"
	keyID     = "demo-id"
	keySecret = "demo-secret"
)

// stage is a control plane, a simulated cloud, and the operator between them.
type stage struct {
	ctx        context.Context // ends with the demo, or with the operator
	dir        string          // all files but the operator's log
	assets     string          // the control plane's binaries
	kubeconfig string          // of the viewer
	kubectl    kubectl
	config     *rest.Config
	client     client.Client // the viewer's too, for the checks
	cloud      *ecssim.Server
	cloudURL   string
	operator   *operator
	cleanups   []func() error
}

// raise starts everything. What it returns is to be closed, on an error as well.
func raise(ctx context.Context, sandbox bool) (*stage, error) {
	ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard)))
	s := &stage{ctx: ctx, assets: os.Getenv("KUBEBUILDER_ASSETS")}
	scenario, backoffs := scenarioOfDemo, []string{"--waiting-backoff=500ms,1s", "--blocked-backoff=500ms,1s"}
	if sandbox {
		var err error
		if scenario, err = ecssim.ParseScenario(scenarioOfSandbox); err != nil {
			return s, err
		}
		backoffs = []string{"--waiting-backoff=2s,10s", "--blocked-backoff=15s,2m"}
	}
	fmt.Println("Starting kube-apiserver, etcd and a simulated ECS on this machine ...")
	for _, step := range []func() error{
		s.prepare,
		s.startControlPlane,
		func() error { return s.startCloud(scenario) },
		s.install,
		func() error { return s.startOperator(ctx, backoffs) },
	} {
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		if err := step(); err != nil {
			return s, err
		}
	}
	return s, nil
}

// close stops what was started, last first. The operator's log outlives an error that it may explain.
func (s *stage) close(cause error) error {
	failed := cause != nil && !errors.Is(cause, errInterrupted)
	if failed {
		s.operator.printLog() // before its own end fills it
	}
	var errs []error
	for _, cleanup := range slices.Backward(s.cleanups) {
		errs = append(errs, cleanup())
	}
	err := errors.Join(errs...)
	switch {
	case err != nil && !failed:
		s.operator.printLog()
	case !failed:
		err = s.operator.removeLog()
	}
	return err
}

// prepare looks for what has to be there, and makes the directory for everything else.
func (s *stage) prepare() (err error) {
	if s.assets == "" {
		return errors.New("KUBEBUILDER_ASSETS names no directory with a control plane: use `make demo`")
	}
	if _, err := os.Stat(manager); err != nil {
		return fmt.Errorf("%w: use `make demo`, or build it in the project's root with `make build`", err)
	}
	if s.assets, err = filepath.Abs(s.assets); err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp("", "imagegc-demo-"); err != nil {
		return err
	}
	s.cleanups = append(s.cleanups, func() error { return os.RemoveAll(s.dir) })
	return nil
}

func (s *stage) startControlPlane() error {
	data, certs := filepath.Join(s.dir, "etcd"), filepath.Join(s.dir, "certs")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(certs, 0o700)); err != nil {
		return err
	}
	environment := &envtest.Environment{
		ControlPlane: envtest.ControlPlane{
			Etcd:      &envtest.Etcd{DataDir: data},
			APIServer: &envtest.APIServer{CertDir: certs},
		},
		CRDDirectoryPaths:     []string{"config/crd/bases"},
		ErrorIfCRDPathMissing: true,
		BinaryAssetsDirectory: s.assets,
		UseExistingCluster:    ptr.To(false), // whatever the environment says: this deletes things
	}
	s.cleanups = append(s.cleanups, environment.Stop)
	var err error
	if s.config, err = environment.Start(); err != nil {
		return fmt.Errorf("start the control plane: %w", err)
	}
	if s.client, err = newClient(s.config); err != nil {
		return err
	}
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	s.kubectl = kubectl{path: filepath.Join(s.assets, "kubectl"), home: s.dir, kubeconfig: s.kubeconfig}
	return writeKubeconfig(s.kubeconfig, s.config, &clientcmdapi.AuthInfo{
		ClientCertificateData: s.config.CertData,
		ClientKeyData:         s.config.KeyData,
	})
}

func newClient(config *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
}

func writeKubeconfig(file string, config *rest.Config, who *clientcmdapi.AuthInfo) error {
	const name = "demo"
	content := clientcmdapi.NewConfig()
	content.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	content.AuthInfos[name] = who
	content.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	content.CurrentContext = name
	return clientcmd.WriteToFile(*content, file)
}

func (s *stage) startCloud(scenario ecssim.Scenario) error {
	cloud, err := ecssim.New(scenario, nil)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(s.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: cloud, ReadHeaderTimeout: 10 * time.Second}
	s.cloud, s.cloudURL = cloud, "http://"+listener.Addr().String()
	go func() { _ = server.Serve(listener) }()
	s.cleanups = append(s.cleanups, func() error {
		cloud.Close()
		return server.Close()
	})
	return nil
}

// install applies all that is shipped: roles and admission policies count here too. Nothing starts the Deployment, as
// there are no nodes.
func (s *stage) install() error {
	if out, err := s.kubectl.run(s.ctx, ".", "apply", "--server-side", "-k", "config/default"); err != nil {
		return fmt.Errorf("install config/default: %w\n%s", err, out)
	}
	// For some seconds after it got a CRD, the API server answers 503 to a creation that a MutatingAdmissionPolicy changes.
	first := &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "first"},
		Spec:       v1alpha1.CustomImageSpec{RegionID: region, ImageID: watched.image.ImageID},
	}
	var err error
	_ = wait.PollUntilContextTimeout(s.ctx, 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err = s.client.Create(ctx, first.DeepCopy(), client.DryRunAll)
		return err == nil, nil
	})
	return err
}
