package faults

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	sequences     = 60
	stepsOfEach   = 25
	faultsPerMill = 60 // of a thousand calls
)

// TestSequences has users do anything that the API lets them, in any order, while calls go wrong at random. What users try
// and which calls go wrong follows from the seed: `make faults SEED=n` repeats it. What comes of it depends on timing too.
func TestSequences(t *testing.T) {
	if *onlyPlan != "" {
		t.Skip("-plan is for TestPlans")
	}
	seen := &fates{}
	t.Cleanup(func() {
		fmt.Printf("\nimages of sequences: %d had to stay, %d had to be deleted, %d could do either\n\n",
			seen.stay.Load(), seen.deleted.Load(), seen.either.Load())
		if *seed == 0 && (seen.stay.Load() == 0 || seen.deleted.Load() == 0) {
			t.Error("the sequences say nothing about which images are left")
		}
	})
	for n := uint64(1); n <= sequences; n++ {
		if *seed != 0 && n != *seed {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			runSequence(t, n, seen)
		})
	}
	if *seed > sequences {
		t.Run(fmt.Sprint(*seed), func(t *testing.T) { runSequence(t, *seed, seen) })
	}
}

// randomFaults chooses faults by a seed: the same call gets the same one whatever happens beside it.
type randomFaults struct {
	seed    uint64
	perMill int
	deaths  bool // whether the operator dies of some
	over    atomic.Bool
}

func (r *randomFaults) choose(what string, n int) (fault, bool) {
	if r.over.Load() || isStart(what) {
		return fault{}, false
	}
	hash := fnv.New64a()
	_, _ = fmt.Fprint(hash, r.seed, what, n)
	rng := rand.New(rand.NewPCG(r.seed, hash.Sum64())) // #nosec G404: it has to repeat itself
	if rng.IntN(1000) >= r.perMill {
		return fault{}, false
	}
	before, after := answersOf(what)
	ways := []way{refused, refused, lost, lost, hung}
	if r.deaths {
		ways = append(ways, diesBefore, diesAfter)
	}
	f := fault{what: what, n: n, way: ways[rng.IntN(len(ways))]}
	switch {
	case f.way == refused || f.way == lost && len(after) == 0:
		f.way, f.answer = refused, before[rng.IntN(len(before))]
	case f.way == lost:
		f.answer = after[rng.IntN(len(after))]
	}
	return f, true
}

type sequence struct {
	*world
	rng    *rand.Rand
	images int
	made   map[string]bool // images that there were
}

// fates are how many images had to stay, had to be deleted, and could do either.
type fates struct{ stay, deleted, either atomic.Int32 }

func runSequence(t *testing.T, number uint64, seen *fates) {
	faults := &randomFaults{seed: number, perMill: faultsPerMill, deaths: true}
	s := &sequence{rng: rand.New(rand.NewPCG(number, 0)), made: map[string]bool{}} // #nosec G404: it has to repeat itself
	views := []lens{{}, {}, {frozen, 1 + s.rng.IntN(8)}, {coalesced, 1 + s.rng.IntN(8)}, {oldList, 1 + s.rng.IntN(6)}}
	s.world = newWorld(t, scenario{policed: number%2 == 0}, &wire{choose: faults.choose}, views[s.rng.IntN(len(views))])
	s.random = true
	s.startOperators(1 + s.rng.IntN(2))
	s.putSecret("key", "key-two", "secret-two")
	for n := range stepsOfEach {
		s.rng = rand.New(rand.NewPCG(number, uint64(n+1))) // #nosec G404 G115: the same step whatever the others did
		s.step()
		time.Sleep(time.Duration(s.rng.IntN(250)) * time.Millisecond)
	}
	faults.over.Store(true)
	s.finish()
	s.settle("")
	s.checkEnd()
	s.checkFates(seen)
	s.report(*seed != 0)
}

// step is one thing that a user or the cloud does.
func (s *sequence) step() {
	name := string(rune('a' + s.rng.IntN(4)))
	image := s.get(name)
	switch n := s.rng.IntN(20); {
	case image == nil && n < 16:
		s.add(name)
	case image == nil:
		s.changeImage()
	case n < 6:
		if image.DeletionTimestamp == nil {
			s.delete(name)
		}
	case n < 8:
		s.editIfThere(name, "retain", retain)
	case n < 10:
		s.editIfThere(name, "delete with the image", func(i *v1alpha1.CustomImage) { i.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
	case n == 10:
		s.editIfThere(name, "force", func(i *v1alpha1.CustomImage) { i.Spec.Force = ptr.To(!ptr.Deref(i.Spec.Force, false)) })
	case n == 11:
		s.editIfThere(name, "protect", annotate(v1alpha1.AnnotationProtected, "true"))
	case n == 12:
		s.editIfThere(name, "unprotect", annotate(v1alpha1.AnnotationProtected, "false"))
	case n == 13:
		s.editIfThere(name, "retry", annotate(v1alpha1.AnnotationRetryAt, fmt.Sprint(s.rng.IntN(1000))))
	case n == 14:
		s.editIfThere(name, "another image", func(i *v1alpha1.CustomImage) { i.Spec.ImageID = s.anyImage() })
	case n == 15:
		s.editIfThere(name, "release", annotate(v1alpha1.AnnotationRelease, s.anyImage()))
	case n == 16:
		s.putSecret("key", "key-of-other", "secret-of-other")
	case n == 17:
		s.putSecret("key", "key-two", "secret-two")
	default:
		s.changeImage()
	}
}

// add makes an object, for an image of its own, for one that another object has too, or for none.
func (s *sequence) add(name string) {
	id := s.anyImage()
	if s.rng.IntN(3) > 0 {
		s.images++
		id = fmt.Sprintf("m-%d", s.images)
		if s.rng.IntN(8) > 0 {
			s.putImage(id, s.obstacle())
			s.made[id] = true
		}
	}
	s.create(name, id, func(image *v1alpha1.CustomImage) {
		if s.rng.IntN(4) == 0 {
			retain(image)
		}
		if s.rng.IntN(3) == 0 {
			withSecret(image)
		}
	})
}

func (s *sequence) anyImage() string { return fmt.Sprintf("m-%d", 1+s.rng.IntN(max(s.images, 1))) }

func (s *sequence) obstacle() func(*ecssim.Image) {
	n := s.rng.IntN(8)
	return func(image *ecssim.Image) {
		image.UsedBy, image.SharedWith, image.Copying = nil, nil, 0
		switch n {
		case 0:
			image.UsedBy = []string{"i-1"}
		case 1:
			image.SharedWith = []string{otherOwner}
		case 2:
			image.Copying = ecssim.Duration(time.Second)
		}
	}
}

// changeImage changes what is in the way of an image, if it is still there.
func (s *sequence) changeImage() { s.alter(s.anyImage(), s.obstacle()) }

// checkFates checks which images are left.
func (s *sequence) checkFates(seen *fates) {
	for id := range s.made {
		_, exists := s.sim.Image(id)
		switch stays, isDeleted := s.users.fateOf(id); {
		case stays:
			seen.stay.Add(1)
			if !exists {
				s.violatedf("image %s is gone, and nobody asked for that", id)
			}
		case isDeleted:
			seen.deleted.Add(1)
			if exists {
				s.violatedf("image %s is still there, and its object is gone", id)
			}
		default:
			seen.either.Add(1)
		}
	}
}

// finish takes all obstacles away, has users delete every object, and waits until all are gone.
func (s *sequence) finish() {
	s.putSecret("key", "key-two", "secret-two")
	for n := range s.images {
		s.alter(fmt.Sprintf("m-%d", n+1), func(image *ecssim.Image) {
			image.UsedBy, image.SharedWith, image.Copying = nil, nil, 0
		})
	}
	names := []string{"a", "b", "c", "d"}
	for _, name := range names {
		image := s.get(name)
		if image == nil {
			continue
		}
		s.editIfThere(name, "what can be undone", func(i *v1alpha1.CustomImage) {
			if seen := i.Status.Image; seen != nil {
				i.Spec.ImageID = seen.ImageID
			}
			delete(i.Annotations, v1alpha1.AnnotationProtected)
			delete(i.Annotations, v1alpha1.AnnotationRelease)
		})
		if image.DeletionTimestamp == nil { // nobody else deletes
			s.delete(name)
		}
	}
	for _, name := range names {
		s.await(name, "gone")
	}
}
