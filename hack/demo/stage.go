package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	namespace = "imagegc-system"
	region    = "cn-hangzhou"
	keyID     = "demo-id"
	keySecret = "demo-secret" // #nosec G101: of the simulator
)

// stage is all that a scene plays on.
type stage struct {
	dir        string // of manifests, kubeconfigs and the operator's log; gone at the end
	cluster    *envtest.Environment
	admin      client.Client
	kubeconfig string // of the person at the keyboard
	sim        *ecssim.Server
	simServer  *http.Server
	simURL     string
	manager    *exec.Cmd
	managerEnd chan error
	checks     int
}

func (s *stage) start(ctx context.Context) (err error) {
	ctrl.SetLogger(zap.New(zap.WriteTo(&bytes.Buffer{})))
	if s.dir, err = os.MkdirTemp("", "ecs-image-gc-"); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.startCluster, s.startSimulator, s.startManager} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) startCluster(ctx context.Context) error {
	s.cluster = &envtest.Environment{
		CRDDirectoryPaths:     []string{"config/crd/bases"},
		ErrorIfCRDPathMissing: true,
	}
	config, err := s.cluster.Start()
	if err != nil {
		return fmt.Errorf("start the control plane: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	if s.admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	s.kubeconfig, err = s.writeKubeconfig("kubeconfig", s.cluster.KubeConfig)
	if err != nil {
		return err
	}
	return s.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
}

// writeKubeconfig writes a kubeconfig that begins in the namespace of the scenes.
func (s *stage) writeKubeconfig(name string, data []byte) (string, error) {
	config, err := clientcmd.Load(data)
	if err != nil {
		return "", err
	}
	for _, c := range config.Contexts {
		c.Namespace = namespace
	}
	file := filepath.Join(s.dir, name)
	return file, clientcmd.WriteToFile(*config, file)
}

func (s *stage) startSimulator(ctx context.Context) error {
	sim, err := ecssim.New(ecssim.Scenario{
		AccountID:  "1234567890123456",
		AccessKeys: []ecssim.AccessKey{{ID: keyID, Secret: keySecret}},
	}, nil)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.sim, s.simURL = sim, "http://"+listener.Addr().String()
	s.simServer = &http.Server{Handler: sim, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.simServer.Serve(listener) }()
	return nil
}

// startManager runs the operator.
func (s *stage) startManager(ctx context.Context) error {
	kubeconfig, err := s.operatorKubeconfig(ctx)
	if err != nil {
		return err
	}
	log, err := os.Create(s.managerLog())
	if err != nil {
		return err
	}
	// It does not end with ctx, but is told to stop, and watched while it does.
	s.manager = exec.CommandContext(context.WithoutCancel(ctx), "bin/manager",
		"--kubeconfig="+kubeconfig, "--ecs-endpoint="+s.simURL,
		"--waiting-backoff=1s,2s", "--blocked-backoff=1s,2s",
		"--metrics-bind-address=0", "--health-probe-bind-address=0")
	s.manager.Env = []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=" + keyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + keySecret}
	s.manager.Stdout, s.manager.Stderr = log, log
	s.manager.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this program alone
	if err := s.manager.Start(); err != nil {
		s.manager = nil
		return fmt.Errorf("start the operator: %w", err)
	}
	s.managerEnd = make(chan error, 1)
	go func() { s.managerEnd <- s.manager.Wait(); _ = log.Close() }()
	return nil
}

// operatorKubeconfig makes a user of the cluster with the role that is installed for the operator, and no more.
func (s *stage) operatorKubeconfig(ctx context.Context) (string, error) {
	data, err := os.ReadFile("config/rbac/role.yaml")
	if err != nil {
		return "", err
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(data, role); err != nil {
		return "", err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "operator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "operator"}},
	}
	if err := errors.Join(s.admin.Create(ctx, role), s.admin.Create(ctx, binding)); err != nil {
		return "", err
	}
	user, err := s.cluster.AddUser(envtest.User{Name: "operator"}, nil)
	if err != nil {
		return "", err
	}
	config, err := user.KubeConfig()
	if err != nil {
		return "", err
	}
	return s.writeKubeconfig("operator.kubeconfig", config)
}

func (s *stage) managerLog() string { return filepath.Join(s.dir, "manager.log") }

// stop ends what start began, and returns an error if the operator did not end as it should.
func (s *stage) stop() error {
	var failed error
	if s.manager != nil {
		_ = s.manager.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-s.managerEnd:
			if err != nil {
				failed = fmt.Errorf("the operator ended with %w; the end of its log:\n%s", err, s.logTail())
			}
		case <-time.After(30 * time.Second):
			_ = s.manager.Process.Kill()
			failed = errors.New("the operator did not stop within 30 s")
		}
	}
	if s.simServer != nil {
		s.sim.Close()
		_ = s.simServer.Close()
	}
	if s.cluster != nil {
		failed = errors.Join(failed, s.cluster.Stop())
	}
	return errors.Join(failed, os.RemoveAll(s.dir))
}

func (s *stage) logTail() string {
	data, _ := os.ReadFile(s.managerLog())
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// kubectl prints a command as a user would type it, runs it, and prints what it prints.
func (s *stage) kubectl(ctx context.Context, args ...string) error {
	shown := make([]string, len(args))
	for i, arg := range args {
		if shown[i] = arg; strings.ContainsAny(arg, " {}[]?") {
			shown[i] = "'" + arg + "'"
		}
	}
	fmt.Println("$ kubectl " + strings.Join(shown, " "))
	command := exec.CommandContext(ctx, s.cluster.ControlPlane.KubectlPath, args...)
	command.Dir = s.dir
	command.Env = append(os.Environ(), "KUBECONFIG="+s.kubeconfig)
	output, err := command.CombinedOutput()
	fmt.Print(string(output))
	if err != nil {
		return fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
