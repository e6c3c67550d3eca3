// Package ecs holds the operations of Alibaba Cloud ECS that this project uses, typed, and the one table that
// says what each error code means for an image and what to do about it. It knows ECS; it does not know how
// calls are signed and sent, nor what Kubernetes objects there are.
package ecs

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
)

const (
	product = "ecs"
	version = "2014-05-26"

	// maxPageSize is the most images that DescribeImages returns at once.
	maxPageSize = 100

	// everyStatus asks DescribeImages for images of every status; without it, it shows the Available ones
	// alone, and a deprecated or unavailable image would look deleted.
	everyStatus = "Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated"
)

// Error is a call that did not succeed; Lookup tells what its Code means.
type Error = openapi.Error

// Client calls ECS. It is safe for concurrent use.
type Client struct {
	api *openapi.Client
}

// New returns a client that calls through api.
func New(api *openapi.Client) *Client { return &Client{api: api} }

// DeleteImage asks ECS to delete one custom image; with force, although instances use it. No error means that
// ECS took the request, not that the image is gone: it says the same of an image that was never there, and it
// may delete later. FindImage tells.
func (c *Client) DeleteImage(ctx context.Context, regionID, imageID string, force bool) error {
	_, err := c.api.Do(ctx, call("DeleteImage", regionID, url.Values{
		"ImageId": {imageID},
		"Force":   {strconv.FormatBool(force)},
	}), nil)
	return err
}

// FindImage returns the image of that ID in the account of the key, whatever its status, or nil if there is
// none.
func (c *Client) FindImage(ctx context.Context, regionID, imageID string) (*Image, error) {
	images, err := c.DescribeImages(ctx, regionID, url.Values{"ImageId": {imageID}})
	if err != nil {
		return nil, err
	}
	for i := range images {
		if images[i].ImageID == imageID {
			return &images[i], nil
		}
	}
	return nil, nil
}

// DescribeImages returns the account's own images in a region that match the filter, which holds parameters
// of the operation of that name: from all pages and of every status. Images that are created or deleted while
// it reads may be missing.
func (c *Client) DescribeImages(ctx context.Context, regionID string, filter url.Values) ([]Image, error) {
	var images []Image
	for page := 1; ; page++ {
		query := url.Values{
			"ImageOwnerAlias": {"self"}, // an image that others share with us is not ours to delete
			"Status":          {everyStatus},
			"PageSize":        {strconv.Itoa(maxPageSize)},
			"PageNumber":      {strconv.Itoa(page)},
		}
		for name, values := range filter {
			query[name] = values
		}
		var answer describeImagesAnswer
		if _, err := c.api.Do(ctx, call("DescribeImages", regionID, query), &answer); err != nil {
			return nil, err
		}
		if answer.TotalCount == nil { // or a misrouted answer would say that there are no images
			return nil, &Error{Code: openapi.CodeUnusableAnswer, Message: "DescribeImages told no TotalCount."}
		}
		for _, image := range answer.Images.Image {
			images = append(images, image.image())
		}
		if len(answer.Images.Image) == 0 || page*maxPageSize >= *answer.TotalCount {
			return images, nil
		}
	}
}

func call(action, regionID string, query url.Values) openapi.Call {
	query.Set("RegionId", regionID)
	return openapi.Call{Product: product, Version: version, Action: action, Region: regionID, Query: query}
}

// unquoted is a value that ECS sends as a string in one answer and as a number in the next.
type unquoted string

// UnmarshalJSON takes the value with or without quotes.
func (u *unquoted) UnmarshalJSON(data []byte) error {
	if text := strings.Trim(string(data), `"`); text != "null" {
		*u = unquoted(text)
	}
	return nil
}
