package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
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
	region    = "cn-hangzhou"
	elsewhere = "cn-beijing"
	account   = "1234567890123456"
	keyID     = "bench-id"
	keySecret = "bench-secret"
	latency   = 100 * time.Millisecond
	workers   = 64
)

// bench is a control plane and a simulated cloud, for one case after another.
type bench struct {
	settings
	ctx      context.Context
	dir      string
	config   *rest.Config
	client   client.Client
	cloud    *ecssim.Server
	cloudURL string
	hung     atomic.Value // the region whose calls get no answer
	// Kubeconfigs of the operator's service account, and of an administrator.
	operator, admin string
	results         results
	cleanups        []func()
}

// raise starts everything but the contenders. What it returns is to be closed, on an error as well.
func raise(ctx context.Context, s settings) (*bench, error) {
	ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard)))
	b := &bench{settings: s, ctx: ctx, results: results{}}
	for _, step := range []func() error{b.prepare, b.startControlPlane, b.startCloud, b.install, b.writeKubeconfigs} {
		if err := step(); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b *bench) close() {
	for _, cleanup := range slices.Backward(b.cleanups) {
		cleanup()
	}
}

func (b *bench) prepare() (err error) {
	if b.dir, err = os.MkdirTemp("", "imagegc-bench-"); err != nil {
		return err
	}
	b.cleanups = append(b.cleanups, func() { _ = os.RemoveAll(b.dir) })
	if err := os.MkdirAll(filepath.Join(b.root, b.out), 0o750); err != nil {
		return err
	}
	stock := exec.CommandContext(b.ctx, "go", "build", "-o", filepath.Join(b.dir, "stock"), "./stock")
	stock.Dir = filepath.Join(b.root, "hack/bench")
	if out, err := stock.CombinedOutput(); err != nil {
		return fmt.Errorf("build the stock controller: %w\n%s", err, out)
	}
	return nil
}

func (b *bench) startControlPlane() (err error) {
	data, certs := filepath.Join(b.dir, "etcd"), filepath.Join(b.dir, "certs")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(certs, 0o700)); err != nil {
		return err
	}
	environment := &envtest.Environment{
		ControlPlane: envtest.ControlPlane{Etcd: &envtest.Etcd{DataDir: data}, APIServer: &envtest.APIServer{CertDir: certs}},
		// Whatever the environment says: this deletes things.
		UseExistingCluster: ptr.To(false),
	}
	b.cleanups = append(b.cleanups, func() { _ = environment.Stop() })
	if b.config, err = environment.Start(); err != nil {
		return fmt.Errorf("start the control plane: %w", err)
	}
	b.config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	b.client, err = client.New(b.config, client.Options{Scheme: scheme})
	return err
}

func (b *bench) startCloud() error {
	listener, err := (&net.ListenConfig{}).Listen(b.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(b.serveECS), ReadHeaderTimeout: 10 * time.Second}
	b.cloudURL = "http://" + listener.Addr().String()
	go func() { _ = server.Serve(listener) }()
	b.cleanups = append(b.cleanups, func() { b.cloud.Close(); _ = server.Close() })
	return b.resetCloud(func(*ecssim.Scenario) {})
}

func (b *bench) serveECS(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("RegionId") == b.hung.Load() {
		<-r.Context().Done()
		return
	}
	b.cloud.ServeHTTP(w, r)
}

// resetCloud replaces the cloud by an empty one, which has recorded no call yet.
func (b *bench) resetCloud(change func(*ecssim.Scenario)) (err error) {
	scenario := ecssim.Scenario{AccountID: account, AccessKeys: []ecssim.AccessKey{{ID: keyID, Secret: keySecret}},
		Latency: ecssim.Duration(latency)}
	change(&scenario)
	if b.cloud != nil {
		b.cloud.Close()
	}
	b.cloud, err = ecssim.New(scenario, nil)
	return err
}

// install applies all that is shipped: roles and admission policies count here too.
func (b *bench) install() error {
	build := exec.CommandContext(b.ctx, "go", "tool", "-modfile=hack/tools/go.mod", "kustomize", "build", "config/default")
	build.Dir = b.root
	manifests, err := build.Output()
	if err != nil {
		return fmt.Errorf("build config/default: %w", err)
	}
	apply := exec.CommandContext(b.ctx, filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"),
		"--server="+b.config.Host, "--kubeconfig="+b.writeKubeconfig("admin", &clientcmdapi.AuthInfo{
			ClientCertificateData: b.config.CertData, ClientKeyData: b.config.KeyData}),
		"apply", "--server-side", "-f", "-")
	apply.Stdin = bytes.NewReader(manifests)
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("install config/default: %w\n%s", err, out)
	}
	// For some seconds after it got a CRD, the API server answers 503 to creations.
	return wait.PollUntilContextTimeout(b.ctx, 100*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return b.client.Create(ctx, image("first", region), client.DryRunAll) == nil, nil
	})
}

func (b *bench) writeKubeconfigs() error {
	create := exec.CommandContext(b.ctx, filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "--kubeconfig="+b.admin,
		"create", "token", "imagegc-controller-manager", "-n", namespace, "--duration=24h")
	token, err := create.CombinedOutput()
	if err != nil {
		return fmt.Errorf("create a token for the operator: %w\n%s", err, token)
	}
	b.operator = b.writeKubeconfig("operator", &clientcmdapi.AuthInfo{Token: strings.TrimSpace(string(token))})
	return nil
}

func (b *bench) writeKubeconfig(name string, who *clientcmdapi.AuthInfo) string {
	content := clientcmdapi.NewConfig()
	content.Clusters["c"] = &clientcmdapi.Cluster{Server: b.config.Host, CertificateAuthorityData: b.config.CAData}
	content.AuthInfos["u"] = who
	content.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u", Namespace: namespace}
	content.CurrentContext = "x"
	file := filepath.Join(b.dir, name+".kubeconfig")
	if err := clientcmd.WriteToFile(*content, file); err != nil {
		panic(err) // the directory is our own
	}
	if name == "admin" {
		b.admin = file
	}
	return file
}

func image(id, regionID string) *v1alpha1.CustomImage {
	return &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: id},
		Spec:       v1alpha1.CustomImageSpec{RegionID: regionID, ImageID: "m-" + id},
	}
}
