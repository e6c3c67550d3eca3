package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// play shows all scenes, and returns how many checks passed.
func play(s *stage) (string, error) {
	d := &demo{stage: s}
	d.opening()
	if d.err != nil {
		return "", fmt.Errorf("before the first scene: %w", d.err)
	}
	for i := range scenes {
		d.heading(fmt.Sprintf("%d/%d", i+1, len(scenes)), scenes[i].title)
		d.play(&scenes[i])
		if d.err != nil {
			return "", fmt.Errorf("scene %d, %s: %w", i+1, scenes[i].title, d.err)
		}
	}
	d.finale()
	if d.err != nil {
		return "", fmt.Errorf("after the last scene: %w", d.err)
	}
	return fmt.Sprintf("%s\n%d scenes, %d checks passed", table(), len(scenes), d.checks), nil
}

// table sums up the scenes, all of which were played as it says.
func table() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "OBJECT\tOBSTACLE\tCONDITION\tEVENT AT THE END\tIMAGE")
	for _, s := range scenes {
		fate := "deleted"
		switch {
		case s.none:
			fate = "there was none"
		case s.keeps():
			fate = "still there"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.name, cmp.Or(s.code, "-"), cmp.Or(s.condition, "-"), s.event, fate)
	}
	_ = w.Flush() // to memory
	return text.String()
}

func (d *demo) heading(number, title string) {
	line := fmt.Sprintf("── %s  %s ", number, title)
	d.say(line + strings.Repeat("─", max(0, 96-len([]rune(line)))) + "\n")
}

func (d *demo) opening() {
	d.say("It runs. All that follows is what the real kubectl prints; long lines are broken.\n" +
		"The operator is a process of its own and has only the role that it is shipped with:\n")
	d.showRefused("no", "auth", "can-i", "delete", "customimages",
		"--as=system:serviceaccount:"+namespace+":"+serviceAccount)
	d.say("\nOne image is watched and never deleted, to see at the end that it is still there:\n")
	d.live(&watched)
	for i := range scenes {
		if scenes[i].early {
			d.say("And one object is created now for an image that does not exist; the last scene is about it:\n")
			d.live(&scenes[i])
		}
	}
}

// play takes one object from its creation to its end.
func (d *demo) play(s *scene) {
	d.say(s.story + "\n")
	if s.first != nil {
		s.first(d)
	}
	if !s.none && s.owner == nil {
		image := s.image
		image.RegionID, image.Name = region, s.name
		s.image = image
		d.putImage(s.image)
	}
	if !s.early {
		d.live(s)
	}
	asked := time.Now()
	d.show("deleted", "delete", "cimg", s.name, "--wait=false")
	if s.wayOut != nil {
		d.stuck(s)
		s.wayOut(d, s)
	}
	d.gone(s, asked)
}

const readyMessage = `jsonpath={.status.conditions[?(@.type=="Ready")].message}`

// live creates the object, and sees what it says while nobody asks for a deletion.
func (d *demo) live(s *scene) {
	file := s.name + ".yaml"
	text := manifest(ecssim.Image{ImageID: s.image.ImageID, RegionID: region, Name: s.name}, s.spec)
	if err := os.WriteFile(filepath.Join(d.dir, file), []byte(text), 0o600); err != nil {
		d.err = err
	}
	if s == &scenes[0] || s.spec != "" {
		d.say("$ cat " + file + "\n" + strings.TrimSpace(text))
	}
	d.show("created", "apply", "-f", file)
	what, reason, conditions := "Ready is True", "Available", []string{"Ready"}
	switch {
	case s.none:
		what, reason, conditions = "NotFound and Stalled are True", reasonOf(s.code), []string{s.condition, "Stalled"}
	case s.owner != nil:
		what, reason, conditions = "Stalled is True", "Conflict", []string{"Stalled"}
	}
	d.eventually(what, conditions, func() any { return inForce(d.object(s)) })
	d.show(reason, "get", "cimg", s.name)
	if s.owner != nil {
		d.show("CustomImage "+namespace+"/"+s.owner.name+" owns the image", "get", "cimg", s.name, "-o", readyMessage)
	}
	d.expect("the finalizer is in place", true, slices.Contains(d.object(s).Finalizers, v1alpha1.Finalizer))
	d.expect("DeleteImage was not called", 0, len(d.deletions(s)))
	d.checked()
}

// manifest writes an object that has the name of its image.
func manifest(image ecssim.Image, spec string) string {
	return fmt.Sprintf(`apiVersion: %s
kind: CustomImage
metadata:
  name: %s
  namespace: %s
spec:
  regionID: %s
  imageID: %s
%s`, v1alpha1.GroupVersion, image.Name, namespace, image.RegionID, image.ImageID, spec)
}

// stuck sees what the object says while ECS refuses.
func (d *demo) stuck(s *scene) {
	condition, reason := s.condition, reasonOf(s.code)
	d.show("condition met", "wait", "cimg/"+s.name, "--for=condition="+condition, "--timeout="+patience.String())
	d.show(reason, "get", "cimg", s.name)
	d.show(s.code+": ", "get", "cimg", s.name, "-o", readyMessage)
	object, sum := d.object(s), "Stalled"
	if s.passes {
		sum = "Reconciling"
	}
	want := slices.Sorted(slices.Values([]string{condition, sum}))
	d.expect(strings.Join(want, " and ")+" are True, nothing else is", want, inForce(object))
	d.expect("Ready is False with the same reason", "False "+reason, readiness(object))
	d.expect("the finalizer is still in place", true, slices.Contains(object.Finalizers, v1alpha1.Finalizer))
	d.expect("ECS still has the image", true, d.exists(s.image.ImageID))
	d.checked()
}

// gone sees how the object goes, and what becomes of the image.
func (d *demo) gone(s *scene, asked time.Time) {
	d.eventually("the object is gone", true, func() any {
		return apierrors.IsNotFound(d.client.Get(d.ctx, d.key(s), &v1alpha1.CustomImage{}))
	})
	d.showRefused("(NotFound)", "get", "cimg", s.name)
	want := map[string]int{s.event: 1}
	if s.code != "" {
		want[reasonOf(s.code)] = 1
	}
	switch {
	case s.owner != nil:
		want["Conflict"] = 1
	case !s.none:
		want["Available"] = 1
	}
	d.eventually("its events are "+strings.Join(slices.Sorted(maps.Keys(want)), ", ")+", once each", want,
		func() any { return d.events(s) })
	kind := map[bool]string{true: "Warning", false: "Normal"}[s.none]
	d.show(kind+"   "+s.event, "get", "events.events.k8s.io", "--field-selector=regarding.name="+s.name+",reason="+s.event,
		"--output=custom-columns=TYPE:.type,REASON:.reason,NOTE:.note")
	fate := map[bool]string{true: "the image is still in ECS", false: "ECS has no such image"}
	d.expect(fate[s.keeps()], s.keeps(), d.exists(s.image.ImageID))
	d.expectCalls(s, asked)
	d.checked()
}

// expectCalls checks when DeleteImage was called for the image, and what it answered.
func (d *demo) expectCalls(s *scene, asked time.Time) {
	early, got := false, []string{}
	for _, call := range d.deletions(s) {
		early = early || call.Time.Before(asked)
		answer := cmp.Or(call.Code, success)
		if call.Force {
			answer += withForce
		}
		got = append(got, answer)
	}
	want, what := s.answers(), "DeleteImage was never called"
	if len(want) > 0 {
		what = "DeleteImage answered " + strings.Join(want, ", then ")
	}
	d.expect(what, want, slices.Compact(got))
	d.expect("no DeleteImage came before it was asked for", false, early)
}

// finale sees that nothing else happened, and that the operator stops when it is told to.
func (d *demo) finale() {
	d.heading("the end", "What was not to be deleted")
	d.show(watched.name, "get", "cimg")
	d.expect("the object that was never deleted is Ready", "True Available", readiness(d.object(&watched)))
	d.expect("DeleteImage was never called for its image", 0, len(d.deletions(&watched)))
	left, endings := []string{bystander, watched.image.ImageID}, map[string]int{}
	for i := range scenes {
		endings[scenes[i].event]++
		if scenes[i].keeps() {
			left = append(left, scenes[i].image.ImageID)
		}
	}
	slices.Sort(left)
	left = slices.Compact(left)
	d.expect("ECS has the images that were to be kept: "+strings.Join(left, ", "), left, d.imageIDs())
	announced := d.events(nil)
	maps.DeleteFunc(announced, func(reason string, _ int) bool { return endings[reason] == 0 })
	d.expect("each end was announced once", endings, announced)
	unsigned := slices.ContainsFunc(d.cloud.Calls(), func(c ecssim.Call) bool { return !c.SignatureValid })
	d.expect("every call to ECS was signed with the key", false, unsigned)
	if d.err == nil {
		state, err := d.operator.stop()
		d.expect("the operator stops on SIGTERM, with status 0", cleanExit, cmp.Or(state, fmt.Sprint(err)))
	}
	d.checked()
}
