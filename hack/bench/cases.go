package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// cases are all that is measured. Each leaves nothing behind.
var cases = []struct {
	name    string
	measure func(*bench) error
}{
	{"drains", clearing(drains)},
	{"memory", clearing(memory)},
	{"stuck", clearing(stuck)},
	{"arrivals", clearing(arrivals)},
	{"quota", clearing(quotas)},
	{"hung", clearing(hungRegion)},
	{"restart", clearing(restart)},
}

// clearing removes what a case that failed has left behind.
func clearing(measure func(*bench) error) func(*bench) error {
	return func(b *bench) error {
		err := measure(b)
		if err != nil {
			err = errors.Join(err, b.clear())
		}
		return err
	}
}

func nothing(*ecssim.Scenario) {}

// actions counts the calls that the cloud has recorded.
func actions(cloud *ecssim.Server) map[string]int {
	counts := map[string]int{}
	for _, call := range cloud.Calls() {
		counts[call.Action]++
	}
	return counts
}

// with runs something beside an operator, and removes the objects afterwards.
func (b *bench) with(args []string, scenario func(*ecssim.Scenario), do func(c *contender, o *observer) error) error {
	if err := b.resetCloud(scenario); err != nil {
		return err
	}
	o, err := b.observe()
	if err != nil {
		return err
	}
	defer o.stop()
	c, err := b.start(args...)
	if err != nil {
		return err
	}
	err = do(c, o)
	c.stop()
	if err != nil {
		return err
	}
	return b.clear()
}

// memory is of live objects that have been observed.
func memory(b *bench) error {
	if b.largest == 0 {
		return nil
	}
	_, err := b.observeMany(b.largest, true, func(what string, value float64) {
		b.results.add(fmt.Sprintf("%d objects: %s", b.largest, what), value)
	})
	if err != nil {
		return err
	}
	return b.clear()
}

// stuck is one object whose image is in use.
func stuck(b *bench) error {
	lasts := 3 * time.Minute
	if b.short {
		lasts = 40 * time.Second
	}
	return b.with(nil, nothing, func(c *contender, o *observer) error {
		if err := b.create("stuck", 1, "i-1"); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.seen, 1, time.Minute); err != nil {
			return err
		}
		before, err := c.usage()
		if err != nil {
			return err
		}
		if err := b.delete("stuck", 1); err != nil {
			return err
		}
		time.Sleep(lasts)
		after, err := c.usage()
		used := after.minus(before)
		b.results.add("a stuck object: DeleteImage in a minute", used.deletes/lasts.Minutes())
		b.results.add("a stuck object: all ECS calls in a minute", (used.deletes+used.describes+used.otherCalls)/lasts.Minutes())
		b.results.add("a stuck object: writes, events included", used.writes)
		return err
	})
}

// arrivals are deletions that come one by one, alone and beside many stuck objects.
func arrivals(b *bench) error {
	const perSecond = 50
	seconds, others := 30, 5000
	if b.short {
		seconds, others = 10, 1000
	}
	return b.with(nil, nothing, func(_ *contender, o *observer) error {
		alone, err := b.arrive(o, "a", perSecond, seconds)
		if err != nil {
			return err
		}
		if err := b.create("stuck", others, "i-1"); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.seen, perSecond*seconds+others, 5*time.Minute); err != nil {
			return err
		}
		if err := b.delete("stuck", others); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.stalled, others, 10*time.Minute); err != nil {
			return fmt.Errorf("stuck: %w", err)
		}
		beside, err := b.arrive(o, "b", perSecond, seconds)
		if err != nil {
			return err
		}
		for _, percentile := range []int{50, 99} {
			quantile := func(of []float64) float64 { return of[int(math.Ceil(float64(percentile)/100*float64(len(of))))-1] }
			b.results.add(fmt.Sprintf("DELETE to gone, %d a second: p%d (s)", perSecond, percentile), quantile(alone))
			b.results.add(fmt.Sprintf("DELETE to gone, beside stuck objects: p%d (s)", percentile), quantile(beside))
			b.results.add(fmt.Sprintf("DELETE to gone, beside stuck objects: p%d, of that alone", percentile),
				quantile(beside)/quantile(alone))
		}
		return nil
	})
}

// arrive deletes so many objects a second, and returns how long each took until it was gone, in order.
func (b *bench) arrive(o *observer, kind string, perSecond, seconds int) ([]float64, error) {
	count := perSecond * seconds
	seen, gone := o.count(o.seen), o.count(o.gone)
	if err := b.create(kind, count); err != nil {
		return nil, err
	}
	if err := o.await(b.ctx, o.seen, seen+count, 5*time.Minute); err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second) // the last events
	deleted := make([]time.Time, count)
	began := time.Now()
	err := b.each(count, count, func(ctx context.Context, n int) error {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))))
		deleted[n] = time.Now()
		return b.client.Delete(ctx, image(name(kind, n), region))
	})
	if err != nil {
		return nil, err
	}
	if err := o.await(b.ctx, o.gone, gone+count, 5*time.Minute); err != nil {
		return nil, err
	}
	took := make([]float64, count)
	for n := range took {
		took[n] = o.gone[name(kind, n)].Sub(deleted[n]).Seconds()
	}
	slices.Sort(took)
	return took, nil
}

// quotas are 100 deletions where ECS allows 20 in 10 s (5 s in the short form), with answers that all tell the quota, and with
// refusals that alone do.
func quotas(b *bench) error {
	return errors.Join(quota(b, "told by every answer", false), quota(b, "told by refusals alone", true))
}

func quota(b *bench, how string, silent bool) error {
	const count, limit = 100, 20
	window := 10 * time.Second
	if b.short {
		window /= 2
	}
	return b.with(nil, func(s *ecssim.Scenario) {
		s.SilentQuotas = silent
		s.Quotas = map[string]ecssim.Quota{"DeleteImage": {Limit: limit, Window: ecssim.Duration(window)}}
	}, func(_ *contender, o *observer) error {
		if err := b.create("q", count); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.seen, count, time.Minute); err != nil {
			return err
		}
		time.Sleep(time.Until(time.Now().Truncate(window).Add(window)))
		began := time.Now()
		if err := b.delete("q", count); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.gone, count, 5*time.Minute); err != nil {
			return err
		}
		_, last := o.span(o.gone)
		throttled, calls := 0, 0
		for _, call := range b.cloud.Calls() {
			if call.Action == "DeleteImage" {
				calls++
			}
			if call.Code == "Throttling" {
				throttled++
			}
		}
		b.results.add("a quota "+how+": windows, of those needed", math.Ceil(last.Sub(began).Seconds()/window.Seconds())/(count/limit))
		b.results.add("a quota "+how+": throttled, of all calls", float64(throttled)/float64(calls))
		return nil
	})
}

// hungRegion is an object beside 200 of a region that does not answer.
func hungRegion(b *bench) error {
	b.hung.Store(elsewhere)
	defer b.hung.Store("none")
	return b.with([]string{"--max-concurrent-reconciles=16"}, nothing, func(_ *contender, o *observer) error {
		if err := b.each(200, 32, func(ctx context.Context, n int) error {
			return b.client.Create(ctx, image(name("hung", n), elsewhere))
		}); err != nil {
			return err
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		if err := b.create("fresh", 1); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.seen, 1, 2*time.Minute); err != nil {
			return err
		}
		b.results.add("beside a region that hangs: time to Ready (s)", time.Since(began).Seconds())
		began = time.Now()
		if err := b.delete("fresh", 1); err != nil {
			return err
		}
		if err := o.await(b.ctx, o.gone, 1, 2*time.Minute); err != nil {
			return err
		}
		b.results.add("beside a region that hangs: DELETE to gone (s)", time.Since(began).Seconds())
		return nil
	})
}

// restart kills the operator in the middle of a drain.
func restart(b *bench) error {
	size := 2000
	if b.short {
		size = 500
	}
	ignore := func(string, float64) {}
	if _, err := b.observeMany(size, false, ignore); err != nil {
		return err
	}
	if err := b.delete("o", size); err != nil {
		return err
	}
	o, err := b.observe()
	if err != nil {
		return err
	}
	defer o.stop()
	c, err := b.start()
	if err != nil {
		return err
	}
	if err := o.await(b.ctx, o.gone, size/2, 5*time.Minute); err != nil {
		return err
	}
	c.kill()
	if c, err = b.start(); err != nil {
		return err
	}
	defer c.stop()
	if err := o.await(b.ctx, o.gone, size, 5*time.Minute); err != nil {
		return err
	}
	calls := actions(b.cloud)["DeleteImage"]
	b.results.add("killed in the middle of a drain: calls of DeleteImage made twice, of the workers", float64(calls-size)/workers)
	b.results.add("killed in the middle of a drain: images left", float64(len(b.cloud.Images())))
	if rates := b.results["1000 objects: drain rate (1/s)"]; rates != nil {
		first, last := o.span(o.gone)
		b.results.add("killed in the middle of a drain: time, of that undisturbed",
			last.Sub(first).Seconds()/(float64(size)/median(rates.Samples)))
	}
	return nil
}
