package decision

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// truth is what a row of the enumeration is about, told apart from the facts that the decision reads. The invariants
// are written in these words.
type truth struct {
	live, notOurs, foreign             bool
	retains, released, releaseOther    bool
	protected, namespaceEnds, optedIn  bool
	recreated, crdEnds                 bool
	promised                           bool
	keyUnknown, mismatch               bool
	specChanged, specStrange           bool
	accepted, overdue, called, refused bool
	notThere                           bool
	looked, shown, seen, missingLong   bool
	waits, failed                      bool

	// What is known of another object for the image, and of the accounts.
	rivalSaw, rivalOlder, rivalKeeps bool
	neverSeen, accountUnseen         bool
	rivalAccount, account            string
}

// rivalCounts says that a rival has seen the image in the account that this object is about.
func (t truth) rivalCounts() bool {
	account := thisAccount
	if t.neverSeen || t.accountUnseen {
		account = t.account
	}
	if t.neverSeen && t.specChanged {
		return false
	}
	return t.rivalSaw && (t.rivalAccount == account || t.rivalAccount == "")
}

// otherID says that the spec names no image, or another one than the object has seen.
func (t truth) otherID() bool { return t.specStrange || t.specChanged && !t.neverSeen }

func (t truth) owned() bool { return t.rivalCounts() && (t.rivalOlder || t.neverSeen) }
func (t truth) kept() bool  { return t.rivalCounts() && t.rivalKeeps }

func (t truth) cascade() bool {
	return t.recreated || t.crdEnds || t.namespaceEnds && (!t.optedIn || t.protected)
}

// keeps says that the object, its namespace or the CRD keeps the image.
func (t truth) keeps() bool { return t.released || t.retains || t.cascade() }

// inForce says that ECS accepted a deletion, and has not refused it since.
func (t truth) inForce() bool { return t.accepted && !t.refused }

// ended says that an acceptance came to nothing: ECS still shows the image, and may be asked again.
func (t truth) ended() bool { return t.overdue && !t.called && t.shown && !t.keeps() }

// lookedInVain says that this attempt has looked, and ECS did not show the image, whatever the status says.
func (t truth) lookedInVain() bool { return t.looked && !t.shown }

// mayDelete lists all that has to hold for DeleteImage.
func (t truth) mayDelete() bool {
	return !t.live && !t.notOurs && !t.foreign && !t.keeps() && !t.releaseOther && !t.protected && !t.otherID() &&
		!t.owned() && !t.promised && !t.kept() && !t.keyUnknown && !t.mismatch && !t.failed && t.seen && !t.lookedInVain() && !t.notThere &&
		(!t.waits || t.called) && (!t.inForce() || t.ended())
}

// variant is one value of one kind of fact.
type variant struct {
	name  string
	apply func(*Facts, *truth)
}

const (
	thisAccount = "1234567890123456"
	thatAccount = "9876543210987654"
)

var (
	decidedAt = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	born      = metav1.NewTime(decidedAt.Add(-240 * time.Hour))
	nothingIs = variant{"-", func(*Facts, *truth) {}}
)

func ago(d time.Duration) *metav1.Time { t := metav1.NewTime(decidedAt.Add(-d)); return &t }

// ready are the facts of a deleted object that passes every rule.
func ready() (Facts, truth) {
	image := &v1alpha1.CustomImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "web", UID: "this", CreationTimestamp: born,
			DeletionTimestamp: ago(30 * time.Minute), Finalizers: []string{v1alpha1.Finalizer}, Annotations: map[string]string{}},
		Spec: v1alpha1.CustomImageSpec{RegionID: "cn-hangzhou", ImageID: "m-1", DeletionPolicy: v1alpha1.DeletionPolicyDelete},
		Status: v1alpha1.CustomImageStatus{Image: &v1alpha1.ImageStatus{
			ImageID: "m-1", RegionID: "cn-hangzhou", OwnerID: thisAccount}},
	}
	around := func() *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "team", CreationTimestamp: born}}
	}
	return Facts{Now: decidedAt, Image: image, CRD: around(), Namespace: around(), Account: thisAccount},
		truth{seen: true, account: thisAccount}
}

func rival(change func(*v1alpha1.CustomImage)) *v1alpha1.CustomImage {
	f, _ := ready()
	f.Image.UID, f.Image.Name, f.Image.DeletionTimestamp = "other", "other", nil
	change(f.Image)
	return f.Image
}

func olderBy(d time.Duration) func(*v1alpha1.CustomImage) {
	return func(image *v1alpha1.CustomImage) { image.CreationTimestamp = metav1.NewTime(born.Add(-d)) }
}

func withRival(change func(*v1alpha1.CustomImage), is truth) func(*Facts, *truth) {
	other := rival(change)
	return func(f *Facts, t *truth) {
		f.Rivals = append(f.Rivals, other)
		t.rivalSaw, t.rivalOlder, t.rivalKeeps, t.rivalAccount = is.rivalSaw, is.rivalOlder, is.rivalKeeps, thisAccount
		switch is.rivalAccount {
		case "?":
			t.rivalAccount = ""
		case thatAccount:
			t.rivalAccount = thatAccount
		}
	}
}

var (
	finalizers = []variant{
		nothingIs,
		{"a foreign finalizer", func(f *Facts, t *truth) {
			f.Image.Finalizers, t.foreign = append(f.Image.Finalizers, "example.com/backup"), true
		}},
		{"our finalizer removed", func(f *Facts, t *truth) { f.Image.Finalizers, t.notOurs = []string{"example.com/backup"}, true }},
		{"another object of that name", func(f *Facts, t *truth) { f.Absent, t.notOurs = true, true }},
	}
	policies = []variant{
		nothingIs,
		{"no policy", func(f *Facts, _ *truth) { f.Image.Spec.DeletionPolicy = "" }},
		{"Retain", func(f *Facts, t *truth) { f.Image.Spec.DeletionPolicy, t.retains = v1alpha1.DeletionPolicyRetain, true }},
		{"an unknown policy", func(f *Facts, t *truth) { f.Image.Spec.DeletionPolicy, t.retains = "Delte", true }},
	}
	releases = []variant{
		nothingIs,
		{"released", func(f *Facts, t *truth) { f.Image.Annotations[v1alpha1.AnnotationRelease], t.released = "m-1", true }},
		{"release of another", func(f *Facts, t *truth) {
			f.Image.Annotations[v1alpha1.AnnotationRelease], t.releaseOther = "m-2", true
		}},
		{"release of nothing", func(f *Facts, t *truth) {
			f.Image.Annotations[v1alpha1.AnnotationRelease], t.releaseOther = "", true
		}},
	}
	protections = []variant{
		nothingIs,
		{"protected: until May", func(f *Facts, t *truth) {
			f.Image.Annotations[v1alpha1.AnnotationProtected], t.protected = "until May", true
		}},
		{"protected: false", func(f *Facts, _ *truth) { f.Image.Annotations[v1alpha1.AnnotationProtected] = "false" }},
		{"protected: empty", func(f *Facts, _ *truth) { f.Image.Annotations[v1alpha1.AnnotationProtected] = "" }},
	}
	surroundings = []variant{
		nothingIs,
		{"namespace ends", func(f *Facts, t *truth) { f.Namespace.DeletionTimestamp, t.namespaceEnds = ago(0), true }},
		{"namespace ends and opts in", func(f *Facts, t *truth) {
			f.Namespace.DeletionTimestamp, t.namespaceEnds, t.optedIn = ago(0), true, true
			f.Namespace.Annotations = map[string]string{v1alpha1.AnnotationOnNamespaceDeletion: "Delete"}
		}},
		{"namespace ends, opts in wrongly", func(f *Facts, t *truth) {
			f.Namespace.DeletionTimestamp, t.namespaceEnds = ago(0), true
			f.Namespace.Annotations = map[string]string{v1alpha1.AnnotationOnNamespaceDeletion: "delete"}
		}},
		{"no namespace", func(f *Facts, t *truth) { f.Namespace, t.namespaceEnds = nil, true }},
		{"another namespace", func(f *Facts, t *truth) { f.Namespace.CreationTimestamp, t.recreated = *ago(0), true }},
		{"namespace as old as the object", func(f *Facts, _ *truth) {
			f.Namespace.CreationTimestamp = metav1.NewTime(born.Add(30 * time.Second)) // by another clock
		}},
		{"CRD ends", func(f *Facts, t *truth) { f.CRD.DeletionTimestamp, t.crdEnds = ago(0), true }},
		{"no CRD", func(f *Facts, t *truth) { f.CRD, t.crdEnds = nil, true }},
		{"another CRD", func(f *Facts, t *truth) { f.CRD.CreationTimestamp, t.recreated = *ago(0), true }},
	}
	rivals = []variant{
		nothingIs,
		{"an older owner", withRival(olderBy(time.Hour), truth{rivalSaw: true, rivalOlder: true})},
		{"an owner as old", withRival(func(c *v1alpha1.CustomImage) { c.UID = "a" }, truth{rivalSaw: true, rivalOlder: true})},
		{"a younger rival as old", withRival(func(c *v1alpha1.CustomImage) { c.UID = "z" }, truth{rivalSaw: true})},
		{"an older owner of an unknown account", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(time.Hour)(c)
			c.Status.Image.OwnerID = ""
		}, truth{rivalSaw: true, rivalOlder: true, rivalAccount: "?"})},
		{"a younger rival", withRival(olderBy(-time.Hour), truth{rivalSaw: true})},
		{"an older rival that saw nothing", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(time.Hour)(c)
			c.Status.Image, c.Spec.DeletionPolicy = nil, v1alpha1.DeletionPolicyRetain
		}, truth{rivalOlder: true, rivalKeeps: true})},
		{"an older rival in another account", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(time.Hour)(c)
			c.Status.Image.OwnerID, c.Spec.DeletionPolicy = thatAccount, v1alpha1.DeletionPolicyRetain
		}, truth{rivalSaw: true, rivalOlder: true, rivalKeeps: true, rivalAccount: thatAccount})},
		{"an older rival in another region", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(time.Hour)(c)
			c.Spec.RegionID, c.Status.Image.RegionID = "cn-beijing", "cn-beijing"
			c.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		}, truth{rivalOlder: true, rivalKeeps: true})},
		{"a younger rival that retains", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(-time.Hour)(c)
			c.Spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		}, truth{rivalSaw: true, rivalKeeps: true})},
		{"a younger rival that retains, and names another image now", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(-time.Hour)(c)
			c.Spec.ImageID, c.Spec.DeletionPolicy = "m-9", v1alpha1.DeletionPolicyRetain
		}, truth{rivalSaw: true, rivalKeeps: true})},
		{"a younger rival that retains, and names another region now", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(-time.Hour)(c)
			c.Spec.RegionID, c.Spec.DeletionPolicy = "cn-beijing", v1alpha1.DeletionPolicyRetain
		}, truth{rivalSaw: true, rivalKeeps: true})},
		{"an older rival that saw another image", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(time.Hour)(c)
			c.Status.Image.ImageID, c.Spec.DeletionPolicy = "m-9", v1alpha1.DeletionPolicyRetain
		}, truth{})},
		{"a younger rival that is protected", withRival(func(c *v1alpha1.CustomImage) {
			olderBy(-time.Hour)(c)
			c.Annotations[v1alpha1.AnnotationProtected] = "yes"
		}, truth{rivalSaw: true, rivalKeeps: true})},
	}
	promises = []variant{
		nothingIs,
		{"an owner promised", func(f *Facts, t *truth) {
			f.Image.Status.OwnedBy, t.promised = v1alpha1.OwnerReference{Namespace: "team", Name: "old", UID: "old"}, true
		}},
	}
	specs = []variant{
		nothingIs,
		{"another image", func(f *Facts, t *truth) {
			f.Image.Spec.ImageID, t.specChanged = "m-3", true
			t.released, t.releaseOther = false, t.released || t.releaseOther // the annotation has to name spec.imageID
		}},
		{"another region", func(f *Facts, t *truth) {
			f.Image.Spec.RegionID, t.specChanged = "cn-shanghai", true
		}},
		{"no region", func(f *Facts, t *truth) { f.Image.Spec.RegionID, t.specStrange = "", true }},
		{"a strange region", func(f *Facts, t *truth) {
			f.Image.Spec.RegionID, f.Image.Status.Image.RegionID, t.specStrange = "evil.example/", "", true
		}},
		{"a strange image", func(f *Facts, t *truth) {
			f.Image.Spec.ImageID, f.Image.Status.Image.ImageID, t.specStrange = "M-1", "", true
			t.released, t.releaseOther = false, t.released || t.releaseOther
		}},
	}
	accessKeys = []variant{
		nothingIs,
		{"no key yet", func(f *Facts, t *truth) { f.Account, t.account, t.keyUnknown = "", f.Image.Spec.AccountID, true }},
		{"a key of another account", func(f *Facts, t *truth) { f.Account, t.account, t.mismatch = thatAccount, thatAccount, true }},
		{"pinned, no key yet", func(f *Facts, t *truth) {
			f.Account, f.Image.Spec.AccountID, t.account, t.keyUnknown = "", thisAccount, thisAccount, true
		}},
		{"pinned", func(f *Facts, _ *truth) { f.Image.Spec.AccountID = thisAccount }},
		{"pinned to another account", func(f *Facts, t *truth) {
			f.Image.Spec.AccountID, t.account, t.mismatch = thatAccount, thatAccount, true
		}},
		{"no key, for a reason", func(f *Facts, t *truth) {
			f.Account, t.account, t.keyUnknown, t.failed = "", "", true, true
			f.Failure = &failure.Error{Code: v1alpha1.ReasonSecretNotFound}
		}},
	}
	sights = []variant{
		nothingIs,
		{"never seen", func(f *Facts, t *truth) { f.Image.Status.Image, t.seen, t.neverSeen = nil, false, true }},
		{"seen in an unknown account", func(f *Facts, t *truth) {
			f.Image.Status.Image.OwnerID, t.seen, t.accountUnseen = "", false, true
		}},
		{"not shown for long", func(f *Facts, t *truth) {
			f.Image.Status.MissingSince, t.seen, t.missingLong = ago(Agreement), false, true
		}},
		{"not shown just now", func(f *Facts, t *truth) { f.Image.Status.MissingSince, t.seen = ago(Agreement-time.Second), false }},
	}
	looks = []variant{
		nothingIs,
		{"shown", func(f *Facts, t *truth) {
			f.Shown, t.looked, t.shown = &Showing{Image: &ecs.Image{ImageID: "m-1", OwnerID: thisAccount}}, true, true
		}},
		{"not shown", func(f *Facts, t *truth) { f.Shown, t.looked = &Showing{}, true }},
		{"look failed", func(f *Facts, t *truth) { f.Failure, t.failed = &failure.Error{Code: "InternalError"}, true }},
	}
	calls = []variant{
		nothingIs,
		{"accepted", func(f *Facts, t *truth) { f.Image.Status.DeletionAcceptedTime, t.accepted = ago(time.Minute), true }},
		{"accepted long ago", func(f *Facts, t *truth) {
			f.Image.Status.DeletionAcceptedTime, t.accepted, t.overdue = ago(Patience), true, true
		}},
		{"just accepted", func(f *Facts, t *truth) { f.Call, t.called, t.accepted = Accepted, true, true }},
		{"accepted again", func(f *Facts, t *truth) {
			f.Image.Status.DeletionAcceptedTime, f.Call = ago(Patience), Accepted
			t.accepted, t.overdue, t.called = true, true, true
		}},
		{"answered that there is no such image", func(f *Facts, t *truth) { f.Call, t.called, t.notThere = NotThere, true, true }},
		{"accepted, as only this process knows", func(f *Facts, t *truth) { f.Accepted, t.accepted = decidedAt.Add(-time.Minute), true }},
		{"accepted in another life", func(f *Facts, _ *truth) { f.Image.Status.DeletionAcceptedTime = ago(time.Hour) }},
		{"refused", func(f *Facts, t *truth) {
			f.Call, f.Failure = Refused, &failure.Error{Code: "ImageUsingByInstance", Action: "ecs:DeleteImage"}
			t.called, t.refused, t.failed = true, true, true
		}},
		{"accepted long ago, refused now", func(f *Facts, t *truth) {
			f.Image.Status.DeletionAcceptedTime, f.Call = ago(Patience), Refused
			f.Failure = &failure.Error{Code: "ImageUsingByInstance", Action: "ecs:DeleteImage"}
			t.accepted, t.overdue, t.called, t.refused, t.failed = true, true, true, true, true
		}},
	}
	waits = []variant{
		nothingIs,
		{"not due", func(f *Facts, t *truth) { f.Wait, t.waits = time.Minute, true }},
	}
	lives = []variant{
		nothingIs,
		{"live", func(f *Facts, t *truth) { f.Image.DeletionTimestamp, t.live = nil, true }},
	}
)

// every calls check with each combination of the variants.
func every(kinds [][]variant, check func(name string, f Facts, t truth)) (rows int) {
	chosen := make([]int, len(kinds))
	for {
		f, t := ready()
		var names []string
		for kind, n := range chosen {
			kinds[kind][n].apply(&f, &t)
			if name := kinds[kind][n].name; name != "-" {
				names = append(names, name)
			}
		}
		check(strings.Join(names, ", "), f, t)
		rows++
		kind := 0
		for ; kind < len(kinds); kind++ {
			if chosen[kind]++; chosen[kind] < len(kinds[kind]) {
				break
			}
			chosen[kind] = 0
		}
		if kind == len(kinds) {
			return rows
		}
	}
}

// pick returns some of the variants, by name.
func pick(of []variant, names ...string) (picked []variant) {
	for _, v := range of {
		for _, name := range names {
			if v.name == name {
				picked = append(picked, v)
			}
		}
	}
	return picked
}

// invariants returns what a verdict breaks.
func invariants(v Verdict, t truth) []string {
	_, deletes := v.(DeleteImage)
	end, ends := v.(LetGo)
	said, says := v.(Report)
	_, none := v.(Nothing)
	_, waits := v.(WaitFor)
	_, findsKey := v.(FindKey)
	_, looks := v.(Look)
	_, notes := v.(Note)
	ours := !t.live && !t.notOurs && !t.foreign
	var broken []string
	hold := func(holds bool, invariant string) {
		if !holds {
			broken = append(broken, invariant)
		}
	}
	asks := deletes || findsKey || looks || notes
	hold(!asks || !t.otherID(), "ECS is called for no image but the one that the object has seen")
	hold(deletes == t.mayDelete(), "DeleteImage is called if, and only if, all that it requires holds")
	hold(!deletes || !t.called, "DeleteImage is called once in an attempt")
	hold(!ends || ours, "only our own finalizer, and the last one, is removed, from a deleted object")
	if ends {
		switch end.Event {
		case v1alpha1.EventDeleted:
			hold((t.inForce() || t.notThere) && t.looked && !t.shown && !t.otherID(), "deleted is what ECS accepted to delete and does not show")
		case v1alpha1.EventNotFound:
			hold(!t.inForce() && !t.notThere && !t.seen && t.missingLong && t.looked && !t.shown && !t.mismatch && !t.keyUnknown,
				"not found is what two looks with the right key agree on")
		case v1alpha1.EventDeletionAccepted:
			hold(t.inForce() && (t.keeps() || t.overdue && (t.owned() || t.promised)), "an accepted deletion is what comes too late to be kept")
		case v1alpha1.EventReleased:
			hold(!t.inForce() && t.released, "released is what the annotation names")
		case v1alpha1.EventRetained:
			hold(!t.inForce() && (t.keeps() || !t.releaseOther && !t.protected && !t.otherID() && (t.owned() || t.promised)),
				"retained is what the object, a cascade or an owner keeps")
		default:
			hold(false, "an end has a known event")
		}
	}
	hold(none == (!t.live && t.notOurs), "an object that is not ours is left alone, and no other")
	hold(!waits || t.waits && !t.called, "an attempt ends early only if it is not due, and never after DeleteImage")
	hold(!says || said.Err == nil || said.Err.Code != "InternalError", "a hiccup is retried")
	early := ours && t.inForce() && t.keeps() && !t.looked && !t.failed && !t.mismatch && !t.otherID()
	hold(!early || !ends, "an accepted deletion is looked at before its object ends")
	edited := ours && t.keeps() && t.otherID()
	hold(!edited || ends, "an object that keeps its image ends, whatever its spec names")
	stuck := ours && t.keeps() && !t.inForce()
	hold(!stuck || ends, "an object that keeps its image is never stuck")
	held := ours && !t.inForce() && !t.keeps() && (t.releaseOther || t.protected || t.otherID())
	hold(!held || says, "an object that is held says so, whatever else is known")
	conflict := ours && !t.inForce() && !t.keeps() && !held
	others := conflict && (t.owned() || t.promised)
	hold(!others || ends && end.Event == v1alpha1.EventRetained,
		"an object that does not own the image ends without a call")
	missing := conflict && !others && !t.kept() && t.looked && !t.shown && !t.seen && t.missingLong
	missing = missing && !t.notThere && !t.waits && !t.failed && !t.keyUnknown && !t.mismatch
	hold(!missing || ends, "an object whose image two looks do not show ends")
	vetoed := conflict && !others && t.kept()
	hold(!vetoed || says, "an image that another object keeps is held")
	return broken
}

func TestDecide_holdsItsInvariantsInEveryCombination(t *testing.T) {
	failures := 0
	check := func(name string, f Facts, tr truth) {
		v := Decide(f)
		for _, broken := range invariants(v, tr) {
			if failures++; failures <= 5 {
				t.Errorf("%s\n\tfacts:   %s\n\tverdict: %T %+v", broken, name, v, v)
			}
		}
	}
	rows := every([][]variant{
		lives, finalizers, policies, releases, protections, surroundings, pick(rivals, "-", "an older owner", "a younger rival that retains"),
		pick(calls, "-", "accepted"),
	}, check)
	rows += every([][]variant{
		rivals, promises, specs, accessKeys, sights, looks, pick(waits, "-"), pick(calls, "-", "accepted"),
	}, check)
	rows += every([][]variant{
		lives, pick(policies, "-", "Retain"), pick(surroundings, "-", "namespace ends"),
		pick(rivals, "-", "an older owner", "a younger rival that retains"), accessKeys, sights, looks, calls, waits,
	}, check)
	rows += every([][]variant{policies, releases, surroundings, specs, looks, calls}, check)
	t.Logf("%d rows", rows)
	if rows < 10000 {
		t.Errorf("%d rows are too few", rows)
	}
}
