// Command ecssim serves a simulated ECS endpoint for demos, tests and benchmarks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8089", "address to serve on; port 0 takes a free one")
	scenario := flag.String("scenario", "hack/ecssim/scenario.yaml", "YAML file with accounts, quotas and images")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *scenario); err != nil {
		fmt.Fprintln(os.Stderr, "ecssim:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends; calls under way are cut off then.
func run(ctx context.Context, listen, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	scenario, err := ecssim.ParseScenario(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	simulator, err := ecssim.New(scenario, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: simulator, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Printf("listening on http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
