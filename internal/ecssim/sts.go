package ecssim

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"time"
)

// Role is assumed with a key of an account that it trusts, or with a token of its OIDC provider.
type Role struct {
	// ARN is like acs:ram::1234567890123456:role/web, in which the account is one of the scenario.
	ARN string `json:"arn"`
	// Trusts are accounts, any key of which may assume the role.
	Trusts []string `json:"trusts,omitempty"`
	// ExternalID has to come with AssumeRole, if there is one.
	ExternalID      string   `json:"externalID,omitempty"`
	OIDCProviderARN string   `json:"oidcProviderARN,omitempty"`
	OIDCTokens      []string `json:"oidcTokens,omitempty"`
	// Deny, Blind and HonestDryRun are those of an AccessKey, for all keys of the role.
	Deny         []string `json:"deny,omitempty"`
	Blind        bool     `json:"blind,omitempty"`
	HonestDryRun bool     `json:"honestDryRun,omitempty"`
	// SessionDuration is how long a temporary key lasts, whatever its call asks for, and may be shorter than STS
	// has it.
	SessionDuration Duration `json:"sessionDuration,omitempty"`
}

const withOIDC = "AssumeRoleWithOIDC" // the one action that may be unsigned

var roleARN = regexp.MustCompile(`^acs:ram::(\d+):role/([\w.-]{1,64})$`)

func (r Role) validate(accounts []Account) error {
	parts := append(roleARN.FindStringSubmatch(r.ARN), "", "")
	owned := slices.ContainsFunc(accounts, func(a Account) bool { return a.AccountID == parts[1] })
	err := cmp.Or(
		require(owned, "arn", "acs:ram::ACCOUNT:role/NAME with an account of the scenario", r.ARN),
		require(r.OIDCProviderARN != "" || len(r.OIDCTokens) == 0, "oidcProviderARN", "one for the tokens", ""),
		requireDeniable("deny", r.Deny),
		requireBlind("honestDryRun", r.Blind, r.HonestDryRun),
	)
	for _, id := range r.Trusts {
		err = cmp.Or(err, require(accountID.MatchString(id), "trusts", "up to 18 digits", id))
	}
	return err
}

// role returns the role of that ARN.
func (s *Scenario) role(arn string) (Role, bool) {
	n := slices.IndexFunc(s.Roles, func(r Role) bool { return r.ARN == arn })
	if n < 0 {
		return Role{}, false
	}
	return s.Roles[n], true
}

// identity is the user or the role behind a key.
type identity struct {
	AccessKey
	accountID, arn string
	userID         string // of a RAM user
	roleID, role   string // of a role that was assumed, and its ARN
	session        string
	expiration     time.Time
}

func (i identity) expired(now time.Time) bool { return i.role != "" && !now.Before(i.expiration) }

// identify finds the caller by its key.
func (s *Server) identify(keyID string) (identity, bool) {
	if assumed, found := s.sessions[keyID]; found {
		role, _ := s.settings.role(assumed.role)
		assumed.Deny, assumed.Blind, assumed.HonestDryRun = role.Deny, role.Blind, role.HonestDryRun
		return assumed, true
	}
	for _, account := range s.settings.accounts() {
		for _, key := range account.AccessKeys {
			if key.ID == keyID {
				arn := fmt.Sprintf("acs:ram::%s:user/%s", account.AccountID, key.ID)
				return identity{AccessKey: key, accountID: account.AccountID, arn: arn, userID: entityID(arn)}, true
			}
		}
	}
	return identity{}, false
}

// entityID is the number of a user or a role.
func entityID(arn string) string { return fmt.Sprintf("3%017d", crc32.ChecksumIEEE([]byte(arn))) }

// authorize refuses what the caller is denied; STS has a code of its own for it.
func (s *Server) authorize(q *request) *failure {
	honest := q.dryRun() && q.caller.Blind && q.caller.HonestDryRun
	if !honest && !slices.Contains(q.caller.Deny, q.Action) {
		return nil
	}
	return fail(pick(q.version == stsVersion, "NoPermission", "Forbidden.RAM"))
}

func (s *Server) getCallerIdentity(q *request) *failure {
	c := q.caller
	q.answer = object{"AccountId": c.accountID, "Arn": c.arn}
	if c.role == "" {
		q.answer["IdentityType"], q.answer["PrincipalId"], q.answer["UserId"] = "RAMUser", c.userID, c.userID
		return nil
	}
	q.answer["IdentityType"], q.answer["PrincipalId"] = "AssumedRoleUser", c.roleID+":"+c.session
	q.answer["RoleId"] = c.roleID
	return nil
}

func (s *Server) assumeRole(q *request) *failure {
	role, found := s.settings.role(q.Parameters["RoleArn"])
	switch {
	case !found:
		return fail("EntityNotExist.Role")
	case !slices.Contains(role.Trusts, q.AccountID),
		role.ExternalID != "" && role.ExternalID != q.Parameters["ExternalId"]:
		return fail("NoPermission")
	}
	return s.startSession(q, role)
}

func (s *Server) assumeRoleWithOIDC(q *request) *failure {
	role, found := s.settings.role(q.Parameters["RoleArn"])
	switch {
	case !found:
		return fail("EntityNotExist.Role")
	case role.OIDCProviderARN != q.Parameters["OIDCProviderArn"]:
		return fail("AuthenticationFail.NoPermission")
	case !slices.Contains(role.OIDCTokens, q.http.Form.Get("OIDCToken")):
		return fail("AuthenticationFail.OIDCToken.Invalid")
	}
	return s.startSession(q, role)
}

// startSession hands out a temporary key of the role. Its token has the characters that need encoding.
func (s *Server) startSession(q *request, role Role) *failure {
	seconds, session := q.number("DurationSeconds", 3600), q.Parameters["RoleSessionName"]
	if seconds < 900 || seconds > 43200 {
		return fail("InvalidParameter.DurationSeconds")
	}
	lasts := cmp.Or(time.Duration(role.SessionDuration), time.Duration(seconds)*time.Second)
	parts := roleARN.FindStringSubmatch(role.ARN)
	key := AccessKey{ID: "STS." + rand.Text(), Secret: rand.Text(), SecurityToken: "CAIS+/" + rand.Text() + "=="}
	assumed := identity{
		AccessKey: key, accountID: parts[1], session: session, role: role.ARN, roleID: entityID(role.ARN),
		arn:        fmt.Sprintf("acs:ram::%s:assumed-role/%s/%s", parts[1], parts[2], session),
		expiration: q.Time.Add(lasts).UTC().Truncate(time.Second),
	}
	s.sessions[key.ID] = assumed
	q.answer = object{
		"Credentials": object{
			"AccessKeyId": key.ID, "AccessKeySecret": key.Secret, "SecurityToken": key.SecurityToken,
			"Expiration": assumed.expiration.Format(time.RFC3339),
		},
		"AssumedRoleUser": object{"Arn": assumed.arn, "AssumedRoleId": assumed.roleID + ":" + session},
	}
	return nil
}
