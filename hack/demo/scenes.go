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
	if s.code != "" {
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

// scenarioOfDemo has an image that is watched from beginning to end, and one that nobody ever speaks of.
var scenarioOfDemo = ecssim.Scenario{
	AccountID:  account,
	AccessKeys: []ecssim.AccessKey{{ID: keyID, Secret: keySecret}},
	Images:     []ecssim.Image{watched.image, {ImageID: bystander, RegionID: region, Name: "payroll-db"}},
}

var watched = scene{name: "golden-base", image: ecssim.Image{ImageID: "m-bp1golden", RegionID: region}}

var scenes = []scene{
	{
		title: "Nothing in the way",
		story: "The object stands for the image. Deleting the object deletes the image.",
		name:  "web-2024-01", image: ecssim.Image{ImageID: "m-bp1web01"},
		event: "Deleted",
	},
	{
		title: "ImageUsingByInstance",
		story: "Two instances were made from this image. ECS does not delete it under them.",
		name:  "web-2023-12", image: ecssim.Image{ImageID: "m-bp1web12", UsedBy: []string{"i-bp1a", "i-bp1b"}},
		code: "ImageUsingByInstance", condition: "InUse", event: "Deleted",
		wayOut: inECS("both instances are released.", func(i *ecssim.Image) { i.UsedBy = nil }),
	},
	{
		title: "ImageUsingByInstance, and force",
		story: "Somebody decides that this instance may go on without its image, after the deletion was asked for.",
		name:  "web-2023-11", image: ecssim.Image{ImageID: "m-bp1web11", UsedBy: []string{"i-bp1c"}},
		code: "ImageUsingByInstance", condition: "InUse", event: "Deleted", force: true,
		wayOut: func(d *demo, s *scene) {
			d.say("The instance stays. The object is changed instead, and that is acted upon at once.\n")
			d.show("patched", "patch", "cimg", s.name, "--type=merge", "-p", `{"spec":{"force":true}}`)
		},
	},
	{
		title: "ImageUseShared",
		story: "Another account has been given this image. Force does not help against that.",
		name:  "partner-gateway", image: ecssim.Image{ImageID: "m-bp1share", SharedWith: []string{"1098765432109876"}},
		code: "ImageUseShared", condition: "Shared", event: "Deleted",
		wayOut: inECS("the image is shared no longer (ModifyImageSharePermission, RemoveAccount).",
			func(i *ecssim.Image) { i.SharedWith = nil }),
	},
	{
		title: "ImageIsPublic",
		story: "Everybody may use this image.",
		name:  "quickstart", image: ecssim.Image{ImageID: "m-bp1public", Public: true},
		code: "ImageIsPublic", condition: "Public", event: "Deleted",
		wayOut: inECS("the image is made private (ModifyImageSharePermission, IsPublic=false).",
			func(i *ecssim.Image) { i.Public = false }),
	},
	{
		title: "OperationDenied.ImageCopying",
		story: "The image is being copied to another region. That ends by itself, and so does the wait.",
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
		title: "InvalidImageId.NotFound",
		story: "There is no such image: perhaps somebody deleted it by hand, perhaps the ID is mistyped.\n" +
			"The live object says so at once, and its end is not announced as a deletion.",
		name: "typo", image: ecssim.Image{ImageID: "m-bp1typo"}, none: true,
		code: "InvalidImageId.NotFound", condition: "NotFound", event: "NotFound",
	},
	{
		title: "deletionPolicy: Retain",
		story: "This object only watches its image. Deleting it leaves the image.",
		name:  "golden-2023", image: ecssim.Image{ImageID: "m-bp1retain"}, spec: retain,
		event: "Retained",
	},
	{
		title: "A change of mind",
		story: "The deletion was asked for and is held up. Now the image is to stay after all.",
		name:  "web-2023-10", image: ecssim.Image{ImageID: "m-bp1web10", UsedBy: []string{"i-bp1d"}},
		code: "ImageUsingByInstance", condition: "InUse", event: "Released",
		wayOut: func(d *demo, s *scene) {
			d.say("The annotation has to name the image, so that it cannot hit the wrong object.\n")
			d.show("annotated", "annotate", "cimg", s.name, "ecs.imagegc.io/release="+s.image.ImageID)
		},
	},
	{
		title: "Two brakes",
		story: "An object can be protected: then nobody deletes it, and least of all by a slip. The API server sees to that.",
		first: (*demo).protectWatched,
		name:  "golden-copy", image: watched.image, owner: &watched,
		event: "Retained",
	},
}

// protectWatched shows the first brake, and leads to the second.
func (d *demo) protectWatched() {
	d.show("annotated", "annotate", "cimg", watched.name, v1alpha1.AnnotationProtected+"=true")
	d.showRefused("first take the annotation off", "delete", "cimg", watched.name)
	object := d.object(&watched)
	d.expect("nobody deletes the object", true, object.DeletionTimestamp.IsZero())
	d.checked()
	d.say("And an image belongs to the oldest object that has seen it. Deleting another one leaves the image.\n")
}

const aSecond = ecssim.Duration(time.Second)

// inECS is a way out that leaves the object alone: something about the image changes.
func inECS(words string, change func(*ecssim.Image)) func(*demo, *scene) {
	return func(d *demo, s *scene) {
		d.say("In ECS, " + words + " The object is not touched: the operator asks again by itself.\n")
		image := s.image
		change(&image)
		d.putImage(image)
	}
}
