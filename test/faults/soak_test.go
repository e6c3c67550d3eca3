package faults

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// TestSoak keeps so many objects, deletes some of them and makes others all the time, while 5 % of all calls go wrong and the
// operator is killed every 20 s. At the end there is no image and no object too many, and none too few.
func TestSoak(t *testing.T) {
	if *soakTime == 0 {
		t.Skip("takes half an hour: make soak")
	}
	const killEvery, faultsOfMill = 20 * time.Second, 50
	faults := &randomFaults{seed: 1, perMill: faultsOfMill}
	w := newWorld(t, scenario{}, &wire{choose: faults.choose, quiet: true}, lens{})
	s := &soak{world: w, rng: rand.New(rand.NewPCG(1, 0)), live: map[int]bool{}} // #nosec G404: no secret
	w.random = true
	w.startOperator()
	s.add(*objects)
	var sizes []size
	end, kill := time.Now().Add(*soakTime), time.Now().Add(killEvery)
	for time.Now().Before(end) {
		s.turnOver(*objects / 20)
		time.Sleep(2 * time.Second)
		if time.Now().After(kill) {
			operators := w.allOperators()
			operators[len(operators)-1].die()
			kill = time.Now().Add(killEvery)
			calls := s.forget()
			sizes = append(sizes, sizeNow())
			t.Logf("%s left: %d deleted, %d calls, %d faults, %v", time.Until(end).Round(time.Second), s.deleted,
				calls, w.wire.faults(), sizes[len(sizes)-1])
		}
	}
	faults.over.Store(true)
	s.awaitEnd()
	w.report(false)
	checkLevel(t, sizes)
}

type soak struct {
	*world
	rng           *rand.Rand
	live          map[int]bool // by their numbers
	next, deleted int
	calls         int // of ECS
}

// forget counts the calls of ECS, and drops what the suite knows of them and of objects that are gone.
func (s *soak) forget() int {
	s.calls += len(s.sim.Calls())
	s.sim.ForgetCalls()
	s.mu.Lock()
	defer s.mu.Unlock()
	there, images := map[types.UID]bool{}, map[string]bool{}
	for _, image := range s.latest {
		there[image.UID], images[image.Spec.ImageID] = true, true
	}
	maps.DeleteFunc(s.sightings, func(uid types.UID, _ time.Time) bool { return !there[uid] })
	maps.DeleteFunc(s.finalized, func(id string, _ bool) bool { return !images[id] })
	s.users.forget(there, images)
	return s.calls
}

func nameOf(n int) string  { return fmt.Sprintf("o-%d", n) }
func imageOf(n int) string { return fmt.Sprintf("m-%d", n) }

// add makes objects with images, some of which cannot be deleted for a while.
func (s *soak) add(count int) {
	for range count {
		n := s.next
		s.next++
		s.live[n] = true
		obstacle := s.rng.IntN(10)
		s.putImage(imageOf(n), func(i *ecssim.Image) {
			if obstacle == 0 {
				i.Copying = ecssim.Duration(20 * time.Second)
			}
		})
	}
	var group errgroup.Group
	group.SetLimit(16)
	for n := s.next - count; n < s.next; n++ {
		group.Go(func() error {
			s.create(nameOf(n), imageOf(n))
			return nil
		})
	}
	_ = group.Wait() // create reports its errors
}

// turnOver deletes some objects that the operator has seen, and makes as many new ones.
func (s *soak) turnOver(count int) {
	for n := range s.live {
		// Without the admission policies an object has no finalizer before the operator has seen it.
		if image := s.watched(nameOf(n)); image == nil || !hasFinalizer(image) {
			continue
		}
		if count--; count < 0 {
			break
		}
		delete(s.live, n)
		s.deleted++
		s.delete(nameOf(n))
	}
	s.add(*objects - len(s.live))
}

// awaitEnd waits until there are exactly the objects and images that users want.
func (s *soak) awaitEnd() {
	var wrong []string
	for end := time.Now().Add(6 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Second) {
		wrong = s.wrong()
		s.t.Logf("%d are not yet as wanted: %.300q", len(wrong), wrong[:min(len(wrong), 5)])
		if len(wrong) == 0 {
			s.t.Logf("at the end: %d objects and images, %d deleted, %d operators, %d faults in %d calls of ECS",
				len(s.live), s.deleted, len(s.allOperators()), s.wire.faults(), s.forget())
			return
		}
	}
	for _, text := range wrong[:min(len(wrong), 5)] {
		s.violatedf("%s", text)
	}
}

func (s *soak) wrong() (wrong []string) {
	images := &v1alpha1.CustomImageList{}
	if err := admin.List(s.ctx, images, client.InNamespace(s.namespace)); err != nil {
		return []string{err.Error()}
	}
	named, there := map[string]bool{}, map[string]bool{}
	for i := range images.Items {
		named[images.Items[i].Name] = true
	}
	for _, image := range s.sim.Images() {
		there[image.ImageID] = true
	}
	for n := range s.next {
		if named[nameOf(n)] != s.live[n] || there[imageOf(n)] != s.live[n] {
			wrong = append(wrong, fmt.Sprintf("%d: wanted %t, object %t (%s), image %t", n, s.live[n], named[nameOf(n)],
				reasonOf(s.get(nameOf(n))), there[imageOf(n)]))
		}
	}
	return wrong
}

type size struct {
	heap       uint64 // MiB, after a collection
	goroutines int
}

// sizeNow is of the whole test process, the suite's own records included.
func sizeNow() size {
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return size{stats.HeapAlloc >> 20, runtime.NumGoroutine() - strings.Count(goroutines(), "watch.(*filteredWatch).loop(")}
}

// goroutines are the stacks of all. Where an operator dies in this process, client-go leaves some that filter a watch which
// nobody reads any more: these are not the operator's.
func goroutines() string {
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2) // a builder takes all
	return stacks.String()
}

// checkLevel compares the last third with the second, since the first one fills caches.
func checkLevel(t *testing.T, sizes []size) {
	if len(sizes) < 9 {
		return
	}
	third := len(sizes) / 3
	median := func(of []size, what func(size) int) int {
		var values []int
		for _, s := range of {
			values = append(values, what(s))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	for name, what := range map[string]func(size) int{
		"heap in MiB": func(s size) int { return int(s.heap) }, "goroutines": func(s size) int { return s.goroutines }, // #nosec G115
	} {
		before, after := median(sizes[third:2*third], what), median(sizes[2*third:], what)
		t.Logf("%s: %d in the second third, %d in the last", name, before, after)
		if after > before*5/4+10 {
			t.Errorf("%s grows from %d to %d\n%s", name, before, after, goroutines())
		}
	}
}
