package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// contender is a controller that runs in a process of its own.
type contender struct {
	b       *bench
	command *exec.Cmd
	metrics string // URL
	started time.Time
	exited  chan struct{}
}

// start starts the operator.
func (b *bench) start(args ...string) (*contender, error) {
	return b.launch(filepath.Join(b.root, "bin/manager"), b.operator, append([]string{
		"--metrics-secure=false", "--health-probe-bind-address=0", "--ambient-namespaces=*", "--zap-log-level=info"}, args...)...)
}

func (b *bench) startStock(args ...string) (*contender, error) {
	return b.launch(filepath.Join(b.dir, "stock"), b.admin, args...)
}

func (b *bench) launch(program, kubeconfig string, args ...string) (*contender, error) {
	listener, err := (&net.ListenConfig{}).Listen(b.ctx, "tcp", "127.0.0.1:0") // a free address
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(b.root, b.out, "contender.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	c := &contender{b: b, metrics: "http://" + address + "/metrics", exited: make(chan struct{}), started: time.Now()}
	c.command = exec.CommandContext(context.WithoutCancel(b.ctx), program,
		append(args, "--kubeconfig="+kubeconfig, "--ecs-endpoint="+b.cloudURL, "--metrics-bind-address="+address)...)
	c.command.Env = []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=" + keyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + keySecret}
	c.command.Stdout, c.command.Stderr = log, log
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.command.Wait() // a contender that ends too early leaves objects behind, which is noticed
		close(c.exited)
	}()
	b.cleanups = append(b.cleanups, c.kill)
	return c, nil
}

func (c *contender) stop() {
	_ = c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(time.Minute):
		c.kill()
	}
}

func (c *contender) kill() {
	_ = c.command.Process.Kill()
	<-c.exited
}

// usage is what a process has used since it started.
type usage struct {
	cpu                            float64 // s
	resident, peak                 float64 // MiB
	reads, writes                  float64 // requests to the API server
	reconciles                     float64
	deletes, describes, otherCalls float64 // of ECS, as the simulator has recorded them
}

func (u usage) minus(v usage) usage {
	return usage{cpu: u.cpu - v.cpu, resident: u.resident, peak: u.peak, reads: u.reads - v.reads, writes: u.writes - v.writes,
		reconciles: u.reconciles - v.reconciles, deletes: u.deletes - v.deletes, describes: u.describes - v.describes,
		otherCalls: u.otherCalls - v.otherCalls}
}

const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on

// usage reads what the kernel, the process's metrics and the simulator tell.
func (c *contender) usage() (u usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.command.Process.Pid))
	if err != nil {
		return u, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	for _, field := range fields[11:13] { // utime and stime
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return u, err
		}
		u.cpu += ticks / ticksPerSecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.command.Process.Pid))
	if err != nil {
		return u, err
	}
	for _, match := range regexp.MustCompile(`(VmHWM|VmRSS):\s+(\d+) kB`).FindAllStringSubmatch(string(status), -1) {
		kib, _ := strconv.ParseFloat(match[2], 64)
		if match[1] == "VmHWM" {
			u.peak = kib / 1024
		} else {
			u.resident = kib / 1024
		}
	}
	for _, call := range c.b.cloud.Calls() {
		switch call.Action {
		case "DeleteImage":
			u.deletes++
		case "DescribeImages":
			u.describes++
		default:
			u.otherCalls++
		}
	}
	return u, c.scrape(&u)
}

// scrape counts requests and reconciles. Renewals of the lease are not there: nothing elects a leader here.
func (c *contender) scrape(u *usage) error {
	request, err := http.NewRequestWithContext(c.b.ctx, http.MethodGet, c.metrics, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		count, _ := strconv.ParseFloat(value, 64)
		switch {
		case strings.HasPrefix(name, "rest_client_requests_total{") && strings.Contains(name, `method="GET"`):
			u.reads += count
		case strings.HasPrefix(name, "rest_client_requests_total{"):
			u.writes += count
		case strings.HasPrefix(name, "controller_runtime_reconcile_total{"):
			u.reconciles += count
		}
	}
	return lines.Err()
}
