package ecssim

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/clock"
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
	// CreationTime is when it was put, by default.
	CreationTime time.Time `json:"creationTime,omitzero"`
	// Status is Available by default. It is what DescribeImages shows, and has no say in a deletion.
	Status string `json:"status,omitempty"`
	// UsedBy are instances.
	UsedBy []string `json:"usedBy,omitempty"`
	// SharedWith are accounts, which need not be known here.
	SharedWith []string `json:"sharedWith,omitempty"`
	// ResourceShared is shared through a resource share, which no action here shows.
	ResourceShared bool              `json:"resourceShared,omitempty"`
	Public         bool              `json:"public,omitempty"`
	Copying        Duration          `json:"copying,omitempty"`
	Importing      Duration          `json:"importing,omitempty"`
	Exporting      Duration          `json:"exporting,omitempty"`
	Creating       Duration          `json:"creating,omitempty"`
	SnapshotIDs    []string          `json:"snapshotIDs,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`

	clock      clock.PassiveClock
	put        time.Time
	shownUntil time.Time // zero before its deletion
}

const (
	available = "Available"
	creating  = "Creating"
)

// validate fills in the defaults first.
func (i *Image) validate(accounts []Account) error {
	i.AccountID, i.Name = cmp.Or(i.AccountID, accounts[0].AccountID), cmp.Or(i.Name, i.ImageID)
	i.Status, i.SizeGiB = cmp.Or(i.Status, available), cmp.Or(i.SizeGiB, 40)
	owned := slices.ContainsFunc(accounts, func(a Account) bool { return a.AccountID == i.AccountID })
	numbers := !slices.ContainsFunc(i.SharedWith, func(id string) bool { return !accountID.MatchString(id) })
	return cmp.Or(
		require(imageID.MatchString(i.ImageID), "imageID", "an image ID", i.ImageID),
		require(owned, "accountID", "an account of the scenario", i.AccountID),
		require(slices.Contains(regions, i.RegionID), "regionID", "a region of ECS", i.RegionID),
		require(slices.Contains(statuses, i.Status), "status", "one of "+strings.Join(statuses, ", "), i.Status),
		require(numbers, "sharedWith", "accounts of up to 18 digits", i.SharedWith),
	)
}

// shown is false for one that was deleted, and for none.
func (i *Image) shown() bool {
	return i != nil && (i.shownUntil.IsZero() || i.clock.Now().Before(i.shownUntil))
}

func (i *Image) running(operation Duration) bool {
	return i.clock.Now().Before(i.put.Add(time.Duration(operation)))
}

// obstacle returns the error code that keeps the image from being deleted, or "". Which of several ECS
// reports is not documented: here what a person has to undo comes before what passes by itself, and what
// Force overrides comes last.
func (i *Image) obstacle(force bool) string {
	for _, o := range []struct {
		holds bool
		code  string
	}{
		{i.Public, "ImageIsPublic"},
		{len(i.SharedWith) > 0 || i.ResourceShared, "ImageUseShared"},
		{i.running(i.Creating), "ImageIsCreating"},
		{i.running(i.Importing), "ImageIsImporting"},
		{i.running(i.Copying), "OperationDenied.ImageCopying"},
		{i.running(i.Exporting), "ImageIsExporting"},
		{len(i.UsedBy) > 0 && !force, "ImageUsingByInstance"},
	} {
		if o.holds {
			return o.code
		}
	}
	return ""
}

// status is Creating while an image that would be Available is still being created or imported. A copy in
// progress is read from the image, and leaves it Available.
func (i *Image) status() string {
	return pick(i.Status == available && (i.running(i.Creating) || i.running(i.Importing)), creating, i.Status)
}

func (i *Image) usage() string { return pick(len(i.UsedBy) > 0, "instance", "none") }

func pick(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
