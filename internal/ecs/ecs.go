// Package ecs holds the operations of Alibaba Cloud ECS that this project uses, typed, and the table of error codes
// with the class of each. It does not know how calls are signed and sent, what Kubernetes is, or what to advise.
package ecs

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

const (
	product = "ecs"
	version = "2014-05-26"

	deleteImage    = "DeleteImage"
	describeImages = "DescribeImages"

	// pageSize is the most entries that a listing returns at once.
	pageSize = 100

	// pagesAtOnce is how many pages of one listing are asked for at the same time.
	pagesAtOnce = 8

	// everyStatus has DescribeImages show images of every status. By default it shows only Available ones, and a
	// deprecated or unavailable image would look deleted.
	everyStatus = "Creating,Waiting,Available,UnAvailable,CreateFailed,Deprecated"

	// codeDryRun is the code that reports the success of a dry run.
	codeDryRun = "DryRunOperation"
)

// Client calls ECS. It is safe for concurrent use. Every call that does not succeed is a *failure.Error; ClassOf
// returns the class of its code.
type Client struct {
	api         *openapi.Client
	credentials openapi.Credentials
	caller      string
}

// New returns a client that calls through api. It has no access key: As gives it one.
func New(api *openapi.Client) *Client { return &Client{api: api} }

// As returns a client that makes all its calls with one access key.
func (c *Client) As(credentials openapi.Credentials) *Client {
	return &Client{api: c.api, credentials: credentials, caller: c.caller}
}

// For returns a client that makes all its calls for one caller, who keeps its turn where a quota is used up.
func (c *Client) For(caller string) *Client {
	return &Client{api: c.api, credentials: c.credentials, caller: caller}
}

// Reserve reports whether DeleteImage, or else DescribeImages, could be called now. If the quota of the account is used
// up, the *failure.Error says how long, and the caller has its turn then. It calls nothing.
func (c *Client) Reserve(accountID, regionID string, deletes bool) error {
	action := describeImages
	if deletes {
		action = deleteImage
	}
	return c.api.Reserve(openapi.Call{Product: product, Version: version, Action: action, Region: regionID,
		Credentials: openapi.Credentials{AccountID: accountID}, Caller: c.caller})
}

// Waiting counts the callers that wait for their turn.
func (c *Client) Waiting() int { return c.api.Waiting() }

// DeleteImage deletes one custom image; with force, although instances use it. It returns the request ID. Success
// means that ECS took the request, not that the image is gone: ECS answers the same for an image that was never
// there, and it may delete later. FindImage tells.
func (c *Client) DeleteImage(ctx context.Context, regionID, imageID string, force bool) (string, error) {
	return c.do(ctx, deleteImage, regionID, url.Values{
		"ImageId": {imageID},
		"Force":   {strconv.FormatBool(force)},
	}, nil)
}

// FindImage returns the image of that ID in the account of the key, whatever its status, or nil if ECS says that
// there is none: a count of zero, or the error CodeImageNotFound. An answer that counts images and does not show
// this one is an error.
func (c *Client) FindImage(ctx context.Context, regionID, imageID string) (*Image, error) {
	return c.describe(ctx, regionID, describeParameters(imageID))
}

// ListImages returns the images in the account of the key, of every status, unless there are more than so many pages of
// 100. Pages are counted from the start: an image may be missing that ECS would show, if another one was deleted
// meanwhile. So that an image is listed is evidence, and that it is not is none.
func (c *Client) ListImages(ctx context.Context, regionID string, mostPages int) (images []Image, pages int, err error) {
	first, err := c.page(ctx, regionID, 1)
	if err != nil {
		return nil, 0, err
	}
	if pages = (*first.TotalCount + pageSize - 1) / pageSize; pages > mostPages {
		return nil, pages, nil
	}
	all := make([][]imageAnswer, max(pages, 1))
	all[0] = first.Images.Image
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pagesAtOnce)
	for number := 2; number <= pages; number++ {
		group.Go(func() error {
			answer, err := c.page(ctx, regionID, number)
			all[number-1] = answer.Images.Image
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, pages, err
	}
	for _, answer := range slices.Concat(all...) {
		images = append(images, answer.image())
	}
	return images, pages, nil
}

func (c *Client) page(ctx context.Context, regionID string, number int) (describeImagesAnswer, error) {
	query := describeParameters("")
	query.Del("ImageId")
	query.Set("PageNumber", strconv.Itoa(number))
	return c.describeAll(ctx, regionID, query)
}

// CheckDescribe checks whether the key may look for an image, by a dry run of FindImage's call: ECS then checks
// the key, its permissions and the parameters, and reads nothing. It tells a key that may not look, to which ECS
// may answer with an empty list, from an image that is not there. A server that ignores DryRun and answers as
// FindImage expects passes the check too.
func (c *Client) CheckDescribe(ctx context.Context, regionID, imageID string) error {
	query := describeParameters(imageID)
	// Never set DryRun for DeleteImage: it is not documented there, and a server that ignores it deletes the image.
	query.Set("DryRun", "true")
	_, err := c.describe(ctx, regionID, query)
	if failure.CodeOf(err) == codeDryRun {
		return nil
	}
	return err
}

// describeParameters are those by which DescribeImages looks for one image.
func describeParameters(imageID string) url.Values {
	return url.Values{
		"ImageId":         {imageID},
		"ImageOwnerAlias": {"self"}, // an image that others share with this account is not its to delete
		"Status":          {everyStatus},
		"PageSize":        {strconv.Itoa(pageSize)},
	}
}

// describe calls DescribeImages for the image of the query.
func (c *Client) describe(ctx context.Context, regionID string, query url.Values) (*Image, error) {
	answer, err := c.describeAll(ctx, regionID, query)
	switch {
	case failure.CodeOf(err) == CodeImageNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	}
	for _, candidate := range answer.Images.Image {
		if candidate.ImageID == query.Get("ImageId") {
			image := candidate.image()
			return &image, nil
		}
	}
	if *answer.TotalCount != 0 {
		return nil, &failure.Error{
			Code:    failure.CodeUnusableAnswer,
			Message: "DescribeImages counted images of this ID and returned none.",
		}
	}
	return nil, nil
}

// describeAll calls DescribeImages for the images that a query selects.
func (c *Client) describeAll(ctx context.Context, regionID string, query url.Values) (answer describeImagesAnswer, err error) {
	_, err = c.do(ctx, describeImages, regionID, query, &answer)
	if err == nil && answer.TotalCount == nil { // or a misrouted answer would say that there is no such image
		err = &failure.Error{Code: failure.CodeUnusableAnswer, Message: "DescribeImages returned no TotalCount."}
	}
	return answer, err
}

func (c *Client) do(ctx context.Context, action, regionID string, query url.Values, out any) (string, error) {
	query.Set("RegionId", regionID)
	return c.api.Do(ctx, openapi.Call{
		Product: product, Version: version, Action: action, Region: regionID,
		Query: query, Credentials: c.credentials, Caller: c.caller,
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
