package main

import "github.com/imagegc/ecs-image-gc/internal/ecssim"

// scene is one image, from the object that is made for it to the end of that object.
type scene struct {
	title string
	name  string // of the object
	spec  string // lines to add to the spec
	// image is as ECS has it at the beginning; without an ID there is none.
	image ecssim.Image
	// obstacle is the condition, and reason its reason, that the deletion meets; "" if it meets none.
	obstacle, reason string
	// Then this is said, and one of these done.
	then     string
	inECS    *ecssim.Image // the image as it is in ECS from then on
	patch    string        // of the object
	annotate string        // an annotation of the object
	// end is the reason of the event that announces the end, and stays whether the image is still there then.
	end   string
	stays bool
}

var scenes = []scene{
	{
		title: "Deleting the object deletes the image",
		name:  "web-1", image: ecssim.Image{ImageID: "m-bp1web0001", Name: "web-2024-01"},
		end: "Deleted",
	},
	{
		title: "ImageUsingByInstance: instances use the image",
		name:  "web-2", image: ecssim.Image{ImageID: "m-bp1web0002", UsedBy: []string{"i-bp1a"}},
		obstacle: "InUse", reason: "ImageUsingByInstance",
		then:  "The instance is released in ECS.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0002"},
		end:   "Deleted",
	},
	{
		title: "ImageUsingByInstance again: deleting it all the same",
		name:  "web-3", image: ecssim.Image{ImageID: "m-bp1web0003", UsedBy: []string{"i-bp1b"}},
		obstacle: "InUse", reason: "ImageUsingByInstance",
		then:  "The instance stays, and the user decides that the image goes.",
		patch: `{"spec":{"force":true}}`,
		end:   "Deleted",
	},
	{
		title: "ImageUseShared: the image is shared with another account",
		name:  "web-4", image: ecssim.Image{ImageID: "m-bp1web0004", SharedWith: []string{"1098765432109876"}},
		obstacle: "Shared", reason: "ImageUseShared",
		then:  "The sharing is ended in ECS.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0004"},
		end:   "Deleted",
	},
	{
		title: "ImageIsPublic: the image is public",
		name:  "web-5", image: ecssim.Image{ImageID: "m-bp1web0005", Public: true},
		obstacle: "Public", reason: "ImageIsPublic",
		then:  "The image is made private in ECS.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0005"},
		end:   "Deleted",
	},
	{
		title: "OperationDenied.ImageCopying: the image is being copied",
		name:  "web-6", image: ecssim.Image{ImageID: "m-bp1web0006", Copying: ecssim.Forever},
		obstacle: "Copying", reason: "OperationDeniedImageCopying",
		then:  "Nobody does anything: the copy ends, and the operator goes on by itself.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0006"},
		end:   "Deleted",
	},
	{
		title: "ImageIsImporting: the image is being imported",
		name:  "web-7", image: ecssim.Image{ImageID: "m-bp1web0007", Importing: ecssim.Forever},
		obstacle: "Importing", reason: "ImageIsImporting",
		then:  "Nobody does anything: the import ends, and the operator goes on by itself.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0007"},
		end:   "Deleted",
	},
	{
		title: "ImageIsExporting: the image is being exported",
		name:  "web-8", image: ecssim.Image{ImageID: "m-bp1web0008", Exporting: ecssim.Forever},
		obstacle: "Exporting", reason: "ImageIsExporting",
		then:  "The export is cancelled in ECS.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0008"},
		end:   "Deleted",
	},
	{
		title: "ImageIsCreating: the image is not complete yet",
		name:  "web-9", image: ecssim.Image{ImageID: "m-bp1web0009", Creating: ecssim.Forever},
		obstacle: "Creating", reason: "ImageIsCreating",
		then:  "Nobody does anything: the image is completed, and the operator goes on by itself.",
		inECS: &ecssim.Image{ImageID: "m-bp1web0009"},
		end:   "Deleted",
	},
	{
		title: "InvalidImageId.NotFound: there is no such image",
		name:  "web-10", obstacle: "NotFound", reason: "InvalidImageIdNotFound",
		end: "NotFound",
	},
	{
		title: "deletionPolicy: Retain leaves the image",
		name:  "base", spec: "  deletionPolicy: Retain\n", image: ecssim.Image{ImageID: "m-bp1base0001"},
		end: "Retained", stays: true,
	},
	{
		title: "The release annotation leaves the image of an object that is stuck",
		name:  "web-11", image: ecssim.Image{ImageID: "m-bp1web0011", UsedBy: []string{"i-bp1c"}},
		obstacle: "InUse", reason: "ImageUsingByInstance",
		then:     "The user lets the object go. The value has to be the image's ID.",
		annotate: "ecs.imagegc.io/release=m-bp1web0011",
		end:      "Released", stays: true,
	},
}

// missing is the ID of the image that there is none of.
const missing = "m-bp1web0010"

func (c scene) imageID() string {
	if c.image.ImageID == "" {
		return missing
	}
	return c.image.ImageID
}
