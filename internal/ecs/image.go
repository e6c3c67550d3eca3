package ecs

import (
	"slices"
	"time"
)

// Image is a custom image as DescribeImages shows it.
type Image struct {
	ImageID      string
	Name         string
	Family       string
	CreationTime time.Time // zero if ECS sent none
	SizeGiB      int32
	Status       string // Available, Deprecated, Creating, …
	Usage        string // instance, or none
	OwnerID      string // the account that the image belongs to
	SnapshotIDs  []string
}

// describeImagesAnswer is the answer on the wire. Lists are nested twice.
type describeImagesAnswer struct {
	TotalCount *int `json:"TotalCount" xml:"TotalCount"`
	Images     struct {
		Image []imageAnswer `json:"Image" xml:"Image"`
	} `json:"Images" xml:"Images"`
}

type imageAnswer struct {
	ImageID      string   `json:"ImageId" xml:"ImageId"`
	ImageName    string   `json:"ImageName" xml:"ImageName"`
	ImageFamily  string   `json:"ImageFamily" xml:"ImageFamily"`
	CreationTime string   `json:"CreationTime" xml:"CreationTime"`
	Size         int32    `json:"Size" xml:"Size"`
	Status       string   `json:"Status" xml:"Status"`
	Usage        string   `json:"Usage" xml:"Usage"`
	ImageOwnerID unquoted `json:"ImageOwnerId" xml:"ImageOwnerId"`
	Mappings     struct {
		Mapping []struct {
			SnapshotID string `json:"SnapshotId" xml:"SnapshotId"`
		} `json:"DiskDeviceMapping" xml:"DiskDeviceMapping"`
	} `json:"DiskDeviceMappings" xml:"DiskDeviceMappings"`
}

func (a imageAnswer) image() Image {
	image := Image{
		ImageID: a.ImageID,
		Name:    a.ImageName,
		Family:  a.ImageFamily,
		SizeGiB: a.Size,
		Status:  a.Status,
		Usage:   a.Usage,
		OwnerID: string(a.ImageOwnerID),
	}
	// Some revisions of the API leave the seconds out.
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z"} {
		if t, err := time.Parse(layout, a.CreationTime); err == nil {
			image.CreationTime = t
			break
		}
	}
	for _, mapping := range a.Mappings.Mapping {
		if mapping.SnapshotID != "" && !slices.Contains(image.SnapshotIDs, mapping.SnapshotID) {
			image.SnapshotIDs = append(image.SnapshotIDs, mapping.SnapshotID)
		}
	}
	return image
}
