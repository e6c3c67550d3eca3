package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	manager        = "bin/manager"
	serviceAccount = "imagegc-controller-manager"
	cleanExit      = "exit status 0"
	// patience is how long anything may take that is expected to happen.
	patience = 30 * time.Second
)

// operator is the process under demonstration.
type operator struct {
	command *exec.Cmd
	log     string        // file
	exited  chan struct{} // closed when it has
}

// startOperator starts bin/manager as its service account, with a key of the simulated cloud. From then on the
// stage's context ends when the operator does.
func (s *stage) startOperator(ctx context.Context, backoffs []string) error {
	kubeconfig, err := s.operatorKubeconfig()
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "imagegc-manager-*.log")
	if err != nil {
		return err
	}
	o := &operator{log: file.Name(), exited: make(chan struct{})}
	s.operator = o
	o.command = s.operatorCommand(ctx, backoffs, kubeconfig)
	o.command.Stdout, o.command.Stderr = file, file
	err = o.command.Start()
	_ = file.Close() // the child has its own
	if err != nil {
		return fmt.Errorf("start the operator: %w", err)
	}
	running, cancel := context.WithCancelCause(ctx)
	s.ctx = running
	go func() {
		_ = o.command.Wait() // its end is in ProcessState
		close(o.exited)
		cancel(fmt.Errorf("the operator ended before its time: %s", o.command.ProcessState))
	}()
	s.cleanups = append(s.cleanups, func() error {
		select {
		case <-o.exited:
			return nil // whoever saw it end has judged it
		default:
		}
		state, err := o.stop()
		if err == nil && state != cleanExit {
			err = fmt.Errorf("the operator stopped with %s", state)
		}
		return err
	})
	return nil
}

func (s *stage) operatorCommand(ctx context.Context, backoffs []string, kubeconfig string) *exec.Cmd {
	// Not even a cancelled context kills it: it is asked to stop, and has to.
	command := exec.CommandContext(context.WithoutCancel(ctx), manager, append(backoffs,
		"--ecs-endpoint="+s.cloudURL, "--metrics-bind-address=0", "--health-probe-bind-address=0")...)
	// Nothing is inherited: no key and no cluster of the person who watches.
	command.Env = []string{
		"KUBECONFIG=" + kubeconfig,
		"ALIBABA_CLOUD_ACCESS_KEY_ID=" + keyID,
		"ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + keySecret,
	}
	command.SysProcAttr = ownGroup()
	return command
}

// ownGroup keeps a Ctrl-C from a process: the demo stops what it started, in order.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// operatorKubeconfig logs in as the service account, with a token that the API server issues.
func (s *stage) operatorKubeconfig() (string, error) {
	token, err := s.kubectl.run(s.ctx, s.dir, "create", "token", serviceAccount)
	if err != nil {
		return "", fmt.Errorf("create a token for the operator: %w\n%s", err, token)
	}
	file := filepath.Join(s.dir, "operator.kubeconfig")
	return file, writeKubeconfig(file, s.config, &clientcmdapi.AuthInfo{Token: strings.TrimSpace(token)})
}

// stop asks the operator to end, sees to it that it does, and returns how it ended.
func (o *operator) stop() (string, error) {
	err := o.command.Process.Signal(syscall.SIGTERM)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return "", fmt.Errorf("stop the operator: %w", err)
	}
	select {
	case <-o.exited:
		return o.command.ProcessState.String(), nil
	case <-time.After(patience):
	}
	err = o.command.Process.Kill()
	<-o.exited
	return "", errors.Join(fmt.Errorf("the operator did not stop within %s of a SIGTERM, and was killed", patience), err)
}

// printLog prints the end of the log, and where all of it is.
func (o *operator) printLog() {
	if o == nil {
		return
	}
	data, _ := os.ReadFile(o.log) // an empty end says enough
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	last := lines[max(0, len(lines)-15):]
	fmt.Fprintf(os.Stderr, "\nThe operator's log is %s and ends:\n%s\n", o.log, strings.Join(last, "\n"))
}

func (o *operator) removeLog() error {
	if o == nil {
		return nil
	}
	return os.Remove(o.log)
}
