package ecssim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Scenario is what the simulated cloud looks like at the start. At least one access key is required.
type Scenario struct {
	// AccountID is the first account, AccessKeys are its keys.
	AccountID  string      `json:"accountID,omitempty"`
	AccessKeys []AccessKey `json:"accessKeys,omitempty"`
	// Accounts are further ones.
	Accounts []Account `json:"accounts,omitempty"`
	// Roles belong to accounts, and can be assumed.
	Roles []Role `json:"roles,omitempty"`
	// Latency passes, in real time, between the effect of a call and its answer.
	Latency Duration `json:"latency,omitempty"`
	// Quotas are by action. An action without one is not limited.
	Quotas map[string]Quota `json:"quotas,omitempty"`
	// SilentQuotas has only refused calls tell their quota. Which answers of ECS have the headers is not documented: they
	// name what remains, which would always be nothing in a refusal, and Alibaba Cloud's own client for Java reads that.
	SilentQuotas bool `json:"silentQuotas,omitempty"`
	// UnknownImage is how DeleteImage answers for an image that is not there; UnknownNotFound by default.
	UnknownImage UnknownImage `json:"unknownImage,omitempty"`
	// DeletionDelay is how long DescribeImages still shows an image from its deletion on.
	DeletionDelay Duration `json:"deletionDelay,omitempty"`
	Images        []Image  `json:"images,omitempty"`
}

// Account owns images and the keys that see them.
type Account struct {
	AccountID  string      `json:"accountID"`
	AccessKeys []AccessKey `json:"accessKeys,omitempty"`
}

// AccessKey signs calls. One with a SecurityToken is temporary, and its calls have to carry the token.
type AccessKey struct {
	ID            string `json:"id"`
	Secret        string `json:"secret"`
	SecurityToken string `json:"securityToken,omitempty"`
	Inactive      bool   `json:"inactive,omitempty"`
	// Deny are actions for which the key has no permission, and knows it: they are refused.
	Deny []string `json:"deny,omitempty"`
	// Blind is a key that has no permission for the listings, and that ECS does not tell so, as it did until 2025:
	// DescribeImages, DescribeInstances and DescribeImageSharePermission answer it with an empty list. It may delete.
	Blind bool `json:"blind,omitempty"`
	// HonestDryRun has a dry run of DescribeImages refused for a Blind key. Without it, DryRun changes nothing.
	HonestDryRun bool `json:"honestDryRun,omitempty"`
}

// UnknownImage is one of the two documented answers to the deletion of an image that is not there.
type UnknownImage string

// The documentation of DeleteImage promises both of these.
const (
	UnknownNotFound UnknownImage = "NotFound" // 404 InvalidImageId.NotFound
	UnknownIgnored  UnknownImage = "Ignore"   // 200, as if it had been deleted
)

// Quota allows Limit calls in each window; windows do not slide. It is written like "200/60s".
type Quota struct {
	Limit  int
	Window Duration
}

// UnmarshalText reads a number of calls and a duration with a slash between them.
func (q *Quota) UnmarshalText(text []byte) error {
	var window string
	if _, err := fmt.Sscanf(string(text), "%d/%s", &q.Limit, &window); err != nil {
		return malformed[Quota](text)
	}
	return q.Window.UnmarshalText([]byte(window))
}

// Duration is a time.Duration that is written like "30s", or "forever".
type Duration time.Duration

// Forever outlasts every test.
const Forever Duration = math.MaxInt64

// MarshalText writes the duration as a scenario has it.
func (d Duration) MarshalText() ([]byte, error) {
	if d == Forever {
		return []byte("forever"), nil
	}
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (d *Duration) UnmarshalText(text []byte) error {
	if string(text) == "forever" {
		*d = Forever
		return nil
	}
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < 0 {
		return malformed[Duration](text)
	}
	*d = Duration(parsed)
	return nil
}

// malformed returns the one error type to which encoding/json adds the name of the field.
func malformed[T any](text []byte) error {
	return &json.UnmarshalTypeError{Value: strconv.Quote(string(text)), Type: reflect.TypeFor[T]()}
}

// ParseScenario reads a scenario from YAML or JSON, in which unknown fields are errors. New looks at the values.
func ParseScenario(data []byte) (Scenario, error) {
	var s Scenario
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return Scenario{}, fmt.Errorf("parse scenario: %w", err)
	}
	return s, nil
}

// require is an error about a field unless its value is valid.
func require(valid bool, field, want string, value any) error {
	if valid {
		return nil
	}
	return fmt.Errorf("%s: want %s, not \"%v\"", field, want, value)
}

var (
	imageID   = regexp.MustCompile(`^[A-Za-z][\w.-]{1,127}$`)
	accountID = regexp.MustCompile(`^[1-9]\d{0,17}$`)
	regions   = strings.Fields(`cn-hangzhou cn-shanghai cn-qingdao cn-beijing cn-zhangjiakou cn-huhehaote
		cn-wulanchabu cn-shenzhen cn-heyuan cn-guangzhou cn-chengdu cn-nanjing cn-fuzhou cn-wuhan-lr cn-hongkong
		ap-northeast-1 ap-northeast-2 ap-southeast-1 ap-southeast-3 ap-southeast-5 ap-southeast-6 ap-southeast-7
		us-east-1 us-west-1 na-south-1 eu-west-1 eu-central-1 me-east-1 me-central-1`)
	// statuses are all that DescribeImages knows.
	statuses = []string{creating, "Waiting", available, "UnAvailable", "CreateFailed", "Deprecated"}
)

// validate fills in the defaults of the images too.
func (s *Scenario) validate() error {
	answers := []UnknownImage{"", UnknownNotFound, UnknownIgnored}
	err := cmp.Or(
		require(len(s.AccessKeys) > 0, "accessKeys", "at least one", ""),
		require(slices.Contains(answers, s.UnknownImage), "unknownImage", "NotFound or Ignore", s.UnknownImage),
	)
	for action := range s.Quotas {
		err = cmp.Or(err, require(isAction(action), "quotas", "a known action", action))
	}
	seen := map[string]bool{}
	for _, a := range s.accounts() {
		err = cmp.Or(err, require(accountID.MatchString(a.AccountID), "accountID", "up to 18 digits", a.AccountID))
		for _, key := range a.AccessKeys {
			err = cmp.Or(err, require(!seen[key.ID], "accessKeys.id", "a different one for each key", key.ID),
				requireDeniable("accessKeys.deny", key.Deny),
				requireBlind("accessKeys.honestDryRun", key.Blind, key.HonestDryRun))
			seen[key.ID] = true
		}
	}
	for n, role := range s.Roles {
		if invalid := role.validate(s.accounts()); invalid != nil {
			err = cmp.Or(err, fmt.Errorf("roles[%d].%w", n, invalid))
		}
	}
	for n := range s.Images {
		if invalid := s.Images[n].validate(s.accounts()); invalid != nil {
			err = cmp.Or(err, fmt.Errorf("images[%d].%w", n, invalid))
		}
	}
	return err
}

func (s *Scenario) accounts() []Account {
	return slices.Insert(slices.Clone(s.Accounts), 0, Account{s.AccountID, s.AccessKeys})
}

// requireDeniable is an error about a field unless all its actions need a permission.
func requireDeniable(field string, denied []string) error {
	for _, action := range denied {
		if err := require(deniable(action), field, "a known action that needs a permission", action); err != nil {
			return err
		}
	}
	return nil
}

// requireBlind is an error about a field that changes nothing without blind.
func requireBlind(field string, blind, honest bool) error {
	return require(blind || !honest, field, "blind beside it", honest)
}
