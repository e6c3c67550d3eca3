package main

import (
	"time"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	region    = "cn-hangzhou"
	bystander = "m-bp1payroll"
	success   = "success"
	withForce = " with Force"
	retain    = "  deletionPolicy: Retain\n"
)

// scene is the life of one CustomImage.
type scene struct {
	title string
	story string
	name  string       // of the object
	image ecssim.Image // as ECS has it at first
	none  bool         // ECS has no such image
	early bool         // its object is created in the opening
	owner *scene       // whose object owns the image
	first func(*demo)  // what happens before
	spec  string       // more lines of the manifest

	// What DeleteImage says to it, the condition that shows it, and whether it ends by itself.
	code      string
	condition string
	passes    bool
	wayOut    func(*demo, *scene)

	event string // announces how the object went
	force bool   // the last call carried Force
}

// keeps says whether the image outlives its object.
func (s *scene) keeps() bool { return s.event == "Retained" || s.event == "Released" }

// answers lists what DeleteImage has to say to the calls, in this order.
func (s *scene) answers() []string {
	answers := []string{}
	if s.code != "" && !s.none {
		answers = append(answers, s.code)
	}
	switch {
	case s.event == "Deleted" && s.force:
		answers = append(answers, success+withForce)
	case s.event == "Deleted":
		answers = append(answers, success)
	}
	return answers
}

// scenarioOfDemo has an image that is watched from beginning to end, and one that has no object.
var scenarioOfDemo = ecssim.Scenario{
	AccountID:  account,
	AccessKeys: []ecssim.AccessKey{{ID: keyID, Secret: keySecret}},
	Images:     []ecssim.Image{watched.image, {ImageID: bystander, RegionID: region, Name: "payroll-db"}},
}

var watched = scene{name: "golden-base", image: ecssim.Image{ImageID: "m-bp1golden", RegionID: region}}

var scenes = []scene{
	{
		title: "Nothing blocks the deletion",
		story: "The object stands for the image. Deleting the object deletes the image.",
		name:  "web-2024-01", image: ecssim.Image{ImageID: "m-bp1web01"},
		event: "Deleted",
	},
	{
		title: "ImageUsingByInstance",
		story: "Two instances use this image, so ECS does not delete it.",
		name:  "web-2023-12", image: ecssim.Image{ImageID: "m-bp1web12", UsedBy: []string{"i-bp1a", "i-bp1b"}},
		code: "ImageUsingByInstance", condition: "InUse", event: "Deleted",
		wayOut: inECS("both instances are released.", func(i *ecssim.Image) { i.UsedBy = nil }),
	},
	{
		title: "ImageUsingByInstance, and force",
		story: "The instance can run without its image. This is decided after the deletion was requested.",
		name:  "web-2023-11", image: ecssim.Image{ImageID: "m-bp1web11", UsedBy: []string{"i-bp1c"}},
		code: "ImageUsingByInstance", condition: "InUse", event: "Deleted", force: true,
		wayOut: func(d *demo, s *scene) {
			d.say("The instance is kept. The object is changed instead, and the operator acts at once.\n")
			d.show("patched", "patch", "cimg", s.name, "--type=merge", "-p", `{"spec":{"force":true}}`)
		},
	},
	{
		title: "ImageUseShared",
		story: "The image is shared with another account. Force does not help.",
		name:  "partner-gateway", image: ecssim.Image{ImageID: "m-bp1share", SharedWith: []string{"1098765432109876"}},
		code: "ImageUseShared", condition: "Shared", event: "Deleted",
		wayOut: inECS("the image is unshared (ModifyImageSharePermission, RemoveAccount).",
			func(i *ecssim.Image) { i.SharedWith = nil }),
	},
	{
		title: "ImageIsPublic",
		story: "The image is public.",
		name:  "quickstart", image: ecssim.Image{ImageID: "m-bp1public", Public: true},
		code: "ImageIsPublic", condition: "Public", event: "Deleted",
		wayOut: inECS("the image is made private (ModifyImageSharePermission, IsPublic=false).",
			func(i *ecssim.Image) { i.Public = false }),
	},
	{
		title: "OperationDenied.ImageCopying",
		story: "The image is being copied to another region. The operator waits for the end of the copy.",
		name:  "node-2024-02", image: ecssim.Image{ImageID: "m-bp1copy", Copying: ecssim.Forever},
		code: "OperationDenied.ImageCopying", condition: "Copying", passes: true, event: "Deleted",
		wayOut: inECS("the copy ends in a second.", func(i *ecssim.Image) { i.Copying = aSecond }),
	},
	{
		title: "ImageIsImporting",
		story: "The image is still being read from a file in object storage.",
		name:  "appliance", image: ecssim.Image{ImageID: "m-bp1import", Importing: ecssim.Forever},
		code: "ImageIsImporting", condition: "Importing", passes: true, event: "Deleted",
		wayOut: inECS("the import ends in a second.", func(i *ecssim.Image) { i.Importing = aSecond }),
	},
	{
		title: "ImageIsExporting",
		story: "The image is being written to a file in object storage.",
		name:  "archive-2023", image: ecssim.Image{ImageID: "m-bp1export", Exporting: ecssim.Forever},
		code: "ImageIsExporting", condition: "Exporting", passes: true, event: "Deleted",
		wayOut: inECS("the export ends in a second.", func(i *ecssim.Image) { i.Exporting = aSecond }),
	},
	{
		title: "ImageIsCreating",
		story: "The image is still being made from an instance.",
		name:  "nightly", image: ecssim.Image{ImageID: "m-bp1create", Creating: ecssim.Forever},
		code: "ImageIsCreating", condition: "Creating", passes: true, event: "Deleted",
		wayOut: inECS("the image is complete in a second.", func(i *ecssim.Image) { i.Creating = aSecond }),
	},
	{
		title: "deletionPolicy: Retain",
		story: "This object only observes its image. Deleting it keeps the image.",
		name:  "golden-2023", image: ecssim.Image{ImageID: "m-bp1retain"}, spec: retain,
		event: "Retained",
	},
	{
		title: "A change of mind",
		story: "The deletion is blocked, and now the image is to be kept.",
		name:  "web-2023-10", image: ecssim.Image{ImageID: "m-bp1web10", UsedBy: []string{"i-bp1d"}},
		code: "ImageUsingByInstance", condition: "InUse", event: "Released",
		wayOut: func(d *demo, s *scene) {
			d.say("The annotation has to name the image, so that it cannot hit the wrong object.\n")
			d.show("annotated", "annotate", "cimg", s.name, "ecs.imagegc.io/release="+s.image.ImageID)
		},
	},
	{
		title: "Two brakes",
		story: "An object can be protected. The API server then refuses to delete it.",
		first: (*demo).protectWatched,
		name:  "golden-copy", image: watched.image, owner: &watched,
		event: "Retained",
	},
	{
		title: "InvalidImageId.NotFound",
		story: "ECS has not shown this image since the beginning. Nothing is deleted:\n" +
			"once two checks 30 s apart agree, the object is removed with a warning.",
		name: "typo", image: ecssim.Image{ImageID: "m-bp1typo"}, none: true, early: true,
		code: "InvalidImageId.NotFound", condition: "NotFound", event: "NotFound",
	},
}

// protectWatched shows the first brake, and leads to the second.
func (d *demo) protectWatched() {
	d.show("annotated", "annotate", "cimg", watched.name, v1alpha1.AnnotationProtected+"=true")
	d.showRefused("remove the annotation", "delete", "cimg", watched.name)
	object := d.object(&watched)
	d.expect("the object is not deleted", true, object.DeletionTimestamp.IsZero())
	d.checked()
	d.say("And an image belongs to the oldest object that has seen it. Deleting another one does not delete the image.\n")
}

const aSecond = ecssim.Duration(time.Second)

// inECS is a way out that leaves the object alone: something about the image changes.
func inECS(words string, change func(*ecssim.Image)) func(*demo, *scene) {
	return func(d *demo, s *scene) {
		d.say("In ECS, " + words + " The object is not changed: the operator retries.\n")
		image := s.image
		change(&image)
		d.putImage(image)
	}
}
