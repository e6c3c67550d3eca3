package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// plot writes what depends on the number of objects, as SVG.
func (r results) plot(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for file, p := range map[string]struct{ title, figure string }{
		"drain-rate.svg": {"Drain rate, of what latency and API server allow", "drain rate, of the bound"},
		"memory.svg":     {"Peak memory while observing (MiB)", "peak memory while observing (MiB)"},
		"cpu.svg":        {"CPU for 1,000 deletions, start included (s)", "CPU for 1,000 deletions, start included (s)"},
	} {
		if err := r.plotBySize(filepath.Join(dir, file), p.title, p.figure); err != nil {
			return err
		}
	}
	return nil
}

func (r results) plotBySize(file, title, name string) error {
	var medians plotter.XYs
	var trials plotter.XYs
	for full, f := range r {
		size := 0.0
		if n, _ := fmt.Sscanf(full, "%f objects: ", &size); n != 1 || full != fmt.Sprintf("%.0f objects: %s", size, name) {
			continue
		}
		medians = append(medians, plotter.XY{X: size, Y: f.Median})
		for _, sample := range f.Samples {
			trials = append(trials, plotter.XY{X: size, Y: sample})
		}
	}
	if len(medians) == 0 {
		return nil
	}
	slices.SortFunc(medians, func(a, b plotter.XY) int { return int(a.X - b.X) })
	line, err := plotter.NewLine(medians)
	if err != nil {
		return err
	}
	points, err := plotter.NewScatter(trials)
	if err != nil {
		return err
	}
	line.Color, points.Color = color.RGBA{B: 160, A: 255}, color.RGBA{R: 160, G: 160, B: 160, A: 255}
	p := plot.New()
	p.Title.Text, p.X.Label.Text = title, "objects"
	p.X.Min, p.Y.Min = 0, 0
	p.Add(plotter.NewGrid(), points, line)
	return p.Save(12*vg.Centimeter, 8*vg.Centimeter, file)
}
