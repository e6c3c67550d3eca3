package main

import (
	"context"
	"fmt"
	"time"
)

// floorSize is how many objects the bare client takes: its rate does not depend on it.
const floorSize = 1000

// floor is how many finalizers a bare client removes in a second, with as many requests at a time as the operator has
// workers.
func (b *bench) floor() (float64, error) {
	if err := b.each(floorSize, 32, func(ctx context.Context, n int) error {
		object := image(name("floor", n), region)
		if err := b.client.Create(ctx, object); err != nil {
			return err
		}
		return b.client.Delete(ctx, object)
	}); err != nil {
		return 0, err
	}
	began := time.Now()
	err := b.each(floorSize, workers, func(ctx context.Context, n int) error {
		return b.free(ctx, image(name("floor", n), region))
	})
	return floorSize / time.Since(began).Seconds(), err
}

// between measures the floor before and after a trial, and returns the mean.
func (b *bench) between(trial func() error) (float64, error) {
	before, err := b.floor()
	if err != nil {
		return 0, err
	}
	if err := trial(); err != nil {
		return 0, err
	}
	after, err := b.floor()
	return (before + after) / 2, err
}

// bound is what the latency of two calls for each deletion and the API server allow.
func bound(floor float64) float64 { return min(floor, workers/(2*latency.Seconds())) }

// drains takes trials of all contenders in turns.
func drains(b *bench) error {
	for trial := range b.trials {
		for _, size := range b.sizes {
			if size > 1000 && trial >= b.largeTrials {
				continue
			}
			if err := b.drain(size, trial == 0); err != nil {
				return err
			}
			if size > 1000 {
				continue
			}
			if err := b.drainStock("a stock controller with as many workers and no rate limit", size, "--unlimited",
				fmt.Sprintf("--max-concurrent-reconciles=%d", workers)); err != nil {
				return err
			}
		}
		if trial == 0 {
			if err := b.drainStock("a stock controller as scaffolded", 100); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain has the operator observe so many objects, and then, started anew, find all of them deleted.
func (b *bench) drain(size int, first bool) error {
	in := fmt.Sprintf("%d objects: ", size)
	add := func(what string, value float64) { b.results.add(in+what, value) }
	var observed, rate float64
	floor, err := b.between(func() (err error) {
		if observed, err = b.observeMany(size, first && size >= 10000 && !b.short, add); err != nil {
			return err
		}
		rate, err = b.drainMany(size, add)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s%w", in, err)
	}
	add("drain rate, of the bound", rate/bound(floor))
	add("drain rate (1/s)", rate)
	add("floor (1/s)", floor)
	add("observation rate, of half the floor", observed/(floor/2))
	fmt.Printf("      %d: %.0f/s, floor %.0f/s, %.2f of the bound\n", size, rate, floor, rate/bound(floor))
	return nil
}

// observeMany has the operator see new objects for the first time, and returns how many it saw in a second.
func (b *bench) observeMany(size int, idle bool, add func(string, float64)) (float64, error) {
	if err := b.resetCloud(nothing); err != nil {
		return 0, err
	}
	if err := b.create("o", size); err != nil {
		return 0, err
	}
	o, err := b.observe()
	if err != nil {
		return 0, err
	}
	defer o.stop()
	c, err := b.start()
	if err != nil {
		return 0, err
	}
	defer c.stop()
	if err := o.await(b.ctx, o.seen, size, 20*time.Minute); err != nil {
		return 0, fmt.Errorf("observed: %w", err)
	}
	used, err := c.usage()
	if err != nil {
		return 0, err
	}
	add("ECS calls for each that is observed", (used.describes+used.otherCalls)/float64(size))
	add("writes for each that is observed", used.writes/float64(size))
	add("peak memory while observing (MiB)", used.peak)
	if idle {
		time.Sleep(5 * time.Second) // the last events
		err = b.idle(c, time.Minute, add)
	}
	return o.rate(o.seen), err
}

func (b *bench) idle(c *contender, lasts time.Duration, add func(string, float64)) error {
	before, err := c.usage()
	if err != nil {
		return err
	}
	time.Sleep(lasts)
	after, err := c.usage()
	used := after.minus(before)
	add("writes in an idle minute", used.writes)
	add("ECS calls in an idle minute", used.describes+used.deletes+used.otherCalls)
	add("CPU in an idle minute (s)", used.cpu)
	add("memory when idle (MiB)", after.resident)
	return err
}

// drainMany has the operator find so many deleted objects, and returns how many are gone in a second.
func (b *bench) drainMany(size int, add func(string, float64)) (float64, error) {
	if err := b.delete("o", size); err != nil {
		return 0, err
	}
	o, err := b.observe()
	if err != nil {
		return 0, err
	}
	defer o.stop()
	earlier := actions(b.cloud)
	c, err := b.start()
	if err != nil {
		return 0, err
	}
	defer c.stop()
	if err := o.await(b.ctx, o.gone, size, 10*time.Minute); err != nil {
		return 0, fmt.Errorf("drained: %w", err)
	}
	used, err := c.usage()
	each := float64(size)
	first, _ := o.span(o.gone)
	add("start to first deletion (s)", first.Sub(c.started).Seconds())
	add("CPU for 1,000 deletions, start included (s)", used.cpu/each*1000)
	add("peak memory while draining (MiB)", used.peak)
	add("reads for each deletion", used.reads/each)
	add("writes for each deletion, events included", used.writes/each)
	add("reconciles for each deletion", used.reconciles/each)
	add("DeleteImage for each deletion", (used.deletes-float64(earlier["DeleteImage"]))/each)
	add("DescribeImages for each deletion", (used.describes-float64(earlier["DescribeImages"]))/each)
	add("images left", float64(len(b.cloud.Images())))
	return o.rate(o.gone), err
}

// drainStock has a stock controller find so many deleted objects.
func (b *bench) drainStock(who string, size int, args ...string) error {
	var rate float64
	var used usage
	floor, err := b.between(func() error {
		if err := b.resetCloud(nothing); err != nil {
			return err
		}
		if err := b.create("s", size); err != nil {
			return err
		}
		if err := b.delete("s", size); err != nil {
			return err
		}
		o, err := b.observe()
		if err != nil {
			return err
		}
		defer o.stop()
		c, err := b.startStock(args...)
		if err != nil {
			return err
		}
		defer c.stop()
		if err := o.await(b.ctx, o.gone, size, 10*time.Minute); err != nil {
			return err
		}
		rate = o.rate(o.gone)
		used, err = c.usage()
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	b.results.add(who+": drain rate, of the bound", rate/bound(floor))
	b.results.add(who+": drain rate (1/s)", rate)
	b.results.add(who+": CPU for 1,000 deletions, start included (s)", used.cpu/float64(size)*1000)
	b.results.add(who+": writes for each deletion", used.writes/float64(size))
	fmt.Printf("      %s, %d: %.0f/s, floor %.0f/s, %.2f of the bound\n", who, size, rate, floor, rate/bound(floor))
	return nil
}
