package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// figure is what was measured, in each trial.
type figure struct {
	order   int
	Samples []float64 `json:"samples"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
}

type results map[string]*figure

func (r results) add(name string, value float64) {
	if r[name] == nil {
		r[name] = &figure{order: len(r)}
	}
	f := r[name]
	f.Samples = append(f.Samples, value)
	f.Median, f.Min, f.Max = median(f.Samples), slices.Min(f.Samples), slices.Max(f.Samples)
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// limits is the range of a figure.
type limits struct {
	Min *float64 `json:"min,omitempty"`
	Max *float64 `json:"max,omitempty"`
	// Full is for a figure that needs the trials of a full run: in a short one, a busy machine can push it out of range.
	Full bool `json:"full,omitempty"`
}

func (l limits) String() string {
	switch {
	case l.Min != nil && l.Max != nil:
		return fmt.Sprintf("%v to %v", *l.Min, *l.Max)
	case l.Min != nil:
		return fmt.Sprintf("≥ %v", *l.Min)
	case l.Max != nil:
		return fmt.Sprintf("≤ %v", *l.Max)
	}
	return ""
}

func (l limits) hold(value float64) bool {
	return !math.IsNaN(value) && (l.Min == nil || value >= *l.Min) && (l.Max == nil || value <= *l.Max)
}

// report prints the table, writes it where it belongs, and returns an error that names what is out of range.
func (r results) report(s settings) error {
	text, err := os.ReadFile(filepath.Join(s.root, "hack/bench/expected.yaml"))
	if err != nil {
		return err
	}
	expected := map[string]limits{}
	if err := yaml.UnmarshalStrict(text, &expected); err != nil {
		return fmt.Errorf("expected.yaml: %w", err)
	}
	if s.short {
		maps.DeleteFunc(expected, func(_ string, l limits) bool { return l.Full })
	}
	table, failures := r.table(expected)
	fmt.Println(table)
	if len(s.only) == 0 && !s.short {
		for name := range expected {
			if r[name] == nil {
				failures = append(failures, fmt.Errorf("%s is expected and was not measured", name))
			}
		}
	}
	out := filepath.Join(s.root, s.out)
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(out, "bench.json"), append(data, '\n'), 0o600)
	}
	failures = append(failures, err, r.plot(out))
	if s.docs {
		failures = append(failures, writeDocs(s, table), r.plot(filepath.Join(s.root, "docs/images")))
	}
	return errors.Join(failures...)
}

// table is in Markdown, and names what is out of range.
func (r results) table(expected map[string]limits) (string, []error) {
	var lines strings.Builder
	var failures []error
	lines.WriteString("| what | median | lowest to highest | expected |\n|---|---|---|---|\n")
	names := make([]string, 0, len(r))
	for name := range r {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return r[a].order - r[b].order })
	for _, name := range names {
		f, want := r[name], expected[name]
		spread := ""
		if len(f.Samples) > 1 {
			spread = fmt.Sprintf("%s to %s (%d)", number(f.Min), number(f.Max), len(f.Samples))
		}
		fmt.Fprintf(&lines, "| %s | %s | %s | %s |\n", name, number(f.Median), spread, want)
		if !want.hold(f.Median) {
			failures = append(failures, fmt.Errorf("%s is %s, expected %s", name, number(f.Median), want))
		}
	}
	return lines.String(), failures
}

// number has three digits that count, or all that stand before the point.
func number(value float64) string {
	switch size := math.Abs(value); {
	case size >= 100 || size == math.Trunc(size):
		return fmt.Sprintf("%.0f", value)
	case size >= 10:
		return fmt.Sprintf("%.1f", value)
	case size >= 1:
		return fmt.Sprintf("%.2f", value)
	}
	return fmt.Sprintf("%.3f", value)
}

// Between these is the table in docs/performance.md.
const tableBegins, tableEnds = "<!-- bench -->\n", "<!-- /bench -->"

func writeDocs(s settings, table string) error {
	file := filepath.Join(s.root, "docs/performance.md")
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := bytes.Cut(page, []byte(tableBegins))
	_, after, ends := bytes.Cut(rest, []byte(tableEnds))
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table", file)
	}
	page = slices.Concat(before, []byte(tableBegins), []byte(table), []byte(tableEnds), after)
	return os.WriteFile(file, page, 0o600)
}
