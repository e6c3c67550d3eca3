package decision

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

// CRDName is the name of the definition of CustomImages.
const CRDName = "customimages.ecs.imagegc.io"

const (
	// Patience is how long ECS may go on showing an image whose deletion it accepted, before DeleteImage is
	// called again and the object is Stalled.
	Patience = 10 * time.Minute

	// Agreement is how far apart two looks are that agree on an image that ECS does not show.
	Agreement = 30 * time.Second

	// clockSkew bounds how much the clocks of two API servers differ, when a namespace is compared with its objects.
	clockSkew = time.Minute
)

// A rule decides on the facts that it is about, and returns nil to leave the decision to the next rule.
type rule func(Facts) Verdict

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
	imageNotThere,
	notDue,
	failed,
	keyUnknown,
	otherAccount,
	notSeen,
}

// Decide returns what to do about an object. It reads nothing but the facts, and writes nothing.
func Decide(f Facts) Verdict {
	rules := liveRules
	if !f.Image.DeletionTimestamp.IsZero() {
		rules = deletionRules
	}
	for _, decides := range rules {
		if v := decides(f); v != nil {
			return v
		}
	}
	return DeleteImage{}
}

// notOurs: another object has this name now, or our finalizer is removed.
func notOurs(f Facts) Verdict {
	if f.Absent || !slices.Contains(f.Image.Finalizers, v1alpha1.Finalizer) {
		return Nothing{}
	}
	return nil
}

// foreignFinalizers: ours is the last one, so that the image is deleted last.
func foreignFinalizers(f Facts) Verdict {
	others := slices.DeleteFunc(slices.Clone(f.Image.Finalizers), func(name string) bool { return name == v1alpha1.Finalizer })
	if len(others) == 0 {
		return nil
	}
	return Report{
		Summary: v1alpha1.ConditionReconciling,
		Reason:  v1alpha1.ReasonPending,
		Message: fmt.Sprintf("Waiting for other finalizers to be removed: %s.", Clip(strings.Join(others, ", "), 1024)),
	}
}

// deletionAccepted: once ECS accepted the deletion, the image is looked at and not asked to be deleted again, and
// nothing says that it is kept.
func deletionAccepted(f Facts) Verdict {
	why, invalid := whyReleased(f), specInvalid(f)
	switch {
	case f.AcceptedAt().IsZero():
		return nil
	case invalid != nil && why != "":
		return leave(f, "", "", why)
	case invalid != nil: // a look would be one at another image
		return invalid
	case f.isLookedAt() && !f.isShown():
		return deleted(f)
	case why != "":
		return tooLate(f, why)
	case f.isShown():
		return stillShown(f)
	}
	return firstOf(f, notDue, failed, keyUnknown, otherAccount, notLooked)
}

// imageNotThere: DeleteImage answered that there is no such image, though ECS showed it at the last look. Either an
// earlier call took effect, or somebody else deleted it. An answer that still shows it is a contradiction.
func imageNotThere(f Facts) Verdict {
	switch {
	case f.Call != NotThere:
		return nil
	case f.isShown():
		f.Failure = &failure.Error{Code: failure.CodeUnusableAnswer,
			Message: "DeleteImage answers that there is no such image, and DescribeImages shows it."}
		return Explain(f)
	case f.isLookedAt():
		return deleted(f)
	}
	return firstOf(f, failed, notLooked)
}

func deleted(f Facts) Verdict {
	return LetGo{v1alpha1.EventDeleted, fmt.Sprintf("Deleted in region %s, account %s.", f.Image.Spec.RegionID, f.Account)}
}

// tooLate: the object is released, but not before a last look, if one is possible.
func tooLate(f Facts, why string) Verdict {
	if firstOf(f, failed, otherAccount) == nil {
		if v := firstOf(f, keyUnknown, notLooked); v != nil {
			return v
		}
	}
	return leave(f, "", "", why)
}

func firstOf(f Facts, rules ...rule) Verdict {
	for _, decides := range rules {
		if v := decides(f); v != nil {
			return v
		}
	}
	return nil
}

// stillShown: ECS shows an image whose deletion it accepted. When the patience is over, so is the acceptance: the next
// attempt calls DeleteImage again.
func stillShown(f Facts) Verdict {
	r := Report{
		Summary: v1alpha1.ConditionReconciling,
		Reason:  v1alpha1.ReasonDeleting,
		Page:    v1alpha1.ReasonDeleting,
		Others:  Cleared,
		Message: fmt.Sprintf("ECS accepted the deletion and still shows the image with status %s.", Clip(f.Shown.Image.Status, 64)),
	}
	switch overdue := f.Now.Sub(f.AcceptedAt()) >= Patience; {
	case !overdue:
		r.Message += " The operator checks again."
		return r
	case f.Call == NotCalled:
		return nil
	}
	r.Summary = v1alpha1.ConditionStalled
	r.Message += fmt.Sprintf(" This has lasted for more than %.0f minutes. The operator calls DeleteImage again. If this "+
		"continues, contact Alibaba Cloud support about the image. To remove this object now, run %s.", Patience.Minutes(), releaseCommand(f))
	return r
}

// released: the object, its namespace or the CRD says that the image is kept.
func released(f Facts) Verdict {
	why := whyReleased(f)
	if why == "" {
		return nil
	}
	event := v1alpha1.EventRetained
	if f.Image.Annotations[v1alpha1.AnnotationRelease] == f.Image.Spec.ImageID {
		event = v1alpha1.EventReleased
	}
	return leave(f, event, "The operator leaves the image as it is: ", why)
}

func releaseCommand(f Facts) string {
	return fmt.Sprintf("`kubectl annotate cimg %s -n %s --overwrite %s=%s`", f.Image.Name, f.Image.Namespace,
		v1alpha1.AnnotationRelease, f.Image.Spec.ImageID)
}

func howToRelease(f Facts) string {
	return "To remove this object" + keeping(f) + ", run " + releaseCommand(f) + "."
}

// keeping is what releasing the object does for the image.
func keeping(f Facts) string {
	switch {
	case !f.AcceptedAt().IsZero():
		return ", whose image ECS has accepted to delete"
	case f.Image.Status.DeletionAcceptedTime != nil || !f.Unconfirmed.IsZero():
		return " without another call of DeleteImage"
	}
	return " and keep the image"
}

// howToRetain is for objects that may not be deleted yet.
func howToRetain(f Facts) string {
	text := fmt.Sprintf("To remove this object%s, run `kubectl patch cimg %s -n %s --type=merge "+
		`-p '{"spec":{"deletionPolicy":"Retain"}}'`+"`", keeping(f), f.Image.Name, f.Image.Namespace)
	if f.Image.DeletionTimestamp.IsZero() {
		return text + " and delete it."
	}
	return text + "."
}

// leave ends an object without a call. If ECS accepted the deletion before, or may have, it says that instead.
func leave(f Facts, event, outcome, why string) Verdict {
	accepted := f.AcceptedAt()
	for _, rival := range rivalsInSight(f) {
		if accepted.IsZero() {
			accepted = Facts{Image: rival}.AcceptedAt()
		}
	}
	switch {
	case !accepted.IsZero():
		return LetGo{v1alpha1.EventDeletionAccepted, fmt.Sprintf("Finalizer removed: %s. But ECS accepted the deletion of the image "+
			"before that, at %s. Expect the image to be deleted.", why, accepted.UTC().Format(time.RFC3339))}
	case !f.Unconfirmed.IsZero():
		return LetGo{v1alpha1.EventDeletionAccepted, fmt.Sprintf("Finalizer removed: %s. But a call of DeleteImage got no usable "+
			"answer at %s. ECS may have accepted it, so check the image.", why, f.Unconfirmed.UTC().Format(time.RFC3339))}
	}
	return LetGo{event, outcome + why + "."}
}

// whyReleased returns why the object is released without its image; "" if it is not.
func whyReleased(f Facts) string {
	switch release, policy := f.Image.Annotations[v1alpha1.AnnotationRelease], f.Image.Spec.DeletionPolicy; {
	case release != "" && release == f.Image.Spec.ImageID:
		return "the annotation " + v1alpha1.AnnotationRelease + " names it"
	case policy == v1alpha1.DeletionPolicyRetain:
		return "spec.deletionPolicy is Retain"
	case Retains(f.Image):
		return fmt.Sprintf("spec.deletionPolicy is %q, which is not Delete", Clip(string(policy), 64))
	}
	return cascade(f)
}

// cascade returns which deletion, of a namespace or of the CRD, the object is part of; "" for none. What does not
// exist any more, or was created after the object, was deleted with it: the operator comes late.
func cascade(f Facts) string {
	switch namespace := f.Image.Namespace; {
	case isYounger(f.CRD, f.Image) || isYounger(f.Namespace, f.Image):
		return "the namespace or CustomResourceDefinition was recreated after this object was created"
	case IsEnding(f.CRD):
		return "CustomResourceDefinition " + CRDName + " is being deleted"
	case !IsEnding(f.Namespace):
		return ""
	case !optsIn(f.Namespace):
		return "namespace " + namespace + " is being deleted"
	case IsProtected(f.Image):
		return "namespace " + namespace + " is being deleted, and this object is protected"
	}
	return ""
}

func isYounger(of *metav1.PartialObjectMetadata, image *v1alpha1.CustomImage) bool {
	return of != nil && of.CreationTimestamp.Sub(image.CreationTimestamp.Time) > clockSkew
}

func optsIn(namespace *metav1.PartialObjectMetadata) bool {
	return namespace != nil &&
		namespace.Annotations[v1alpha1.AnnotationOnNamespaceDeletion] == string(v1alpha1.DeletionPolicyDelete)
}

// releaseInvalid: a user wanted to keep some image, and it may be this one.
func releaseInvalid(f Facts) Verdict {
	value, asked := f.Image.Annotations[v1alpha1.AnnotationRelease]
	if !asked {
		return nil
	}
	return Report{
		Summary: v1alpha1.ConditionStalled,
		Reason:  v1alpha1.ReasonInvalidRelease,
		Page:    v1alpha1.ReasonInvalidRelease,
		Message: fmt.Sprintf("The annotation %s is %q, which is not the ID of the image. %s To delete the image, run "+
			"`kubectl annotate cimg %s -n %s %s-`.", v1alpha1.AnnotationRelease, Clip(value, 64), howToRelease(f),
			f.Image.Name, f.Image.Namespace, v1alpha1.AnnotationRelease),
	}
}

// protected: the deletion came past the admission policy, or the annotation came after it.
func protected(f Facts) Verdict {
	if !IsProtected(f.Image) {
		return nil
	}
	return Report{
		Summary: v1alpha1.ConditionStalled,
		Reason:  v1alpha1.ReasonProtected,
		Page:    v1alpha1.ReasonProtected,
		Message: fmt.Sprintf("The annotation %s is %q. To delete the image, run `kubectl annotate cimg %s -n %s %s-`. %s",
			v1alpha1.AnnotationProtected, Clip(f.Image.Annotations[v1alpha1.AnnotationProtected], 64), f.Image.Name,
			f.Image.Namespace, v1alpha1.AnnotationProtected, howToRelease(f)),
	}
}

// The IDs that the schema accepts when an object is created.
var (
	regionIDPattern = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]+)+$`)
	imageIDPattern  = regexp.MustCompile(`^m-[a-z0-9]+$`)
)

// specInvalid: admission refuses these edits. Where its policies are missing, an edit must not delete an image either.
func specInvalid(f Facts) Verdict {
	fault := faultOf(f.Image.Spec, seenAs(f.Image))
	if fault == "" {
		return nil
	}
	return Report{
		Summary:  v1alpha1.ConditionStalled,
		Reason:   v1alpha1.ReasonInvalidSpec,
		Page:     v1alpha1.ReasonInvalidSpec,
		Obstacle: v1alpha1.ConditionInvalid,
		Others:   Unobserved,
		Message: "InvalidSpec: " + fault + " DeleteImage is not called. Restore the old value, and create another CustomImage for " +
			"another image. " + howToRetain(f),
	}
}

// NamesItsImage reports whether the spec names an image, and no other one than the object has seen.
func NamesItsImage(image *v1alpha1.CustomImage) bool { return faultOf(image.Spec, seenAs(image)) == "" }

// faultOf says what is wrong with a spec for an image that was seen like this; "" for nothing.
func faultOf(spec v1alpha1.CustomImageSpec, seen v1alpha1.ImageStatus) string {
	region, id := Clip(spec.RegionID, 64), Clip(spec.ImageID, 64)
	switch {
	case !regionIDPattern.MatchString(spec.RegionID):
		return fmt.Sprintf("spec.regionID is %q, which is not the ID of a region.", region)
	case !imageIDPattern.MatchString(spec.ImageID):
		return fmt.Sprintf("spec.imageID is %q, which is not the ID of a custom image.", id)
	case cmp.Or(seen.ImageID, id) != id || cmp.Or(seen.RegionID, region) != region:
		return fmt.Sprintf("spec names image %s in %s, but this object stands for image %s in %s.", id, region, seen.ImageID,
			seen.RegionID)
	}
	return ""
}

// notOwner: the image belongs to another object, or did when the status last said so, and said that deleting this
// one does not delete the image.
func notOwner(f Facts) Verdict {
	owner, promised, why := ownerOf(f), f.Image.Status.OwnedBy, ""
	switch {
	case owner != nil && f.Image.Status.Image == nil:
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

// keptByOther: while another object keeps the image, no deletion destroys it.
func keptByOther(f Facts) Verdict {
	keeper := keeperOf(f)
	if keeper == nil {
		return nil
	}
	why := "its spec.deletionPolicy is Retain"
	if !Retains(keeper) {
		why = "it is protected by the annotation " + v1alpha1.AnnotationProtected
	}
	return Report{
		Summary: v1alpha1.ConditionStalled,
		Reason:  v1alpha1.ReasonConflict,
		Page:    v1alpha1.ReasonConflict,
		Message: fmt.Sprintf("CustomImage %s/%s keeps the image: %s. To delete the image, change that or delete that object. %s",
			keeper.Namespace, keeper.Name, why, howToRelease(f)),
	}
}

func notDue(f Facts) Verdict {
	if f.Wait > 0 && f.Call == NotCalled {
		return WaitFor(f.Wait)
	}
	return nil
}

// notDueUnlessChanged: an attempt is never too early if the owner of the image changed since the last look. Until it is
// due, the last look counts, but what deleting the object does may have changed.
func notDueUnlessChanged(f Facts) Verdict {
	if isSeen(f.Image) && ObstacleOf(f.Image) == nil {
		if referenceTo(ownerOf(f)).UID != f.Image.Status.OwnedBy.UID {
			return nil
		}
	}
	v := notDue(f)
	if v != nil && meta.IsStatusConditionTrue(f.Image.Status.Conditions, v1alpha1.ConditionReady) {
		return availableAs(f, seenAs(f.Image).State)
	}
	return v
}

func failed(f Facts) Verdict {
	if f.Failure == nil {
		return nil
	}
	return Explain(f)
}

func keyUnknown(f Facts) Verdict {
	if f.Account == "" {
		return FindKey{}
	}
	return nil
}

// otherAccount: with a key of another account, "not found" would say nothing about the image.
func otherAccount(f Facts) Verdict {
	shown := ""
	if f.isShown() {
		shown = f.Shown.Image.OwnerID
	}
	for _, pin := range []struct{ account, text string }{
		{f.Image.Spec.AccountID, "spec.accountID is %s"},
		{seenAs(f.Image).OwnerID, "The image was seen in account %s"},
		{shown, "The image belongs to account %s"},
	} {
		if f.Account == "" || cmp.Or(pin.account, f.Account) == f.Account {
			continue
		}
		return Report{
			Summary: v1alpha1.ConditionStalled,
			Reason:  v1alpha1.ReasonAccountMismatch,
			Page:    v1alpha1.ReasonAccountMismatch,
			Others:  Unobserved,
			Message: fmt.Sprintf(pin.text+", but the access key belongs to account %s. Use a key for account %s. %s",
				pin.account, f.Account, pin.account, howToRetain(f)),
		}
	}
	return nil
}

func notLooked(f Facts) Verdict {
	if !f.isLookedAt() {
		return Look{}
	}
	return nil
}

// notSeen: the image of an object is deleted only if ECS showed it at the last look. What the key cannot see is not
// gone, and a look that shows it must be on record before it is deleted.
func notSeen(f Facts) Verdict {
	status := f.Image.Status
	switch {
	case !f.isLookedAt() && f.isSeen():
		return nil
	case !f.isLookedAt():
		return Look{}
	case f.isShown() && isSeen(f.Image):
		return nil
	case f.isShown():
		return Note{Report{
			Summary: v1alpha1.ConditionReconciling,
			Reason:  v1alpha1.ReasonPending,
			Others:  Cleared,
			Message: "ECS shows the image; its deletion starts next.",
		}}
	case status.MissingSince != nil && f.Now.Sub(status.MissingSince.Time) >= Agreement:
		return LetGo{v1alpha1.EventNotFound, fmt.Sprintf("No image was deleted: ECS does not show it in region %s, account %s. It was "+
			"deleted elsewhere, or is not visible to the access key. If it exists, fix the key and create the object again.",
			f.Image.Spec.RegionID, f.Account)}
	}
	return missing(f, v1alpha1.ConditionReconciling, fmt.Sprintf("The operator checks once more after %.0f seconds, and then "+
		"removes the finalizer without deleting an image.", Agreement.Seconds()))
}

// notShown is for a live object what notSeen is for a deleted one.
func notShown(f Facts) Verdict {
	if f.isShown() {
		return nil
	}
	return missing(f, v1alpha1.ConditionStalled, MeaningOf("", ecs.CodeImageNotFound).Advice)
}

func missing(f Facts, summary, next string) Verdict {
	e := &failure.Error{
		Code: ecs.CodeImageNotFound,
		Message: fmt.Sprintf("ECS shows no such image in region %s, account %s: it was deleted elsewhere, or is not visible to "+
			"the access key.", f.Image.Spec.RegionID, f.Account),
	}
	return Report{
		Summary:  summary,
		Reason:   ReasonOf(e.Code),
		Page:     ReasonOf(e.Code),
		Obstacle: v1alpha1.ConditionNotFound,
		Others:   Cleared,
		Err:      e,
		Message:  fmt.Sprintf("%s: %s %s", e.Code, e.Message, next),
	}
}

// ownedByOther: a live object says which other one owns the image.
func ownedByOther(f Facts) Verdict {
	f.Image = sawNow(f)
	owner := ownerOf(f)
	if owner == nil {
		return nil
	}
	reference, effect := referenceTo(owner), "Delete this object: that does not delete the image."
	if keeps(f.Image) {
		effect = fmt.Sprintf("As long as this object exists, it keeps the image. After that, deleting CustomImage %s/%s deletes it.",
			owner.Namespace, owner.Name)
	}
	return Report{
		Summary: v1alpha1.ConditionStalled,
		Reason:  v1alpha1.ReasonConflict,
		Page:    v1alpha1.ReasonConflict,
		Others:  Cleared,
		Owner:   &reference,
		Message: fmt.Sprintf("CustomImage %s/%s owns the image, because it is older. %s", owner.Namespace, owner.Name, effect),
	}
}

// sawNow returns the object as one that has seen what ECS shows now.
func sawNow(f Facts) *v1alpha1.CustomImage {
	judged := f.Image.DeepCopy()
	judged.Status.Image = &v1alpha1.ImageStatus{OwnerID: f.Shown.Image.OwnerID}
	return judged
}

func referenceTo(owner *v1alpha1.CustomImage) v1alpha1.OwnerReference {
	if owner == nil {
		return v1alpha1.OwnerReference{}
	}
	return v1alpha1.OwnerReference{Namespace: owner.Namespace, Name: owner.Name, UID: owner.UID}
}

func available(f Facts) Verdict { return availableAs(f, f.Shown.Image.Status) }

// availableAs reports an image that ECS shows, or showed at the last look, with a status.
func availableAs(f Facts, status string) Verdict {
	effect := "Deleting this object deletes the image."
	switch {
	case IsProtected(f.Image):
		effect = "This object is protected and cannot be deleted."
	case Retains(f.Image):
		effect = "Deleting this object keeps the image."
	}
	return Report{
		Reason:  v1alpha1.ReasonAvailable,
		Others:  Cleared,
		Owner:   &v1alpha1.OwnerReference{},
		Message: fmt.Sprintf("ECS shows the image in %s with status %s. %s", f.Image.Spec.RegionID, Clip(status, 64), effect),
	}
}
