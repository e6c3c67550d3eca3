package ecssim

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Image is one custom image. Copying, Importing, Exporting and Creating say how long after it was put, or
// after the server's start, that operation runs and forbids a deletion.
type Image struct {
	ImageID string `json:"imageID"`
	// AccountID is the owner, by default the first account of the scenario.
	AccountID string `json:"accountID,omitempty"`
	RegionID  string `json:"regionID"`
	// Name is the ImageID by default.
	Name            string `json:"name,omitempty"`
	Family          string `json:"family,omitempty"`
	ResourceGroupID string `json:"resourceGroupID,omitempty"`
	// SizeGiB is 40 by default.
	SizeGiB int `json:"sizeGiB,omitempty"`
	// CreationTime is the server's start by default.
	CreationTime time.Time `json:"creationTime,omitzero"`
	// Status is Available by default. It is what DescribeImages shows, and has no say in a deletion.
	Status string `json:"status,omitempty"`
	// UsedBy are instances.
	UsedBy []string `json:"usedBy,omitempty"`
	// SharedWith are accounts, which need not be known here.
	SharedWith  []string          `json:"sharedWith,omitempty"`
	Public      bool              `json:"public,omitempty"`
	Copying     Duration          `json:"copying,omitempty"`
	Importing   Duration          `json:"importing,omitempty"`
	Exporting   Duration          `json:"exporting,omitempty"`
	Creating    Duration          `json:"creating,omitempty"`
	SnapshotIDs []string          `json:"snapshotIDs,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	// DeletionTime is when DeleteImage took effect on an image that is still shown. Putting it is without effect.
	DeletionTime time.Time `json:"deletionTime,omitzero"`

	put time.Time
}

const (
	available = "Available"
	creating  = "Creating"
)

// statuses are all that DescribeImages knows.
var statuses = []string{creating, "Waiting", available, "UnAvailable", "CreateFailed", "Deprecated"}

var (
	imageID  = regexp.MustCompile(`^[A-Za-z][\w.-]{1,127}$`)
	regionID = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
)

// validate fills in the defaults first.
func (i *Image) validate(accounts []Account) error {
	i.AccountID, i.Name = cmp.Or(i.AccountID, accounts[0].AccountID), cmp.Or(i.Name, i.ImageID)
	i.Status, i.SizeGiB = cmp.Or(i.Status, available), cmp.Or(i.SizeGiB, 40)
	switch {
	case !imageID.MatchString(i.ImageID):
		return fmt.Errorf("imageID: %q is no image ID", i.ImageID)
	case !slices.ContainsFunc(accounts, func(a Account) bool { return a.AccountID == i.AccountID }):
		return fmt.Errorf("accountID: %q is no account of the scenario", i.AccountID)
	case !regionID.MatchString(i.RegionID):
		return fmt.Errorf("regionID: %q is no region ID", i.RegionID)
	case len(i.Name) < 2 || len(i.Name) > 128:
		return fmt.Errorf("name: %q has not 2 to 128 characters", i.Name)
	case !slices.Contains(statuses, i.Status):
		return fmt.Errorf("status: %q is none of %s", i.Status, strings.Join(statuses, ", "))
	case i.SizeGiB < 0:
		return fmt.Errorf("sizeGiB: %d is negative", i.SizeGiB)
	}
	return nil
}

func (i *Image) clone() Image {
	c := *i
	c.UsedBy, c.SharedWith = slices.Clone(i.UsedBy), slices.Clone(i.SharedWith)
	c.SnapshotIDs, c.Tags = slices.Clone(i.SnapshotIDs), maps.Clone(i.Tags)
	return c
}

func (i *Image) running(operation Duration, now time.Time) bool {
	return now.Before(i.put.Add(time.Duration(operation)))
}

// obstacle returns the error code that keeps the image from being deleted, or "". Which of several ECS
// reports is not documented: here what a person has to undo comes before what passes by itself, and what
// Force overrides comes last.
func (i *Image) obstacle(now time.Time, force bool) string {
	for _, o := range []struct {
		holds bool
		code  string
	}{
		{i.Public, "ImageIsPublic"},
		{len(i.SharedWith) > 0, "ImageUseShared"},
		{i.running(i.Creating, now), "ImageIsCreating"},
		{i.running(i.Importing, now), "ImageIsImporting"},
		{i.running(i.Copying, now), "OperationDenied.ImageCopying"},
		{i.running(i.Exporting, now), "ImageIsExporting"},
		{len(i.UsedBy) > 0 && !force, "ImageUsingByInstance"},
	} {
		if o.holds {
			return o.code
		}
	}
	return ""
}

// shownStatus is Creating while an image that would be Available is still being created or imported; a copy
// in progress is read from the image, and leaves it Available.
func (i *Image) shownStatus(now time.Time) string {
	if i.Status == available && (i.running(i.Creating, now) || i.running(i.Importing, now)) {
		return creating
	}
	return i.Status
}
