package customimage

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

const (
	// patience is how long ECS may go on showing an image whose deletion it accepted, before it is asked again and the
	// user is told.
	patience = 10 * time.Minute

	// agreement is how far apart two looks are that agree on an image that ECS does not show.
	agreement = 30 * time.Second

	// clockSkew bounds how much the clocks of two API servers differ, when a namespace is compared with its objects.
	clockSkew = time.Minute
)

// A rule decides on the facts that it is about, and returns nil to leave the decision to the next rule.
type rule func(facts) verdict

// liveRules are the protocol for a live object. None of them can change the image.
var liveRules = []rule{
	specInvalid,
	notDueUnlessChanged,
	failed,
	keyUnknown,
	otherAccount,
	notLooked,
	notShown,
	ownedByOther,
	available,
}

// deletionRules are the protocol for a deleted object. An object that passes them all has its image deleted.
var deletionRules = []rule{
	notOurs,
	foreignFinalizers,
	deletionAccepted,
	released,
	releaseInvalid,
	protected,
	specInvalid,
	notOwner,
	keptByOther,
	notDue,
	failed,
	keyUnknown,
	otherAccount,
	notSeen,
}

// decide returns what to do about an object. It reads nothing but the facts, and writes nothing.
func decide(f facts) verdict {
	rules := liveRules
	if !f.image.DeletionTimestamp.IsZero() {
		rules = deletionRules
	}
	for _, decides := range rules {
		if v := decides(f); v != nil {
			return v
		}
	}
	return deleteImage{}
}

// notOurs: another object has this name now, or our finalizer is removed.
func notOurs(f facts) verdict {
	if f.absent || !slices.Contains(f.image.Finalizers, v1alpha1.Finalizer) {
		return nothing{}
	}
	return nil
}

// foreignFinalizers: ours is the last one, so that the image is deleted last.
func foreignFinalizers(f facts) verdict {
	others := slices.DeleteFunc(slices.Clone(f.image.Finalizers), func(name string) bool { return name == v1alpha1.Finalizer })
	if len(others) == 0 {
		return nil
	}
	return report{
		summary: v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonPending,
		message: fmt.Sprintf("Waiting for other finalizers to be removed: %s.", clip(strings.Join(others, ", "), 1024)),
	}
}

// deletionAccepted: once ECS accepted the deletion, the image is looked at and not asked to be deleted again, and
// nothing says that it is kept. An acceptance is over if the image is still shown when the patience is over.
func deletionAccepted(f facts) verdict {
	since := acceptedAt(f)
	switch kept := whyReleased(f); {
	case since.IsZero() || f.call == refused:
		return nil
	case f.shown != nil && f.shown.image == nil:
		return letGo{v1alpha1.EventDeleted, fmt.Sprintf("Deleted in region %s, account %s.", f.image.Spec.RegionID, f.account)}
	case kept != "" && (f.shown != nil || f.failure != nil || otherAccount(f) != nil):
		return leave(f, "", "", kept)
	case f.shown != nil && f.now.Sub(since) >= patience && f.call == notCalled:
		return nil
	case f.shown != nil:
		return stillShown(f, since)
	case kept == "" && f.call == notCalled && f.wait > 0:
		return waitFor(f.wait)
	}
	return firstOf(f, failed, keyUnknown, otherAccount, notLooked)
}

func firstOf(f facts, rules ...rule) verdict {
	for _, decides := range rules {
		if v := decides(f); v != nil {
			return v
		}
	}
	return nil
}

// acceptedAt returns when ECS accepted the deletion; zero if it did not.
func acceptedAt(f facts) time.Time {
	switch earlier := f.image.Status.DeletionAcceptedTime; {
	case earlier != nil:
		return earlier.Time
	case f.call == accepted:
		return f.now
	}
	return time.Time{}
}

func stillShown(f facts, since time.Time) verdict {
	r := report{
		summary: v1alpha1.ConditionReconciling,
		reason:  v1alpha1.ReasonDeleting,
		page:    v1alpha1.ReasonDeleting,
		others:  cleared,
		message: fmt.Sprintf("ECS accepted the deletion and still shows the image with status %s.", clip(f.shown.image.Status, 64)),
	}
	if f.now.Sub(since) >= patience {
		r.summary = v1alpha1.ConditionStalled
		r.message += fmt.Sprintf(" This has lasted for more than %.0f minutes. Contact Alibaba Cloud support about the "+
			"image. To remove this object now, run `kubectl annotate cimg %s -n %s --overwrite %s=%s`.", patience.Minutes(),
			f.image.Name, f.image.Namespace, v1alpha1.AnnotationRelease, f.image.Spec.ImageID)
	}
	return r
}

// released: the object, its namespace or the CRD says that the image is kept.
func released(f facts) verdict {
	why := whyReleased(f)
	if why == "" {
		return nil
	}
	event := v1alpha1.EventRetained
	if f.image.Annotations[v1alpha1.AnnotationRelease] == f.image.Spec.ImageID {
		event = v1alpha1.EventReleased
	}
	return leave(f, event, "The operator leaves the image as it is: ", why)
}

// leave ends an object without a call. If ECS accepted the deletion before, it says that instead.
func leave(f facts, event, outcome, why string) verdict {
	since := acceptedAt(f)
	if since.IsZero() || f.call == refused {
		return letGo{event, outcome + why + "."}
	}
	return letGo{v1alpha1.EventDeletionAccepted, fmt.Sprintf("ECS accepted the deletion of the image at %s, so expect it to be "+
		"deleted. This came too late to stop it: %s.", since.UTC().Format(time.RFC3339), why)}
}

// whyReleased returns why the object is released without its image; "" if it is not.
func whyReleased(f facts) string {
	switch release, policy := f.image.Annotations[v1alpha1.AnnotationRelease], f.image.Spec.DeletionPolicy; {
	case release != "" && release == f.image.Spec.ImageID:
		return "the annotation " + v1alpha1.AnnotationRelease + " names it"
	case policy == v1alpha1.DeletionPolicyRetain:
		return "spec.deletionPolicy is Retain"
	case retains(f.image):
		return fmt.Sprintf("spec.deletionPolicy is %q, which is not Delete", clip(string(policy), 64))
	}
	return cascade(f)
}

// cascade returns which deletion, of a namespace or of the CRD, the object is part of; "" for none. What does not
// exist any more, or was created after the object, was deleted with it: the operator comes late.
func cascade(f facts) string {
	namespace := f.image.Namespace
	switch optedIn := optsIn(f.namespace); {
	case isYounger(f.crd, f.image) || isYounger(f.namespace, f.image):
		return "the namespace or CustomResourceDefinition was recreated after this object was created"
	case isEnding(f.crd):
		return "CustomResourceDefinition " + crdName + " is being deleted"
	case isEnding(f.namespace) && optedIn && isProtected(f.image):
		return "namespace " + namespace + " is being deleted, and this object is protected"
	case isEnding(f.namespace) && !optedIn:
		return "namespace " + namespace + " is being deleted"
	}
	return ""
}

func isEnding(of *metav1.PartialObjectMetadata) bool {
	return of == nil || !of.DeletionTimestamp.IsZero()
}

func isYounger(of *metav1.PartialObjectMetadata, image *v1alpha1.CustomImage) bool {
	return of != nil && of.CreationTimestamp.Sub(image.CreationTimestamp.Time) > clockSkew
}

func optsIn(namespace *metav1.PartialObjectMetadata) bool {
	return namespace != nil &&
		namespace.Annotations[v1alpha1.AnnotationOnNamespaceDeletion] == string(v1alpha1.DeletionPolicyDelete)
}

// releaseInvalid: a user wanted to keep some image, and it may be this one.
func releaseInvalid(f facts) verdict {
	value, asked := f.image.Annotations[v1alpha1.AnnotationRelease]
	if !asked {
		return nil
	}
	return report{
		summary: v1alpha1.ConditionStalled,
		reason:  v1alpha1.ReasonInvalidRelease,
		page:    v1alpha1.ReasonInvalidRelease,
		message: fmt.Sprintf("The annotation %s is %q. To remove this object and keep the image, set it to %s. To delete "+
			"the image, remove the annotation.", v1alpha1.AnnotationRelease, clip(value, 64), f.image.Spec.ImageID),
	}
}

// protected: the deletion came past the admission policy, or the annotation came after it.
func protected(f facts) verdict {
	if !isProtected(f.image) {
		return nil
	}
	return report{
		summary: v1alpha1.ConditionStalled,
		reason:  v1alpha1.ReasonProtected,
		page:    v1alpha1.ReasonProtected,
		message: fmt.Sprintf("The annotation %s is %q. To delete the image, remove the annotation. To remove this object "+
			"and keep the image, set spec.deletionPolicy to Retain.", v1alpha1.AnnotationProtected,
			clip(f.image.Annotations[v1alpha1.AnnotationProtected], 64)),
	}
}

// The IDs that the schema accepts when an object is created.
var (
	regionIDPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]+)+$`)
	imageIDPattern  = regexp.MustCompile(`^m-[a-z0-9]+$`)
)

// specInvalid: admission refuses these edits. Where its policies are missing, an edit must not delete an image either.
func specInvalid(f facts) verdict {
	spec, fault := f.image.Spec, ""
	seen := v1alpha1.ImageStatus{}
	if f.image.Status.Image != nil {
		seen = *f.image.Status.Image
	}
	switch {
	case !regionIDPattern.MatchString(spec.RegionID):
		fault = fmt.Sprintf("spec.regionID is %q, which is not the ID of a region.", clip(spec.RegionID, 64))
	case !imageIDPattern.MatchString(spec.ImageID):
		fault = fmt.Sprintf("spec.imageID is %q, which is not the ID of a custom image.", clip(spec.ImageID, 64))
	case cmp.Or(seen.ImageID, spec.ImageID) != spec.ImageID || cmp.Or(seen.RegionID, spec.RegionID) != spec.RegionID:
		fault = fmt.Sprintf("spec names image %s in %s, but this object stands for image %s in %s.",
			clip(spec.ImageID, 64), clip(spec.RegionID, 64), seen.ImageID, seen.RegionID)
	default:
		return nil
	}
	return report{
		summary:  v1alpha1.ConditionStalled,
		reason:   v1alpha1.ReasonInvalidSpec,
		page:     v1alpha1.ReasonInvalidSpec,
		obstacle: v1alpha1.ConditionInvalid,
		others:   unobserved,
		message: "InvalidSpec: " + fault + " Nothing is deleted. Restore the old value, and create another CustomImage for " +
			"another image. To remove this object and keep the image, set spec.deletionPolicy to Retain and delete it.",
	}
}

// notOwner: the image belongs to another object, or did when the status last said so, and said that deleting this
// one does not delete the image.
func notOwner(f facts) verdict {
	owner, promised, why := owner(f), f.image.Status.OwnedBy, ""
	switch {
	case owner != nil && f.image.Status.Image == nil:
		why = fmt.Sprintf("CustomImage %s/%s owns the image, because it has seen the image and this object has not",
			owner.Namespace, owner.Name)
	case owner != nil:
		why = fmt.Sprintf("CustomImage %s/%s owns the image", owner.Namespace, owner.Name)
	case promised.Name != "":
		why = fmt.Sprintf("CustomImage %s/%s owned the image when this object was last checked", promised.Namespace, promised.Name)
	default:
		return nil
	}
	return leave(f, v1alpha1.EventRetained, "No image was deleted: ", why)
}

func owner(f facts) *v1alpha1.CustomImage { return ownerOf(f.image, f.rivals, accountOf(f)) }

// accountOf is the one that the image is looked for in, as far as it is known.
func accountOf(f facts) string { return cmp.Or(f.account, f.image.Spec.AccountID) }

// keptByOther: while another object keeps the image, no deletion destroys it.
func keptByOther(f facts) verdict {
	keeper := keeperOf(f.image, f.rivals, accountOf(f))
	if keeper == nil {
		return nil
	}
	why := "its spec.deletionPolicy is Retain"
	if !retains(keeper) {
		why = "it is protected by the annotation " + v1alpha1.AnnotationProtected
	}
	return report{
		summary: v1alpha1.ConditionStalled,
		reason:  v1alpha1.ReasonConflict,
		page:    v1alpha1.ReasonConflict,
		message: fmt.Sprintf("CustomImage %s/%s keeps the image: %s. To delete the image, change that or delete that object. "+
			"To remove this object and keep the image, run `kubectl annotate cimg %s -n %s --overwrite %s=%s`.",
			keeper.Namespace, keeper.Name, why, f.image.Name, f.image.Namespace, v1alpha1.AnnotationRelease, f.image.Spec.ImageID),
	}
}

func notDue(f facts) verdict {
	if f.wait > 0 && f.call == notCalled {
		return waitFor(f.wait)
	}
	return nil
}

// notDueUnlessChanged: an attempt is never too early if the owner of the image, or what deleting the object does, is
// another one than the status says.
func notDueUnlessChanged(f facts) verdict {
	status, owner := f.image.Status, owner(f)
	seen := status.Image != nil && status.MissingSince == nil
	if seen && !isObstructed(f.image) && (referenceTo(owner).UID != status.OwnedBy.UID || saysOtherEffect(f.image)) {
		return nil
	}
	return notDue(f)
}

func failed(f facts) verdict {
	if f.failure == nil {
		return nil
	}
	return explain(f)
}

func keyUnknown(f facts) verdict {
	if f.account == "" {
		return findKey{}
	}
	return nil
}

// otherAccount: with a key of another account, "not found" would say nothing about the image.
func otherAccount(f facts) verdict {
	var seen, shown string
	if f.image.Status.Image != nil {
		seen = f.image.Status.Image.OwnerID
	}
	if f.shown != nil && f.shown.image != nil {
		shown = f.shown.image.OwnerID
	}
	for _, pin := range []struct{ account, text string }{
		{f.image.Spec.AccountID, "spec.accountID is %s"},
		{seen, "The image was seen in account %s"},
		{shown, "The image belongs to account %s"},
	} {
		if pin.account == "" || f.account == "" || pin.account == f.account {
			continue
		}
		return report{
			summary: v1alpha1.ConditionStalled,
			reason:  v1alpha1.ReasonAccountMismatch,
			page:    v1alpha1.ReasonAccountMismatch,
			others:  unobserved,
			message: fmt.Sprintf(pin.text+", but the access key belongs to account %s. Use a key for account %s. To keep the "+
				"image, set spec.deletionPolicy to Retain and delete this object.", pin.account, f.account, pin.account),
		}
	}
	return nil
}

func notLooked(f facts) verdict {
	if f.shown == nil {
		return look{}
	}
	return nil
}

// notSeen: the image of an object is deleted only if ECS showed it at the last look. What the key cannot see is not
// gone, and a look that shows it must be on record before it is deleted.
func notSeen(f facts) verdict {
	status := f.image.Status
	switch {
	case status.Image != nil && status.Image.OwnerID != "" && status.MissingSince == nil:
		return nil
	case f.shown == nil:
		return look{}
	case f.shown.image != nil:
		return note{report{
			summary: v1alpha1.ConditionReconciling,
			reason:  v1alpha1.ReasonPending,
			others:  cleared,
			message: "ECS shows the image; its deletion starts next.",
		}}
	case status.MissingSince != nil && f.now.Sub(status.MissingSince.Time) >= agreement:
		return letGo{v1alpha1.EventNotFound, fmt.Sprintf("No image was deleted: ECS shows none of this ID in region %s, account "+
			"%s. It was deleted elsewhere, or is not visible to the access key.", f.image.Spec.RegionID, f.account)}
	}
	return missing(f, v1alpha1.ConditionReconciling, fmt.Sprintf("The operator checks once more after %.0f seconds, and then "+
		"removes the finalizer without deleting an image.", agreement.Seconds()))
}

// notShown is for a live object what notSeen is for a deleted one.
func notShown(f facts) verdict {
	if f.shown.image != nil {
		return nil
	}
	return missing(f, v1alpha1.ConditionStalled, meaningOf("", ecs.CodeImageNotFound).Advice)
}

func missing(f facts, summary, next string) verdict {
	e := &failure.Error{
		Code: ecs.CodeImageNotFound,
		Message: fmt.Sprintf("ECS shows no such image in region %s, account %s: it was deleted elsewhere, or is not visible to "+
			"the access key.", f.image.Spec.RegionID, f.account),
	}
	return report{
		summary:  summary,
		reason:   reasonOf(e.Code),
		page:     reasonOf(e.Code),
		obstacle: v1alpha1.ConditionNotFound,
		others:   cleared,
		err:      e,
		message:  fmt.Sprintf("%s: %s %s", e.Code, e.Message, next),
	}
}

// ownedByOther: a live object says which other one owns the image.
func ownedByOther(f facts) verdict {
	owner := ownerOf(sawNow(f), f.rivals, f.account)
	if owner == nil {
		return nil
	}
	reference := referenceTo(owner)
	return report{
		summary: v1alpha1.ConditionStalled,
		reason:  v1alpha1.ReasonConflict,
		page:    v1alpha1.ReasonConflict,
		others:  cleared,
		owner:   &reference,
		message: fmt.Sprintf("CustomImage %s/%s owns the image, because it is older. Delete this object: that does not delete "+
			"the image.", owner.Namespace, owner.Name),
	}
}

// sawNow returns the object as one that has seen what ECS shows now.
func sawNow(f facts) *v1alpha1.CustomImage {
	judged := f.image.DeepCopy()
	judged.Status.Image = &v1alpha1.ImageStatus{OwnerID: f.shown.image.OwnerID}
	return judged
}

func referenceTo(owner *v1alpha1.CustomImage) v1alpha1.OwnerReference {
	if owner == nil {
		return v1alpha1.OwnerReference{}
	}
	return v1alpha1.OwnerReference{Namespace: owner.Namespace, Name: owner.Name, UID: owner.UID}
}

func available(f facts) verdict {
	return report{
		reason: v1alpha1.ReasonAvailable,
		others: cleared,
		owner:  &v1alpha1.OwnerReference{},
		message: fmt.Sprintf("ECS shows the image in %s with status %s. %s", f.image.Spec.RegionID,
			clip(f.shown.image.Status, 64), effectOf(f.image)),
	}
}

// What deleting an available object does, as the end of its message.
const (
	effectDeletes   = "Deleting this object deletes the image."
	effectKeeps     = "Deleting this object keeps the image."
	effectProtected = "This object is protected and cannot be deleted."
)

func effectOf(image *v1alpha1.CustomImage) string {
	switch {
	case retains(image):
		return effectKeeps
	case isProtected(image):
		return effectProtected
	}
	return effectDeletes
}

// saysOtherEffect reports whether the message says what deleting the object does not do: an annotation changed since.
func saysOtherEffect(image *v1alpha1.CustomImage) bool {
	ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && slices.ContainsFunc([]string{effectDeletes, effectKeeps, effectProtected}, func(effect string) bool {
		return effect != effectOf(image) && strings.HasSuffix(ready.Message, effect)
	})
}
