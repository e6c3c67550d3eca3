// Package ecs holds the operations of Alibaba Cloud ECS that this project uses, typed, and the one table that
// says what each error code means for an image and what to do about it: the codes of ECS and STS, and those of
// calls that could not be made. It does not know how calls are signed and sent, nor does it touch any object of
// Kubernetes.
package ecs

import (
	"context"
	"maps"
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

	// maxPages bounds how long a server is believed that promises more.
	maxPages = 1000

	// everyStatus asks DescribeImages for images of every status; without it, it shows the Available ones
	// alone, and a deprecated or unavailable image would look deleted.
	everyStatus = "Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated"
)

// Error is a call that did not succeed; Lookup tells what its Code means.
type Error = openapi.Error

// Client calls ECS. It is safe for concurrent use.
type Client struct {
	api         *openapi.Client
	credentials openapi.Credentials
}

// New returns a client that calls through api. It has no access key: As gives it one.
func New(api *openapi.Client) *Client { return &Client{api: api} }

// As returns a client that makes all its calls with one access key.
func (c *Client) As(credentials openapi.Credentials) *Client {
	return &Client{api: c.api, credentials: credentials}
}

// DeleteImage asks ECS to delete one custom image; with force, although instances use it. No error means that
// ECS took the request, not that the image is gone: it says the same of an image that was never there, and it
// may delete later. FindImage tells.
func (c *Client) DeleteImage(ctx context.Context, regionID, imageID string, force bool) (string, error) {
	return c.do(ctx, "DeleteImage", regionID, url.Values{
		"ImageId": {imageID},
		"Force":   {strconv.FormatBool(force)},
	}, nil)
}

// FindImage returns the image of that ID in the account of the key, whatever its status, or nil if ECS says that
// there is none: a count of zero, or the error of that name. An answer that counts images and does not show this
// one is an error.
func (c *Client) FindImage(ctx context.Context, regionID, imageID string) (*Image, error) {
	images, total, err := c.describePage(ctx, regionID, url.Values{"ImageId": {imageID}}, 1)
	if openapi.ErrorCode(err) == CodeImageNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range images {
		if images[i].ImageID == imageID {
			return &images[i], nil
		}
	}
	if total != 0 {
		return nil, &Error{
			Code:    openapi.CodeUnusableAnswer,
			Message: "DescribeImages counts images of this ID, and shows none.",
		}
	}
	return nil, nil
}

// DescribeImages returns the account's own images in a region that match the filter, which holds parameters
// of the operation of that name: from all pages and of every status. Images that are created or deleted while
// it reads may be missing.
func (c *Client) DescribeImages(ctx context.Context, regionID string, filter url.Values) ([]Image, error) {
	var images []Image
	for page := 1; page <= maxPages; page++ {
		found, total, err := c.describePage(ctx, regionID, filter, page)
		if err != nil {
			return nil, err
		}
		images = append(images, found...)
		if len(found) == 0 || page*maxPageSize >= total {
			return images, nil
		}
	}
	return nil, &Error{Code: openapi.CodeUnusableAnswer, Message: "DescribeImages comes to no end."}
}

// describePage returns the images of one page, and how many there are on all of them.
func (c *Client) describePage(
	ctx context.Context, regionID string, filter url.Values, page int,
) (images []Image, total int, err error) {
	query := url.Values{
		"ImageOwnerAlias": {"self"}, // an image that others share with us is not ours to delete
		"Status":          {everyStatus},
		"PageSize":        {strconv.Itoa(maxPageSize)},
		"PageNumber":      {strconv.Itoa(page)},
	}
	maps.Copy(query, filter)
	var answer describeImagesAnswer
	if _, err := c.do(ctx, "DescribeImages", regionID, query, &answer); err != nil {
		return nil, 0, err
	}
	if answer.TotalCount == nil { // or a misrouted answer would say that there are no images
		return nil, 0, &Error{Code: openapi.CodeUnusableAnswer, Message: "DescribeImages told no TotalCount."}
	}
	for _, image := range answer.Images.Image {
		images = append(images, image.image())
	}
	return images, *answer.TotalCount, nil
}

func (c *Client) do(ctx context.Context, action, regionID string, query url.Values, out any) (string, error) {
	query.Set("RegionId", regionID)
	return c.api.Do(ctx, openapi.Call{
		Product: product, Version: version, Action: action, Region: regionID,
		Query: query, Credentials: c.credentials,
	}, out)
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
