package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// users know what was asked of the operator, and in which order. They change an object only between two attempts of an
// operator: not between its read of the object and the call that rests on it.
type users struct {
	mu       sync.Mutex
	step     int
	waiting  int // users who wait for operators to act
	intents  map[types.UID]*intent
	images   map[string]string             // of the object of a name
	objects  map[string]map[types.UID]bool // that ever were for an image
	ended    int                           // the step in which the namespace was deleted
	readings map[reading]time.Time
}

// intent is what a user wants of an object, and since when: zero for never.
type intent struct {
	deleted             int
	deletedAt, keptFrom time.Time
	// What has been true at some time: that the object was for an image, and after its deletion, that the operator could keep
	// the image, and that it could delete it.
	images        map[string]bool
	kept, doomed  bool
	finalizerLeft bool // the finalizer was there when the object was deleted
}

// reading is an operator that has read an object, and has not acted on it yet.
type reading struct {
	operator *operatorProcess
	name     string
}

// readingLasts is how long an operator takes at most from its read to the call.
const readingLasts = 2 * time.Second

func newUsers() *users {
	return &users{intents: map[types.UID]*intent{}, images: map[string]string{}, objects: map[string]map[types.UID]bool{},
		readings: map[reading]time.Time{}}
}

// change makes a change of an object, which it leaves as it is afterwards.
func (u *users) change(image *v1alpha1.CustomImage, do func() error) error {
	u.lock()
	defer u.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	u.step++
	u.images[image.Name] = image.Spec.ImageID
	if u.objects[image.Spec.ImageID] == nil {
		u.objects[image.Spec.ImageID] = map[types.UID]bool{}
	}
	u.objects[image.Spec.ImageID][image.UID] = true
	i := u.intents[image.UID]
	if i == nil {
		i = &intent{images: map[string]bool{}}
		u.intents[image.UID] = i
	}
	i.images[image.Spec.ImageID] = true
	if image.DeletionTimestamp != nil {
		if i.deleted == 0 {
			i.deleted, i.deletedAt, i.finalizerLeft = u.step, time.Now(), hasFinalizer(image)
		}
		i.kept = i.kept || keeps(image) || hasRelease(image)
		i.doomed = i.doomed || !keeps(image) && !isReleased(image)
	}
	switch {
	case !keeps(image):
		i.keptFrom = time.Time{}
	case i.keptFrom.IsZero():
		i.keptFrom = time.Now()
	}
	return nil
}

func (u *users) endNamespace(do func() error) error {
	u.lock()
	defer u.mu.Unlock()
	u.step++
	u.ended = u.step
	return do()
}

// lock waits for a time in which no operator is about to act. Operators begin nothing new meanwhile.
func (u *users) lock() {
	u.mu.Lock()
	u.waiting++
	u.mu.Unlock()
	for ; ; time.Sleep(2 * time.Millisecond) {
		u.mu.Lock()
		acting := false
		for _, since := range u.readings {
			acting = acting || time.Since(since) < readingLasts
		}
		if !acting {
			u.waiting--
			return
		}
		u.mu.Unlock()
	}
}

// readBy notes that an operator reads an object, until it acts on it. What it returns is called when the answer is there.
func (u *users) readBy(o *operatorProcess, c kubeCall) func() {
	if c.Resource != "customimages" || c.Name == "" {
		return func() {}
	}
	of := reading{o, c.Name}
	note := func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if c.Verb == "get" {
			u.readings[of] = time.Now()
		} else {
			delete(u.readings, of)
		}
	}
	if c.Verb == "get" {
		for u.isWaitedFor() {
			time.Sleep(2 * time.Millisecond)
		}
		note()
	}
	return note
}

func (u *users) isWaitedFor() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.waiting > 0
}

func (u *users) release(o *operatorProcess, imageID string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for of := range u.readings {
		if of.operator == o && u.images[of.name] == imageID {
			delete(u.readings, of)
		}
	}
}

// forget drops what is known of all objects and images but those.
func (u *users) forget(objects map[types.UID]bool, images map[string]bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.intents, func(uid types.UID, _ *intent) bool { return !objects[uid] })
	maps.DeleteFunc(u.objects, func(id string, _ map[types.UID]bool) bool { return !images[id] })
	maps.DeleteFunc(u.images, func(_, id string) bool { return !images[id] })
}

func (u *users) intentOf(image *v1alpha1.CustomImage) (of intent, ended int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := u.intents[image.UID]; i != nil {
		of = *i
	}
	return of, u.ended
}

// fateOf returns what has to become of an image once all objects are deleted and gone, whatever went wrong on the way: it
// stays if no object that was for it, if only for a moment, could have it deleted. It is deleted if it had one object, which
// was for no other image, and nothing kept it after the deletion. Else it depends on the order of things.
func (u *users) fateOf(imageID string) (stays, isDeleted bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	stays = true
	var objects []*intent
	for _, i := range u.intents {
		if i.images[imageID] {
			objects = append(objects, i)
			stays = stays && !i.doomed
		}
	}
	return stays, len(objects) == 1 && len(objects[0].images) == 1 && objects[0].finalizerLeft && !objects[0].kept
}

// imageOf returns the image of the object of a name.
func (u *users) imageOf(name string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.images[name]
}

// count returns how many objects there ever were for an image. What an operator does about it can be for each of them.
func (u *users) count(imageID string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.objects[imageID])
}

func hasSeen(image *v1alpha1.CustomImage, imageID string) bool {
	return image.Status.Image != nil && image.Status.Image.ImageID == imageID
}

func keeps(image *v1alpha1.CustomImage) bool { return retains(image) || isProtected(image) }

func retains(image *v1alpha1.CustomImage) bool {
	return image.Spec.DeletionPolicy != "" && image.Spec.DeletionPolicy != v1alpha1.DeletionPolicyDelete
}

func isProtected(image *v1alpha1.CustomImage) bool {
	value := image.Annotations[v1alpha1.AnnotationProtected]
	return value != "" && value != "false"
}

func isReleased(image *v1alpha1.CustomImage) bool {
	return image.Annotations[v1alpha1.AnnotationRelease] == image.Spec.ImageID
}

// hasRelease reports whether somebody meant to keep an image, which may be this one.
func hasRelease(image *v1alpha1.CustomImage) bool {
	_, is := image.Annotations[v1alpha1.AnnotationRelease]
	return is
}

func hasFinalizer(image *v1alpha1.CustomImage) bool {
	return slices.Contains(image.Finalizers, v1alpha1.Finalizer)
}

// objectsFor reads the objects for an image from the API server.
func (w *world) objectsFor(imageID string) []v1alpha1.CustomImage {
	images := &v1alpha1.CustomImageList{}
	err := admin.List(w.ctx, images, client.InNamespace(w.namespace), client.MatchingFields{"spec.imageID": imageID})
	if err != nil && w.ctx.Err() == nil {
		w.violatedf("the suite cannot list the objects for %s: %v", imageID, err)
	}
	return images.Items
}

// checkECS checks a call of ECS before it takes effect, by what the API server has at this moment. For DeleteImage, it returns
// the object that the call is for.
func (w *world) checkECS(o *operatorProcess, c ecsCall) (uid types.UID) {
	if c.imageID == "" {
		return ""
	}
	objects := w.objectsFor(c.imageID)
	if w.ctx.Err() != nil {
		return ""
	}
	if !w.isFinalized(c.imageID, objects) {
		w.violatedf("%s of %s, for which there is no object with the finalizer", c.action, c.imageID)
	}
	if c.action != "DeleteImage" {
		return ""
	}
	why := []string{"no object for it is deleted"}
	for n := range objects {
		if objects[n].DeletionTimestamp == nil {
			continue
		}
		reason := w.whyNotDeleted(o, c, n, objects)
		if reason == "" {
			return objects[n].UID
		}
		why = append(why, objects[n].Name+": "+reason)
	}
	if _, exists := w.sim.Image(c.imageID); !exists && w.operatorsAtOnce > 1 {
		return "" // another operator was faster, after this one's last look
	}
	w.violatedf("operator %d: DeleteImage of %s: %s", o.number, c.imageID, strings.Join(why, "; "))
	return ""
}

// isFinalized reports whether an object for the image has the finalizer, or had it once: it may have been released since.
func (w *world) isFinalized(imageID string, objects []v1alpha1.CustomImage) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(objects, func(image v1alpha1.CustomImage) bool { return hasFinalizer(&image) }) {
		w.finalized[imageID] = true
	}
	return w.finalized[imageID]
}

// whyNotDeleted says why the nth of the objects for an image must not have it deleted; "" if it may.
func (w *world) whyNotDeleted(o *operatorProcess, c ecsCall, n int, objects []v1alpha1.CustomImage) string {
	image := &objects[n]
	mine, ended := w.users.intentOf(image)
	w.mu.Lock()
	shown, looked := o.lastLook[c.imageID]
	w.mu.Unlock()
	switch seen := image.Status.Image; {
	case !slices.Equal(image.Finalizers, []string{v1alpha1.Finalizer}):
		return fmt.Sprintf("its finalizers are %v", image.Finalizers)
	case image.Spec.RegionID != c.region:
		return "it names region " + image.Spec.RegionID
	case retains(image):
		return "it keeps the image"
	case isProtected(image):
		return "it is protected"
	case hasRelease(image):
		return "it is released, or that was tried"
	case looked && !shown && w.users.count(c.imageID) == 1:
		return "the last look did not show the image"
	case seen == nil:
		return "it has not seen the image"
	case !looked && image.Status.MissingSince != nil:
		return "the image is missing"
	case seen.ImageID != c.imageID || seen.RegionID != c.region:
		return "it has seen another image"
	case w.accountOf(c.keyID) != seen.OwnerID:
		return "the key is one of account " + w.accountOf(c.keyID)
	case image.Status.OwnedBy.Name != "":
		return "the status says that another object owns the image"
	case c.force && (image.Spec.Force == nil || !*image.Spec.Force):
		return "force is not set"
	case ended > 0 && mine.deleted > ended && !w.optsIn.Load():
		return "it was deleted with its namespace"
	}
	for other := range objects {
		rival := &objects[other]
		theirs, _ := w.users.intentOf(rival)
		switch {
		case other == n:
		case w.keepsSince(rival, theirs, mine.deletedAt):
			return rival.Name + " keeps the image"
		case rival.DeletionTimestamp != nil:
		case w.ownsSince(rival, c.imageID, mine.deletedAt) && rival.CreationTimestamp.Before(&image.CreationTimestamp):
			return rival.Name + " owns the image"
		}
	}
	return ""
}

// ownsSince reports whether an object has seen an image before a time, or so long ago that everybody knows.
func (w *world) ownsSince(image *v1alpha1.CustomImage, imageID string, before time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, ok := w.sightings[image.UID]
	return ok && hasSeen(image, imageID) && (seen.Before(before) || time.Since(seen) > knownAfter)
}

// keepsSince reports whether an object has kept an image that it has seen since before a time, or for so long that everybody
// knows.
func (w *world) keepsSince(image *v1alpha1.CustomImage, theirs intent, before time.Time) bool {
	w.mu.Lock()
	seen, ok := w.sightings[image.UID]
	w.mu.Unlock()
	if !ok || theirs.keptFrom.IsZero() || !hasSeen(image, image.Spec.ImageID) {
		return false
	}
	since := theirs.keptFrom
	if seen.After(since) {
		since = seen
	}
	return since.Before(before) || time.Since(since) > knownAfter
}

// knownAfter is how long after its change another object is respected for certain, whatever the order of the changes was.
const knownAfter = 16 * time.Second

func (w *world) accountOf(keyID string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accounts[keyID]
}

// learn remembers what an operator was shown. That an image is not shown counts once a dry run was answered too: else the key
// may be blind.
func (w *world) learn(o *operatorProcess, c ecsCall, answer *httptest.ResponseRecorder) {
	if c.action == "AssumeRole" {
		w.learnKey(answer)
	}
	if c.action == "DeleteImage" && codeOf(answer.Body.Bytes()) == "" {
		w.mu.Lock()
		defer w.mu.Unlock()
		o.accepted[c.imageID] = true
	}
	if c.action != "DescribeImages" {
		return
	}
	if c.dryRun {
		if codeOf(answer.Body.Bytes()) == "DryRunOperation" || answer.Code == http.StatusOK {
			w.mu.Lock()
			defer w.mu.Unlock()
			o.lastLook[c.imageID] = false
			w.absences[c.imageID] = append(w.absences[c.imageID], time.Now())
		}
		return
	}
	if answer.Code != http.StatusOK {
		return
	}
	var shown struct {
		Images struct {
			Image []struct {
				ImageID string `json:"ImageId"`
			}
		}
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &shown); err != nil {
		w.violatedf("the suite cannot read %s: %v", answer.Body, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, image := range shown.Images.Image {
		o.lastLook[image.ImageID] = true
		delete(w.absences, image.ImageID)
	}
}

// learnKey remembers whose a temporary key is, and what of it is secret.
func (w *world) learnKey(answer *httptest.ResponseRecorder) {
	var got struct {
		Credentials struct {
			AccessKeyID     string `json:"AccessKeyId"`
			AccessKeySecret string
			SecurityToken   string
		}
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
		w.violatedf("the suite cannot read %s: %v", answer.Body, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if key := got.Credentials; key.AccessKeyID != "" {
		w.accounts[key.AccessKeyID] = account // the only one with a role
		w.temporary = append(w.temporary, key.AccessKeySecret, key.SecurityToken)
	}
}

// checkKube checks a request to the API server before it takes effect.
func (w *world) checkKube(o *operatorProcess, c kubeCall, body []byte) {
	w.checkSecrets(c.what, body)
	switch {
	case slices.Contains([]string{"get", "list", "watch", ""}, c.Verb):
	case c.what == "create-events":
		w.checkEvent(o, body)
	case c.what == "patch-events": // counts the repetitions of one
	case c.what == "patch-customimages", c.what == "patch-customimages-status":
		w.checkPatch(o, c, body)
	default:
		w.violatedf("operator %d: %s %s", o.number, c.what, c.Name)
	}
}

// checkSecrets finds access keys where none may be.
func (w *world) checkSecrets(where string, text []byte) {
	w.mu.Lock()
	secrets := append([]string{keySecret, "secret-two", "secret-of-other"}, w.temporary...)
	w.mu.Unlock()
	for _, secret := range secrets {
		if bytes.Contains(text, []byte(secret)) {
			w.violatedf("%s holds a secret", where)
		}
	}
}

// decoder reads JSON and protobuf: events are sent in the latter.
var decoder = serializer.NewCodecFactory(clientgoscheme.Scheme).UniversalDeserializer()

// checkEvent: an event says that an image is deleted only if it is, and that it is kept only if that is not too late.
func (w *world) checkEvent(o *operatorProcess, body []byte) {
	event := &eventsv1.Event{}
	if _, _, err := decoder.Decode(body, nil, event); err != nil || event.Related == nil {
		w.violatedf("the suite cannot read an event: %v: %q", err, body)
		return
	}
	imageID := event.Related.Name
	if event.Related.Kind != "Image" { // the event is about a namespace that ends
		imageID = w.users.imageOf(event.Related.Name)
	}
	_, exists := w.sim.Image(imageID)
	switch {
	case exists && event.Reason == v1alpha1.EventDeleted:
		w.violatedf("an event says that %s is deleted", imageID)
	case slices.Contains([]string{v1alpha1.EventRetained, v1alpha1.EventReleased}, event.Reason) && w.isDeleted(o, imageID):
		w.violatedf("an event says that %s is kept, whose deletion ECS accepted", imageID)
	}
}

// isDeleted reports whether ECS accepted the deletion of an image that only one object was for, and the operator that writes
// an event knows that. Of two operators, one may not know what the other has called.
func (w *world) isDeleted(o *operatorProcess, imageID string) bool {
	w.mu.Lock()
	isKnown := o.accepted[imageID]
	w.mu.Unlock()
	isKnown = isKnown || len(w.allOperators()) == 1 && slices.ContainsFunc(w.sim.Calls(), func(call ecssim.Call) bool {
		return call.Action == "DeleteImage" && call.ImageID == imageID && call.Code == ""
	})
	return isKnown && w.users.count(imageID) == 1
}

// patch is what the operator may change of an object.
type patch struct {
	Metadata struct {
		UID             types.UID       `json:"uid"`
		ResourceVersion string          `json:"resourceVersion"`
		Finalizers      json.RawMessage `json:"finalizers"` // null removes all
	} `json:"metadata"`
	Status map[string]json.RawMessage `json:"status"`
}

func (w *world) checkPatch(o *operatorProcess, c kubeCall, body []byte) {
	var p patch
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		w.violatedf("operator %d: a patch changes what belongs to users: %v: %s", o.number, err, body)
		return
	}
	_, records := p.Status["deletionAcceptedTime"]
	switch recordsOnly := records && len(p.Status) == 1; {
	case p.Metadata.ResourceVersion == "" && (!recordsOnly || p.Metadata.UID == ""):
		w.violatedf("operator %d: a patch is not locked: %s", o.number, body)
	case c.Subresource == "status" && p.Metadata.Finalizers != nil, c.Subresource == "" && p.Status != nil:
		w.violatedf("operator %d: a patch of %s: %s", o.number, c.what, body)
	case p.Metadata.Finalizers != nil:
		w.checkFinalizers(o, c.Name, p)
	case p.Status["conditions"] != nil:
		var conditions []metav1.Condition
		if err := json.Unmarshal(p.Status["conditions"], &conditions); err != nil {
			w.violatedf("operator %d: conditions: %v", o.number, err)
		}
		w.checkCleared(o, c.Name, conditions)
	}
}

// checkFinalizers: those of others stay, and ours goes only with the image, or when the object may go without it.
func (w *world) checkFinalizers(o *operatorProcess, name string, p patch) {
	image := &v1alpha1.CustomImage{}
	err := admin.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, image)
	if err != nil || image.ResourceVersion != p.Metadata.ResourceVersion {
		if err != nil && !apierrors.IsNotFound(err) && w.ctx.Err() == nil {
			w.violatedf("the suite cannot read %s: %v", name, err)
		}
		return // the patch will fail
	}
	var left []string
	if err := json.Unmarshal(p.Metadata.Finalizers, &left); err != nil {
		w.violatedf("operator %d: finalizers %s", o.number, p.Metadata.Finalizers)
	}
	for _, finalizer := range image.Finalizers {
		if finalizer != v1alpha1.Finalizer && !slices.Contains(left, finalizer) {
			w.violatedf("operator %d: removes finalizer %s of %s", o.number, finalizer, name)
		}
	}
	if slices.Contains(left, v1alpha1.Finalizer) || !hasFinalizer(image) {
		return
	}
	_, exists := w.sim.Image(image.Spec.ImageID)
	_, ended := w.users.intentOf(image)
	switch {
	case image.DeletionTimestamp == nil:
		w.violatedf("operator %d: removes its finalizer from %s, which is not deleted", o.number, name)
	case !exists, retains(image), w.isMissing(image), isReleased(image), ended > 0 && !w.optsIn.Load(), image.Status.OwnedBy.Name != "":
	case slices.ContainsFunc(append(w.objectsFor(image.Spec.ImageID), w.recentFor(image.Spec.ImageID)...), func(other v1alpha1.CustomImage) bool {
		return other.UID != image.UID && hasSeen(&other, image.Spec.ImageID) &&
			(image.Status.Image == nil || !image.CreationTimestamp.Before(&other.CreationTimestamp))
	}):
	default:
		w.violatedf("operator %d: removes its finalizer from %s, and the image is still there", o.number, name)
	}
}

// countEffect counts a call of DeleteImage for an object if it deleted the image, or did not find it.
func (w *world) countEffect(uid types.UID, code string) {
	if uid == "" || code != "" && code != "InvalidImageId.NotFound" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects[uid]++
}

// checkEffects: for each object, at most so many calls of DeleteImage deleted its image, or did not find it.
func (w *world) checkEffects(most int) {
	w.mu.Lock()
	effects := maps.Clone(w.effects)
	w.mu.Unlock()
	for uid, n := range effects {
		if n > most {
			w.violatedf("%d calls of DeleteImage for the object with uid %s, and there may be %d", n, uid, most)
		}
	}
}

// checkCleared: a condition says that an obstacle is cleared only if it is.
func (w *world) checkCleared(o *operatorProcess, name string, conditions []metav1.Condition) {
	image, exists := w.sim.Image(w.users.imageOf(name))
	inPlace := map[string]bool{
		v1alpha1.ConditionInUse: len(image.UsedBy) > 0, v1alpha1.ConditionShared: len(image.SharedWith) > 0,
		v1alpha1.ConditionPublic: image.Public, v1alpha1.ConditionCopying: image.Copying > 0,
		v1alpha1.ConditionImporting: image.Importing > 0, v1alpha1.ConditionExporting: image.Exporting > 0,
		v1alpha1.ConditionCreating: image.Creating > 0, v1alpha1.ConditionNotFound: !exists,
	}
	for _, c := range conditions {
		if c.Status == metav1.ConditionFalse && c.Reason == v1alpha1.ReasonCleared && inPlace[c.Type] && !w.random {
			w.violatedf("operator %d: condition %s of %s says that it is cleared, and it is not", o.number, c.Type, name)
		}
	}
}

// isMissing reports whether two looks half a minute apart did not show the image. Its object ends then without a call.
func (w *world) isMissing(image *v1alpha1.CustomImage) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	looks := w.absences[image.Spec.ImageID]
	return len(looks) > 1 && looks[len(looks)-1].Sub(looks[0]) > 25*time.Second
}

// checkEnd checks what has to hold when a plan is over.
func (w *world) checkEnd() {
	faults := w.wire.faults() + int(w.late.Load())
	if w.child != nil {
		faults = 1 // which the child counts
	}
	w.checkEffects(w.operatorsAtOnce * (1 + faults))
	images := &v1alpha1.CustomImageList{}
	if err := admin.List(w.ctx, images, client.InNamespace(w.namespace)); err != nil {
		w.violatedf("the suite cannot list the objects: %v", err)
	}
	for i := range images.Items {
		data, _ := json.Marshal(images.Items[i]) // it came as JSON
		w.checkSecrets("an object", data)
	}
}
