package ecssim_test

import (
	"testing"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

// blindKeys are keys without the permission for the listings, of users and of roles. For some, ECS does not tell so
// in a dry run either.
func blindKeys(t *testing.T, test func(t *testing.T, s simulator, key ecssim.AccessKey, honest bool)) {
	t.Helper()
	for _, honest := range []bool{false, true} {
		name := map[bool]string{false: "", true: ", honest in a dry run"}[honest]
		t.Run("a key"+name, func(t *testing.T) {
			key := ecssim.AccessKey{ID: "blind-id", Secret: "blind-secret", Blind: true, HonestDryRun: honest}
			test(t, startScenario(t, ecssim.Scenario{AccessKeys: []ecssim.AccessKey{key}, Images: seenImages}), key, honest)
		})
		t.Run("a role"+name, func(t *testing.T) {
			s := startRole(t, func(c *ecssim.Scenario) {
				c.Roles[0].Blind, c.Roles[0].HonestDryRun = true, honest
				c.Images = nil
				for _, i := range seenImages {
					i.AccountID = "2000000000000002"
					c.Images = append(c.Images, i)
				}
			})
			test(t, s, s.v3("AssumeRole", assume).key(), honest)
		})
	}
}

var seenImages = []ecssim.Image{image("m-bp1"), image("m-bp2", used, shared)}

func TestBlindKey_isAnsweredWithEmptyLists(t *testing.T) {
	for _, call := range []struct{ action, query string }{
		{"DescribeImages", "ImageId=m-bp1"}, {"DescribeImages", "Status=ALL"},
		{"DescribeInstances", "ImageId=m-bp2"}, {"DescribeInstances", ""},
		{"DescribeImageSharePermission", "ImageId=m-bp2"}, {"DescribeImageSharePermission", "ImageId=m-none"},
	} {
		t.Run(call.action+" "+call.query, func(t *testing.T) {
			blindKeys(t, func(t *testing.T, s simulator, key ecssim.AccessKey, _ bool) {
				got := s.as(key, call.action, call.query)
				if got.status != 200 || got.Code != "" || got.TotalCount != 0 || got.ids() != "" || got.instances() != "" ||
					len(got.Accounts.Account) != 0 || !uuid.MatchString(got.RequestID) {
					t.Errorf("got %s", got.body)
				}
			})
		})
	}
}

func TestBlindKey_deletes(t *testing.T) {
	blindKeys(t, func(t *testing.T, s simulator, key ecssim.AccessKey, _ bool) {
		if got := s.as(key, "DeleteImage", "ImageId=m-bp1"); got.status != 200 {
			t.Errorf("got %s", got.body)
		}
		if got := s.as(key, "DeleteImage", "ImageId=m-bp2&Force=true"); got.Code != "ImageUseShared" {
			t.Errorf("got %s", got.body)
		}
		if _, found := s.Image("m-bp1"); found {
			t.Error("the image is still there")
		}
	})
}

func TestDryRunOfDescribeImages_blindKey(t *testing.T) {
	blindKeys(t, func(t *testing.T, s simulator, key ecssim.AccessKey, honest bool) {
		got := s.as(key, "DescribeImages", "ImageId=m-bp1&DryRun=true")
		if honest && (got.status != 403 || got.Code != "Forbidden.RAM") ||
			!honest && (got.status != 200 || got.TotalCount != 0 || got.ids() != "") {
			t.Errorf("got %s", got.body)
		}
		if call := s.last(); !call.DryRun || call.Code != got.Code {
			t.Errorf("record %+v", call)
		}
		if got := s.as(key, "DescribeInstances", "DryRun=true"); got.status != 200 {
			t.Errorf("another action: %s", got.body)
		}
	})
}

func TestDryRunOfDescribeImages(t *testing.T) {
	denied := ecssim.AccessKey{ID: "denied-id", Secret: "s", Deny: []string{"DescribeImages"}}
	normal := ecssim.AccessKey{ID: "normal-id", Secret: "s"}
	wrong := ecssim.AccessKey{ID: "normal-id", Secret: "guessed"}
	for name, test := range map[string]struct {
		key    ecssim.AccessKey
		query  string
		status int
		code   string
	}{
		"of an image":                {normal, "ImageId=m-bp1&DryRun=true", 400, "DryRunOperation"},
		"of an image that is absent": {normal, "ImageId=m-none&DryRun=True", 400, "DryRunOperation"},
		"with bad parameters":        {normal, "Status=Fine&DryRun=true", 400, "InvalidParameter"},
		"of an unknown region":       {normal, "RegionId=cn-atlantis&DryRun=true", 404, "InvalidRegionId.NotFound"},
		"with a key that is denied":  {denied, "ImageId=m-bp1&DryRun=true", 403, "Forbidden.RAM"},
		"with a wrong key":           {wrong, "ImageId=m-bp1&DryRun=true", 400, "SignatureDoesNotMatch"},
		"switched off":               {normal, "ImageId=m-bp1&DryRun=false", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScenario(t, ecssim.Scenario{AccessKeys: []ecssim.AccessKey{denied, normal}, Images: seenImages})
			got := s.as(test.key, "DescribeImages", test.query)
			if got.status != test.status || got.Code != test.code || got.ids() != map[string]string{"": "m-bp1"}[test.code] {
				t.Errorf("got %s", got.body)
			}
			if test.code == "DryRunOperation" && got.Message != "Request validation has been passed with DryRun flag set." {
				t.Errorf("got %q", got.Message)
			}
			if s.last().DryRun != (test.code != "") {
				t.Errorf("record %+v", s.last())
			}
		})
	}
}

func TestDryRunOfDeleteImage_deletes(t *testing.T) {
	s := start(t, seenImages...)
	if got := s.v3("DeleteImage", "ImageId=m-bp1&DryRun=true"); got.status != 200 || !s.last().DryRun {
		t.Errorf("got %s", got.body)
	}
	if _, found := s.Image("m-bp1"); found {
		t.Error("the image is still there")
	}
}
