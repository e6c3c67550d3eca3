// Command demo shows the operator at work, on a control plane and a simulated cloud of its own: it takes one image
// after another through every documented error of DeleteImage to its deletion, and checks each step. With --sandbox
// it starts the same and leaves the work to a person.
//
// It wants bin/manager, and a control plane's binaries in the directory KUBEBUILDER_ASSETS. The project's root is
// its working directory. `make demo` and `make sandbox` see to all three.
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
	sandbox := flag.Bool("sandbox", false, "start everything, print what to try, and stay until Ctrl-C")
	flag.Parse()
	// SIGHUP is what a closed terminal sends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(withParent(ctx), *sandbox); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: "+err.Error())
		os.Exit(1)
	}
}

// errInterrupted is the end that somebody asked for.
var errInterrupted = errors.New("interrupted; everything it started is stopped")

// run plays the scenes or keeps the sandbox, and leaves nothing behind. It praises nothing before all is over.
func run(ctx context.Context, sandbox bool) error {
	started := time.Now()
	s, err := raise(ctx, sandbox)
	summary := ""
	switch {
	case err != nil:
	case sandbox:
		err = s.sandbox()
	default:
		summary, err = play(s)
	}
	if err != nil && ctx.Err() != nil {
		err = errInterrupted
	}
	if err = errors.Join(err, s.close(err)); err != nil {
		return err
	}
	if !sandbox {
		fmt.Printf("%s in %d s; everything it started is stopped.\n", summary, int(time.Since(started).Seconds()+0.5))
	}
	return nil
}

// withParent returns a context that ends with the parent process too: a SIGTERM that reaches `go run` ends that
// alone, and would leave its child behind.
func withParent(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() {
		defer cancel()
		for ctx.Err() == nil && os.Getppid() == parent {
			time.Sleep(250 * time.Millisecond)
		}
	}()
	return ctx
}
