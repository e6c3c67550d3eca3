package ecssim

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"
)

// Scenario is what the simulated cloud looks like at the start. At least one access key is required.
type Scenario struct {
	// AccountID is the first account, AccessKeys are its keys; Accounts are further ones, or all.
	AccountID  string      `json:"accountID,omitempty"`
	AccessKeys []AccessKey `json:"accessKeys,omitempty"`
	Accounts   []Account   `json:"accounts,omitempty"`
	// Latency passes, in real time, between the effect of a call and its answer.
	Latency Duration `json:"latency,omitempty"`
	// Quotas are by action. An action without one is not limited.
	Quotas map[string]Quota `json:"quotas,omitempty"`
	// UnknownImage is how DeleteImage answers for an image that is not there; UnknownNotFound by default.
	UnknownImage UnknownImage `json:"unknownImage,omitempty"`
	// DeletionDelay is how long DescribeImages still shows a deleted image.
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
}

// UnknownImage is one of the two documented answers to the deletion of an image that is not there.
type UnknownImage string

// The documentation of DeleteImage promises both of these.
const (
	UnknownNotFound UnknownImage = "NotFound" // 404 InvalidImageId.NotFound
	UnknownIgnored  UnknownImage = "Ignore"   // 200, as if it had been deleted
)

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

// UnmarshalText reads a duration of zero or more.
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

// ParseScenario reads a scenario from YAML or JSON. Unknown fields are errors, and errors name the field.
func ParseScenario(data []byte) (Scenario, error) {
	var s Scenario
	err := decode(data, &s)
	if err == nil {
		_, err = s.validate()
	}
	if err != nil {
		return Scenario{}, fmt.Errorf("parse scenario: %w", err)
	}
	return s, nil
}

func decode(data []byte, into any) error {
	err := yaml.UnmarshalStrict(data, into)
	if notTime := (*time.ParseError)(nil); errors.As(err, &notTime) {
		return fmt.Errorf("creationTime: %w", err) // encoding/json names no field here, and there is no other time
	}
	return err
}

// credential is a key and the account that it opens.
type credential struct {
	AccessKey
	accountID string
}

var accountID = regexp.MustCompile(`^[1-9]\d{0,17}$`)

func (s *Scenario) accounts() []Account {
	if s.AccountID == "" && len(s.AccessKeys) == 0 {
		return s.Accounts
	}
	return slices.Insert(slices.Clone(s.Accounts), 0, Account{s.AccountID, s.AccessKeys})
}

func (s *Scenario) credentials() (map[string]credential, error) {
	keys := map[string]credential{}
	for _, account := range s.accounts() {
		if !accountID.MatchString(account.AccountID) {
			return nil, fmt.Errorf("accountID: %q is no number of up to 18 digits", account.AccountID)
		}
		for i, key := range account.AccessKeys {
			if _, taken := keys[key.ID]; taken || key.ID == "" || key.Secret == "" {
				return nil, fmt.Errorf("accessKeys[%d] of %s: want an id of its own and a secret", i, account.AccountID)
			}
			keys[key.ID] = credential{key, account.AccountID}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("accessKeys: at least one is required")
	}
	return keys, nil
}

// validate returns the credentials, and fills in the defaults of the images.
func (s *Scenario) validate() (map[string]credential, error) {
	for action, quota := range s.Quotas {
		if _, known := actions[action]; !known || quota.Window <= 0 {
			return nil, fmt.Errorf("quotas.%s: want a known action and a window longer than zero", action)
		}
	}
	if !slices.Contains([]UnknownImage{"", UnknownNotFound, UnknownIgnored}, s.UnknownImage) {
		return nil, fmt.Errorf("unknownImage: %q is neither NotFound nor Ignore", s.UnknownImage)
	}
	keys, err := s.credentials()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range s.Images {
		image := &s.Images[i]
		if err := image.validate(s.accounts()); err != nil {
			return nil, fmt.Errorf("images[%d].%w", i, err)
		}
		if seen[image.ImageID] {
			return nil, fmt.Errorf("images[%d].imageID: %q is used twice", i, image.ImageID)
		}
		seen[image.ImageID] = true
	}
	return keys, nil
}
