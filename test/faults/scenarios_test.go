package faults

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/utils/ptr"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// scenario is what users and the cloud do. Every step waits for what a user would wait for, and every end is one that an
// operator reaches whatever went wrong on the way.
type scenario struct {
	name  string
	cloud func(*ecssim.Scenario)
	play  func(w *world)
	// depth is how many of its calls go wrong, and in how many ways.
	depth depth
	// policed has the admission policies of config/admission apply. Without them, the operator has to keep the promises alone.
	policed bool
	// vpc has the operator call ECS and STS by the host names that they have inside a VPC. Only those of two regions exist.
	vpc bool
	// most is how many calls of a kind there may be without a fault.
	most map[string]int
}

// depth is how thoroughly a scenario is taken apart. What an answer means, and what a death leaves behind, mostly does not
// depend on the scenario, so in CI few of them go through everything.
type depth int

const (
	usual    depth = iota // the first write and call of ECS of each kind go wrong in every way, with one of the wrong answers in turn
	brief                 // the same without looks at images, and without old views
	thorough              // the first three calls of each kind, those of the start too, with every answer
	complete              // every call after the start, with every answer: -complete has all other scenarios go through this
)

const (
	foreignFinalizer = "example.com/backup" // of somebody else
	nowhere          = "xx-nowhere"         // a region that does not exist
	roleARN          = "acs:ram::" + account + ":role/images"
)

var scenarios = []scenario{
	{name: "plain", depth: thorough, play: func(w *world) {
		w.seen("a", "m-a")
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	cleared("in-use", thorough, "ImageUsingByInstance", func(i *ecssim.Image) { i.UsedBy = []string{"i-1"} }),
	cleared("shared", brief, "ImageUseShared", func(i *ecssim.Image) { i.SharedWith = []string{otherOwner} }),
	cleared("public", brief, "ImageIsPublic", func(i *ecssim.Image) { i.Public = true }),
	cleared("copying", usual, "OperationDeniedImageCopying", func(i *ecssim.Image) { i.Copying = ecssim.Forever }),
	cleared("importing", brief, "ImageIsImporting", func(i *ecssim.Image) { i.Importing = ecssim.Forever }),
	cleared("exporting", brief, "ImageIsExporting", func(i *ecssim.Image) { i.Exporting = ecssim.Forever }),
	cleared("creating", brief, "ImageIsCreating", func(i *ecssim.Image) { i.Creating = ecssim.Forever }),
	{name: "retain", play: func(w *world) {
		w.seen("a", "m-a", retain)
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	{name: "retain-while-blocked", play: func(w *world) {
		w.blocked("a", "m-a")
		w.edit("a", "retain", retain)
		w.putImage("m-a")
		w.awaitSoon("a", "gone")
	}},
	{name: "retain-just-before", play: func(w *world) {
		w.seen("a", "m-a")
		w.edit("a", "retain", retain)
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	{name: "force-while-blocked", play: func(w *world) {
		w.blocked("a", "m-a")
		w.edit("a", "force", func(image *v1alpha1.CustomImage) { image.Spec.Force = ptr.To(true) })
		w.awaitSoon("a", "gone")
	}},
	{name: "released-while-blocked", play: func(w *world) {
		w.blocked("a", "m-a")
		w.edit("a", "release", annotate(v1alpha1.AnnotationRelease, "m-a"))
		w.putImage("m-a")
		w.awaitSoon("a", "gone")
	}},
	{name: "protected", play: func(w *world) {
		w.seen("a", "m-a")
		w.edit("a", "protect", annotate(v1alpha1.AnnotationProtected, "true"))
		w.delete("a")
		w.await("a", v1alpha1.ReasonProtected)
		w.edit("a", "unprotect", annotate(v1alpha1.AnnotationProtected, "false"))
		w.awaitSoon("a", "gone")
	}},
	{name: "protected-in-other-words", depth: brief, play: func(w *world) {
		w.seen("a", "m-a", annotate(v1alpha1.AnnotationProtected, "until May"))
		w.delete("a")
		w.await("a", v1alpha1.ReasonProtected)
	}},
	{name: "retain-after-acceptance", cloud: func(s *ecssim.Scenario) { s.DeletionDelay = ecssim.Duration(1200 * time.Millisecond) },
		play: func(w *world) {
			w.seen("a", "m-a")
			w.delete("a")
			w.await("a", v1alpha1.ReasonDeleting, "gone") // gone if a fault held the operator up for so long
			w.editIfThere("a", "retain", retain)
			w.awaitSoon("a", "gone")
			w.awaitImageGone("m-a")
		}},
	{name: "wrong-image", play: func(w *world) {
		w.putImage("m-b")
		w.seen("a", "m-a")
		w.edit("a", "another image", func(image *v1alpha1.CustomImage) { image.Spec.ImageID = "m-b" })
		w.delete("a")
		w.await("a", v1alpha1.ReasonInvalidSpec)
		w.edit("a", "the image again", func(image *v1alpha1.CustomImage) { image.Spec.ImageID = "m-a" })
		w.awaitSoon("a", "gone")
	}},
	{name: "missing", play: func(w *world) {
		w.create("a", "m-a")
		w.await("a", "InvalidImageIdNotFound")
		w.delete("a")
		w.await("a", "gone") // after two looks that are half a minute apart
	}},
	{name: "shown-for-a-while", cloud: func(s *ecssim.Scenario) { s.DeletionDelay = ecssim.Duration(1200 * time.Millisecond) },
		play: func(w *world) {
			w.seen("a", "m-a")
			w.delete("a")
			w.awaitSoon("a", "gone")
		}},
	{name: "foreign-finalizer", play: func(w *world) {
		w.seen("a", "m-a", func(image *v1alpha1.CustomImage) { image.Finalizers = []string{foreignFinalizer} })
		w.delete("a")
		w.await("a", v1alpha1.ReasonPending)
		w.edit("a", "remove the other finalizer", func(image *v1alpha1.CustomImage) {
			image.Finalizers = slices.DeleteFunc(image.Finalizers, func(name string) bool { return name == foreignFinalizer })
		})
		w.awaitSoon("a", "gone")
	}},
	{name: "secret-missing", play: func(w *world) {
		w.putImage("m-a")
		w.create("a", "m-a", withSecret)
		w.await("a", v1alpha1.ReasonSecretNotFound)
		w.putSecret("key", "key-two", "secret-two")
		w.await("a", v1alpha1.ReasonAvailable)
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	{name: "secret-rotated", play: func(w *world) {
		w.putSecret("key", "key-two", "secret-two")
		w.seen("a", "m-a", withSecret)
		w.configure(func(s *ecssim.Scenario) { s.AccessKeys[1].Inactive = true })
		w.delete("a")
		w.await("a", "InvalidAccessKeyIdInactive")
		w.putSecret("key", keyID, keySecret)
		w.awaitSoon("a", "gone")
	}},
	{name: "account-mismatch", play: func(w *world) {
		w.putSecret("key", "key-two", "secret-two")
		w.seen("a", "m-a", withSecret)
		w.putSecret("key", "key-of-other", "secret-of-other")
		w.delete("a")
		w.await("a", v1alpha1.ReasonAccountMismatch)
		w.putSecret("key", "key-two", "secret-two")
		w.awaitSoon("a", "gone")
	}},
	{name: "two-owners", play: func(w *world) {
		w.seen("a", "m-a")
		time.Sleep(1100 * time.Millisecond) // creation times are in seconds
		w.create("b", "m-a")
		w.await("b", v1alpha1.ReasonConflict)
		w.delete("b")
		w.await("b", "gone")
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	{name: "veto-of-an-object-that-is-deleted", depth: brief, play: func(w *world) {
		w.seen("a", "m-a")
		time.Sleep(1100 * time.Millisecond) // creation times are in seconds
		w.create("keeper", "m-a", annotate(v1alpha1.AnnotationProtected, "true"))
		w.await("keeper", v1alpha1.ReasonConflict)
		w.delete("keeper")
		w.await("keeper", v1alpha1.ReasonProtected)
		w.delete("a")
		w.await("a", v1alpha1.ReasonConflict)
		w.keepsImage("m-a")
		w.edit("keeper", "unprotect", annotate(v1alpha1.AnnotationProtected, "false"))
		w.awaitSoon("a", "gone")
		w.await("keeper", "gone")
	}},
	{name: "release-of-another-image", play: func(w *world) {
		w.seen("a", "m-a", annotate(v1alpha1.AnnotationRelease, "m-b"))
		w.delete("a")
		w.await("a", v1alpha1.ReasonInvalidRelease)
		w.keepsImage("m-a")
		w.edit("a", "take the release off", func(i *v1alpha1.CustomImage) { delete(i.Annotations, v1alpha1.AnnotationRelease) })
		w.awaitSoon("a", "gone")
	}},
	{name: "owner-deleted-first", depth: brief, play: func(w *world) {
		w.seen("a", "m-a")
		time.Sleep(1100 * time.Millisecond)
		w.create("b", "m-a")
		w.await("b", v1alpha1.ReasonConflict)
		w.delete("a")
		w.awaitSoon("a", "gone")
		w.awaitImageGone("m-a")
		w.delete("b")
		w.await("b", "gone")
	}},
	vetoed("veto", 1100*time.Millisecond),                  // creation times are in seconds
	vetoed("veto-of-an-old-object", 5500*time.Millisecond), // whose rivals the cache is believed to know
	{name: "blind", cloud: func(s *ecssim.Scenario) { s.AccessKeys[0].Blind, s.AccessKeys[0].HonestDryRun = true, true },
		play: func(w *world) {
			w.putImage("m-a")
			w.create("a", "m-a")
			w.await("a", "ForbiddenRAM", "NoPermission")
			w.configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Blind, s.AccessKeys[0].HonestDryRun = false, false })
			w.edit("a", "retry", annotate(v1alpha1.AnnotationRetryAt, "now"))
			w.await("a", v1alpha1.ReasonAvailable)
			w.delete("a")
			w.awaitSoon("a", "gone")
		}},
	{name: "blind-unawares", depth: brief,
		cloud: func(s *ecssim.Scenario) { s.AccessKeys[0].Blind = true }, play: func(w *world) {
			w.putImage("m-a")
			w.create("a", "m-a")
			w.await("a", "InvalidImageIdNotFound")
			w.delete("a")
			w.await("a", "gone")
		}},
	{name: "cascade", play: func(w *world) {
		w.setOnDeletion("yes") // which is no value that it can have
		w.seen("a", "m-a")
		w.deleteNamespace()
		w.delete("a") // as the namespace controller does
		w.awaitSoon("a", "gone")
	}},
	{name: "cascade-that-opts-in", depth: brief, play: func(w *world) {
		w.setOnDeletion(string(v1alpha1.DeletionPolicyDelete))
		w.seen("a", "m-a")
		w.deleteNamespace()
		w.delete("a")
		w.awaitSoon("a", "gone")
		w.awaitImageGone("m-a")
	}},
	{name: "cascade-while-blocked", play: func(w *world) {
		w.seen("a", "m-a", func(image *v1alpha1.CustomImage) { image.Finalizers = []string{foreignFinalizer} })
		w.deleteNamespace()
		w.delete("a")
		w.edit("a", "remove the other finalizer", func(image *v1alpha1.CustomImage) {
			image.Finalizers = slices.DeleteFunc(image.Finalizers, func(name string) bool { return name == foreignFinalizer })
		})
		w.awaitSoon("a", "gone")
	}},
	{name: "throttled", cloud: func(s *ecssim.Scenario) {
		s.Quotas = map[string]ecssim.Quota{"DeleteImage": {Limit: 1, Window: ecssim.Duration(time.Second)}}
	}, most: map[string]int{"get-customimages": 3, "list-customimages": 3, "get-namespaces": 3, "get-customresourcedefinitions": 3}, play: func(w *world) {
		names := []string{"a", "b", "c"}
		for _, name := range names {
			w.seen(name, "m-"+name)
		}
		for _, name := range names {
			w.delete(name)
		}
		for _, name := range names {
			w.await(name, "gone")
		}
	}},
	{name: "hung-region", depth: brief, play: func(w *world) {
		w.hang(elsewhere)
		w.putImage("m-b", func(i *ecssim.Image) { i.RegionID = elsewhere })
		w.create("b", "m-b", func(image *v1alpha1.CustomImage) { image.Spec.RegionID = elsewhere })
		for n := range 5 * atOnce {
			id := fmt.Sprintf("hung%d", n)
			w.create(id, "m-"+id, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = elsewhere })
		}
		w.putImage("m-a")
		w.create("a", "m-a")
		w.awaitSoon("a", v1alpha1.ReasonAvailable)
		w.delete("a")
		w.awaitSoon("a", "gone")
		w.await("b", v1alpha1.ReasonRetrying)
		w.hang("")
		for n := range 5 * atOnce {
			w.await(fmt.Sprintf("hung%d", n), "InvalidImageIdNotFound")
		}
		w.await("b", v1alpha1.ReasonAvailable)
		w.delete("b")
		w.await("b", "gone")
	}},
	{name: "no-such-region", vpc: true, play: func(w *world) {
		w.create("b", "m-b", func(image *v1alpha1.CustomImage) { image.Spec.RegionID = nowhere })
		w.await("b", "EndpointNotFound")
		w.seen("a", "m-a")
		w.delete("a")
		w.awaitSoon("a", "gone")
		w.delete("b")
		w.await("b", "EndpointNotFound")
		w.edit("b", "retain", retain)
		w.await("b", "gone")
	}},
	{name: "role-asked-for-first-by-no-region", vpc: true, cloud: func(s *ecssim.Scenario) {
		s.Roles = []ecssim.Role{{ARN: roleARN, Trusts: []string{account}}}
	}, play: func(w *world) {
		w.putRole("key", roleARN)
		w.create("b", "m-b", withSecret, func(image *v1alpha1.CustomImage) { image.Spec.RegionID = nowhere })
		w.await("b", "EndpointNotFound")
		w.seen("a", "m-a", withSecret)
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	{name: "created-while-down", policed: true, play: func(w *world) {
		w.putImage("m-a")
		w.whileDown(func() {
			w.create("a", "m-a")
			w.delete("a")
		})
		w.awaitSoon("a", "gone")
		w.awaitImageGone("m-a")
	}},
	{name: "weakened-while-down", policed: true, play: func(w *world) {
		w.seen("retained", "m-a", retain)
		w.seen("released", "m-b", annotate(v1alpha1.AnnotationRelease, "m-b"))
		w.seen("protected", "m-c")
		w.whileDown(func() {
			w.delete("retained")
			w.refuses(editor, "retained", "delete with the image", func(i *v1alpha1.CustomImage) { i.Spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
			w.delete("released")
			w.refuses(editor, "released", "take the release off", func(i *v1alpha1.CustomImage) { delete(i.Annotations, v1alpha1.AnnotationRelease) })
			w.delete("protected")
			w.edit("protected", "protect", annotate(v1alpha1.AnnotationProtected, "true"))
			w.refuses(editor, "protected", "unprotect", annotate(v1alpha1.AnnotationProtected, ""))
		})
		w.await("retained", "gone")
		w.await("released", "gone")
		w.await("protected", v1alpha1.ReasonProtected)
		for _, id := range []string{"m-a", "m-b", "m-c"} {
			w.keepsImage(id)
		}
	}},
	{name: "forced-by-a-tool", policed: true, play: func(w *world) {
		w.putImage("m-b")
		w.seen("a", "m-a")
		w.forces("a", "another image", func(i *v1alpha1.CustomImage) { i.Spec.ImageID = "m-b" })
		w.forces("a", "another region", func(i *v1alpha1.CustomImage) { i.Spec.RegionID = elsewhere })
		w.forces("a", "a policy that does not exist", func(i *v1alpha1.CustomImage) { i.Spec.DeletionPolicy = "Delte" })
		w.await("a", v1alpha1.ReasonAvailable)
		w.keepsImage("m-a")
		w.delete("a")
		w.awaitSoon("a", "gone")
	}},
	{name: "denied-while-blocked", play: func(w *world) {
		w.blocked("a", "m-a")
		w.configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Deny = []string{"DeleteImage"} })
		w.await("a", "ForbiddenRAM")
		w.configure(func(s *ecssim.Scenario) { s.AccessKeys[0].Deny = nil })
		w.edit("a", "retry", annotate(v1alpha1.AnnotationRetryAt, "now"))
		w.await("a", "ImageUsingByInstance")
		w.putImage("m-a")
		w.awaitSoon("a", "gone")
	}},
	{name: "of-another-account-in-git", play: func(w *world) {
		w.putImage("m-a")
		w.create("a", "m-a", func(i *v1alpha1.CustomImage) { i.Spec.AccountID = otherOwner })
		w.await("a", v1alpha1.ReasonAccountMismatch)
		w.delete("a")
		w.await("a", v1alpha1.ReasonAccountMismatch)
		w.edit("a", "retain", retain)
		w.awaitSoon("a", "gone")
		w.keepsImage("m-a")
	}},
	{name: "created-again", play: func(w *world) {
		w.seen("a", "m-a")
		w.delete("a")
		w.awaitSoon("a", "gone")
		w.seen("a", "m-b")
	}},
	{name: "created-again-for-the-same-image", play: func(w *world) {
		w.seen("a", "m-a", retain)
		w.delete("a")
		w.awaitSoon("a", "gone")
		w.seen("a", "m-a")
	}},
}

// cleared is an image that cannot be deleted until something ends by itself.
func cleared(name string, depth depth, reason string, obstacle func(*ecssim.Image)) scenario {
	return scenario{name: name, depth: depth, most: map[string]int{"DeleteImage": 6}, play: func(w *world) {
		w.putImage("m-a", obstacle)
		w.create("a", "m-a")
		w.await("a", v1alpha1.ReasonAvailable)
		w.delete("a")
		w.await("a", reason)
		w.putImage("m-a")
		w.awaitSoon("a", "gone")
	}}
}

// vetoed is an image that a younger object keeps, made so long after the one that is deleted.
func vetoed(name string, after time.Duration) scenario {
	return scenario{name: name, play: func(w *world) {
		w.seen("a", "m-a")
		time.Sleep(after)
		w.create("keeper", "m-a", retain)
		w.await("keeper", v1alpha1.ReasonConflict)
		w.delete("a")
		w.await("a", v1alpha1.ReasonConflict)
		w.delete("keeper")
		w.await("keeper", "gone")
		w.awaitSoon("a", "gone")
	}}
}

// seen makes an image and an object that has seen it.
func (w *world) seen(name, imageID string, change ...func(*v1alpha1.CustomImage)) {
	w.t.Helper()
	w.putImage(imageID)
	w.create(name, imageID, change...)
	w.await(name, v1alpha1.ReasonAvailable)
}

// blocked makes a deleted object whose image is in use.
func (w *world) blocked(name, imageID string) {
	w.t.Helper()
	w.putImage(imageID, func(i *ecssim.Image) { i.UsedBy = []string{"i-1"} })
	w.create(name, imageID)
	w.await(name, v1alpha1.ReasonAvailable)
	w.delete(name)
	w.await(name, "ImageUsingByInstance")
}

func retain(image *v1alpha1.CustomImage) { image.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain }

func withSecret(image *v1alpha1.CustomImage) { image.Spec.CredentialsSecretRef.Name = "key" }

func annotate(name, value string) func(*v1alpha1.CustomImage) {
	return func(image *v1alpha1.CustomImage) {
		if image.Annotations == nil {
			image.Annotations = map[string]string{}
		}
		image.Annotations[name] = value
	}
}
