package ecssim

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
)

// describeInstances lists the instances that the account's images name, by their IDs. The token is where the next
// page begins.
func (s *Server) describeInstances(q *request) *failure {
	all := map[string]object{}
	for _, image := range s.visible(q) {
		if !image.shown() || image.AccountID != q.AccountID || image.RegionID != q.RegionID ||
			q.ImageID != "" && q.ImageID != image.ImageID {
			continue
		}
		for _, id := range image.UsedBy {
			all[hex.EncodeToString([]byte(id+" "+image.ImageID))] = object{
				"InstanceId": id, "InstanceName": id, "ImageId": image.ImageID, "RegionId": image.RegionID,
				"Status": "Running", "CreationTime": image.CreationTime.Format(minutes),
			}
		}
	}
	tokens := slices.Sorted(maps.Keys(all))
	first, _ := slices.BinarySearch(tokens, q.Parameters["NextToken"])
	size, next := q.number("MaxResults", 10), ""
	entries := []object{} // a list in JSON even when empty
	for _, token := range tokens[first:] {
		if len(entries) == size {
			next = token
			break
		}
		entries = append(entries, all[token])
	}
	q.answer = object{"PageNumber": 1, "PageSize": size, "TotalCount": len(all), "NextToken": next,
		"Instances": object{"Instance": entries}}
	return nil
}

func (s *Server) describeSharing(q *request) *failure {
	var sharedWith []string
	if !q.caller.Blind {
		image := s.own(q)
		if image == nil {
			return fail("InvalidImageId.NotFound")
		}
		sharedWith = image.SharedWith
	}
	accounts := []object{}
	for _, id := range page(q, sharedWith) {
		accounts = append(accounts, object{"AliyunId": json.Number(id)})
	}
	q.answer["ImageId"], q.answer["RegionId"] = q.ImageID, q.RegionID
	q.answer["Accounts"] = object{"Account": accounts}
	q.answer["ShareGroups"] = object{"ShareGroup": []object{}}
	return nil
}
