// Command demo shows the operator at work on a machine with nothing but Go: on a real kube-apiserver, and with a
// simulator in place of ECS. It walks one image after another through every documented error of DeleteImage to its
// deletion, prints what a user would type and see, and checks each step. With --sandbox it starts the same and stays.
//
// It runs in the root of the project, needs bin/manager, and takes the control plane from KUBEBUILDER_ASSETS; `make
// demo` and `make sandbox` see to that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	sandbox := flag.Bool("sandbox", false, "Start what the demo starts, and stay.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *sandbox); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sandbox bool) (err error) {
	began := time.Now()
	fmt.Println("Starting etcd, kube-apiserver, a simulator of ECS, and the operator.")
	s := &stage{}
	// Whatever has been started by then is stopped, on a failure as well as on Ctrl-C.
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.start(ctx); err != nil {
		return err
	}
	if sandbox {
		return s.stay(ctx)
	}
	for number, scene := range scenes {
		if err := s.play(ctx, number+1, scene); err != nil {
			return fmt.Errorf("scene %d, %s: %w", number+1, scene.title, err)
		}
	}
	if err := s.checkTheEnd(); err != nil {
		return err
	}
	fmt.Printf("\n%d scenes, %d checks passed in %.0f s.\n", len(scenes), s.checks, time.Since(began).Seconds())
	return nil
}
