package ecssim_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const fullScenario = `
accountID: "1234567890123456"
accessKeys: [{id: demo-id, secret: demo-secret}]
accounts:
- accountID: "2"
  accessKeys: [{id: other-id, secret: other-secret, inactive: true, deny: [DeleteImage], blind: true, honestDryRun: true}]
latency: 100ms
quotas: {DeleteImage: 200/60s}
unknownImage: Ignore
deletionDelay: 3s
roles:
- {arn: "acs:ram::2:role/web", trusts: ["1234567890123456"], externalID: e,
   oidcProviderARN: "acs:ram::2:oidc-provider/p", oidcTokens: [t], deny: [DeleteImage], sessionDuration: 5s,
   blind: true, honestDryRun: true}
images:
- {imageID: m-bp1free, regionID: cn-hangzhou, name: web-1, family: web, sizeGiB: 20,
   creationTime: "2024-01-02T03:04:05Z", status: Deprecated, usedBy: [i-bp1a], sharedWith: ["1098"],
   public: true, copying: 30s, importing: 0s, exporting: forever, creating: 1h,
   snapshotIDs: [s-bp1a], tags: {team: web}}
- {imageID: m-bp1plain, regionID: cn-shanghai}
- {imageID: m-bp2, regionID: cn-shanghai, accountID: "2"}
`

func TestAScenarioIsReadWhole(t *testing.T) {
	s, err := ecssim.ParseScenario([]byte(fullScenario))
	if err != nil {
		t.Fatal(err)
	}
	if s.Latency != ecssim.Duration(100*time.Millisecond) || s.DeletionDelay != ecssim.Duration(3*time.Second) ||
		s.UnknownImage != ecssim.UnknownIgnored || !s.Accounts[0].AccessKeys[0].Inactive ||
		!s.Accounts[0].AccessKeys[0].Blind || !s.Accounts[0].AccessKeys[0].HonestDryRun {
		t.Errorf("settings: %+v", s)
	}
	if want := (ecssim.Quota{Limit: 200, Window: ecssim.Duration(time.Minute)}); s.Quotas["DeleteImage"] != want {
		t.Errorf("quotas: %v", s.Quotas)
	}
	if role := s.Roles[0]; role.ARN != "acs:ram::2:role/web" || role.Trusts[0] != account || role.ExternalID != "e" ||
		role.OIDCProviderARN != "acs:ram::2:oidc-provider/p" || role.OIDCTokens[0] != "t" ||
		role.Deny[0] != "DeleteImage" || !role.Blind || !role.HonestDryRun || role.SessionDuration != ecssim.Duration(5*time.Second) {
		t.Errorf("role: %+v", role)
	}
	free := s.Images[0]
	if free.Exporting != ecssim.Forever || free.Creating != ecssim.Duration(time.Hour) || free.Tags["team"] != "web" ||
		!free.CreationTime.Equal(time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)) || free.SizeGiB != 20 {
		t.Errorf("image: %+v", free)
	}
}

func TestTheDefaultsOfAnImage(t *testing.T) {
	s := start(t, image("m-bp1"))
	got, found := s.Image("m-bp1")
	if !found || got.Name != "m-bp1" || got.Status != "Available" || got.SizeGiB != 40 || got.AccountID != account ||
		!got.CreationTime.Equal(noon) {
		t.Errorf("got %+v", got)
	}
}

func TestTheExampleScenarioIsValid(t *testing.T) {
	data, err := os.ReadFile("../../hack/ecssim/scenario.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ecssim.ParseScenario(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ecssim.New(s, nil); err != nil {
		t.Error(err)
	}
}

func TestAnErrorInAScenarioNamesItsField(t *testing.T) {
	const (
		base = "accountID: '1'\naccessKeys: [{id: a, secret: b}]\n"
		one  = base + "images: [{imageID: m-1, regionID: cn-hangzhou, "
		role = base + "roles: [{arn: 'acs:ram::1:role/web', "
	)
	for name, test := range map[string]struct{ yaml, want string }{
		"no YAML":                      {"{", "YAML"},
		"nothing":                      {"", "accessKeys"},
		"no keys":                      {"accountID: '1'", "accessKeys"},
		"keys without an account":      {"accessKeys: [{id: a, secret: b}]", "accountID"},
		"an account that is no number": {"accountID: me\naccessKeys: [{id: a, secret: b}]", "accountID"},
		"an unknown field":             {base + "image: []", `"image"`},
		"an unknown field of an image": {one + "colour: red}]", `"colour"`},
		"a field twice":                {base + "latency: 1s\nlatency: 2s", `"latency"`},
		"a duration without a unit":    {base + "latency: '5'", "latency"},
		"a duration below zero":        {one + "copying: -5s}]", "copying"},
		"a duration that is a number":  {base + "latency: 5", "latency"},
		"a bad quota":                  {base + "quotas: {DeleteImage: many}", "quotas"},
		"a quota of no action":         {base + "quotas: {DropImage: 5/1s}", "quotas"},
		"a bad unknownImage":           {base + "unknownImage: Maybe", "unknownImage"},
		"a bad creationTime":           {one + "creationTime: now}]", `"now"`},
		"no imageID":                   {base + "images: [{regionID: cn-hangzhou}]", "images[0].imageID"},
		"no regionID":                  {base + "images: [{imageID: m-1}]", "images[0].regionID"},
		"an unknown owner":             {one + "accountID: '7'}]", "images[0].accountID"},
		"a bad status":                 {one + "status: Fine}]", "images[0].status"},
		"a size that is no number":     {one + "sizeGiB: big}]", "images.sizeGiB"},
		"shared with no number":        {one + "sharedWith: [me]}]", "images[0].sharedWith"},
		"two keys of one ID": {base + "accounts: [{accountID: '2', accessKeys: [{id: a, secret: c}]}]",
			"accessKeys.id"},
		"denied what is no action": {"accountID: '1'\naccessKeys: [{id: a, secret: b, deny: [DropImage]}]",
			"accessKeys.deny"},
		"an honest key that is not blind": {"accountID: '1'\naccessKeys: [{id: a, secret: b, honestDryRun: true}]",
			"accessKeys.honestDryRun"},
		"an honest role that is not blind": {role + "honestDryRun: true}]", "roles[0].honestDryRun"},
		"denied what needs no permission":  {role + "deny: [GetCallerIdentity]}]", "roles[0].deny"},
		"no ARN of a role":                 {base + "roles: [{arn: web}]", "roles[0].arn"},
		"a role of an unknown account":     {base + "roles: [{arn: 'acs:ram::7:role/web'}]", "roles[0].arn"},
		"a role that trusts no number":     {role + "trusts: [me]}]", "roles[0].trusts"},
		"tokens of no provider":            {role + "oidcTokens: [t]}]", "roles[0].oidcProviderARN"},
		"a session that lasts no duration": {role + "sessionDuration: long}]", "sessionDuration"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := ecssim.ParseScenario([]byte(test.yaml))
			if err == nil {
				_, err = ecssim.New(s, nil)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %s", err, test.want)
			}
		})
	}
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	for text, d := range map[string]ecssim.Duration{
		`"30s"`: ecssim.Duration(30 * time.Second), `"forever"`: ecssim.Forever, `"0s"`: 0,
	} {
		if got, err := json.Marshal(d); err != nil || string(got) != text {
			t.Errorf("%v was written as %s, %v", time.Duration(d), got, err)
		}
	}
}

func TestNewLeavesTheCallersScenarioAlone(t *testing.T) {
	images := []ecssim.Image{image("m-bp1")}
	s := start(t, images...)
	if _, found := s.Image("m-bp1"); !found || images[0].Name != "" {
		t.Errorf("the caller's image became %+v", images[0])
	}
}

func TestNewRefusesABadScenario(t *testing.T) {
	if _, err := ecssim.New(ecssim.Scenario{}, nil); err == nil || !strings.Contains(err.Error(), "accessKeys") {
		t.Errorf("got %v", err)
	}
}

func TestAScenarioChangesWhileTheServerRuns(t *testing.T) {
	s := start(t)
	err := s.Configure(func(c *ecssim.Scenario) {
		c.UnknownImage = ecssim.UnknownIgnored
		c.Quotas = map[string]ecssim.Quota{"DeleteImage": {Limit: 9, Window: ecssim.Forever}}
		c.Images = []ecssim.Image{image("m-bp1")}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.v3("DeleteImage", "ImageId=m-none"); got.status != 200 {
		t.Errorf("unknownImage was not changed: %+v", got)
	}
	if _, found := s.Image("m-bp1"); !found {
		t.Error("the image was not put")
	}
	err = s.Configure(func(c *ecssim.Scenario) {
		c.UnknownImage = "Maybe"
		c.Quotas["DeleteImage"] = ecssim.Quota{Limit: 0, Window: ecssim.Forever}
	})
	if err == nil {
		t.Error("a bad change was taken")
	}
	if got := s.v3("DeleteImage", "ImageId=m-none"); got.status != 200 {
		t.Errorf("a bad change had an effect: %+v", got)
	}
}
