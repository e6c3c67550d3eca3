// Command bench measures the operator on a control plane and a simulated ECS of its own, side by side with a stock
// controller and with a bare client that does nothing but remove finalizers. It prints a table, writes JSON and plots,
// and fails if a figure is outside of the range that expected.yaml gives it.
//
// It wants bin/manager, and a control plane's binaries in the directory KUBEBUILDER_ASSETS. `make bench` sees to both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings say how much is measured.
type settings struct {
	root, out   string
	only        []string
	short, docs bool
	trials      int
	largeTrials int
	sizes       []int // of drains
	largest     int   // of the measurement of memory
}

func main() {
	s := settings{}
	only := ""
	flag.StringVar(&s.root, "root", "../..", "the project's root")
	flag.StringVar(&s.out, "out", "bin/bench", "where to write bench.json and the plots, as seen from the root")
	flag.StringVar(&only, "only", "", "cases to run, separated by commas; default: all")
	flag.BoolVar(&s.short, "short", false, "the short form, for CI")
	flag.BoolVar(&s.docs, "docs", false, "write the table and the plots into docs too")
	flag.IntVar(&s.trials, "trials", 5, "how many trials of each drain")
	flag.IntVar(&s.largeTrials, "large-trials", 5, "how many trials of the drains of more than 1,000 objects: one takes 2 to 4 minutes")
	flag.IntVar(&s.largest, "largest", 0, "how many objects to measure memory with, beside those of the drains")
	flag.Parse()
	s.sizes = []int{1000, 5000, 10000}
	if s.short {
		s.trials, s.sizes = 1, []int{1000}
	}
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "\nbench: "+err.Error())
		os.Exit(1)
	}
}

// run measures one case after another, and reports also what it has when one fails.
func run(ctx context.Context, s settings) error {
	began := time.Now()
	b, err := raise(ctx, s)
	defer b.close()
	if err != nil {
		return err
	}
	var failures []error
	for _, c := range cases {
		if len(s.only) > 0 && !slices.Contains(s.only, c.name) {
			continue
		}
		fmt.Printf("%s  %s\n", time.Since(began).Round(time.Second), c.name)
		if err := c.measure(b); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	fmt.Printf("%s  done\n\n", time.Since(began).Round(time.Second))
	return errors.Join(append(failures, b.results.report(s))...)
}
