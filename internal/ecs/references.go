package ecs

import (
	"context"
	"net/url"
	"slices"
	"strconv"
)

// InstancesOf returns the IDs of instances that use an image, in order. It reads one page of 100, and reports
// whether there are more.
func (c *Client) InstancesOf(ctx context.Context, regionID, imageID string) (ids []string, more bool, err error) {
	var answer struct {
		NextToken string `json:"NextToken" xml:"NextToken"`
		Instances struct {
			Instance []struct {
				InstanceID string `json:"InstanceId" xml:"InstanceId"`
			} `json:"Instance" xml:"Instance"`
		} `json:"Instances" xml:"Instances"`
	}
	_, err = c.do(ctx, "DescribeInstances", regionID, url.Values{"ImageId": {imageID}, "MaxResults": {strconv.Itoa(pageSize)}}, &answer)
	for _, instance := range answer.Instances.Instance {
		ids = append(ids, instance.InstanceID)
	}
	slices.Sort(ids)
	return ids, answer.NextToken != "", err
}

// AccountsOf returns the IDs of accounts that an image is shared with, in order. It reads one page of 100, and
// reports whether there are more. Accounts that have the image by a resource share are not among them.
func (c *Client) AccountsOf(ctx context.Context, regionID, imageID string) (ids []string, more bool, err error) {
	var answer struct {
		TotalCount int `json:"TotalCount" xml:"TotalCount"`
		Accounts   struct {
			Account []struct {
				AliyunID unquoted `json:"AliyunId" xml:"AliyunId"`
			} `json:"Account" xml:"Account"`
		} `json:"Accounts" xml:"Accounts"`
	}
	query := url.Values{"ImageId": {imageID}, "PageSize": {strconv.Itoa(pageSize)}}
	_, err = c.do(ctx, "DescribeImageSharePermission", regionID, query, &answer)
	for _, account := range answer.Accounts.Account {
		ids = append(ids, string(account.AliyunID))
	}
	slices.Sort(ids)
	return ids, answer.TotalCount > len(ids), err
}
