package ecssim_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/imagegc/ecs-image-gc/internal/ecssim"
)

const (
	roleARN     = "acs:ram::2000000000000002:role/web"
	providerARN = "acs:ram::2000000000000002:oidc-provider/ack"
	assume      = "RoleArn=" + roleARN + "&RoleSessionName=gc"
	withOIDC    = assume + "&OIDCProviderArn=" + providerARN + "&OIDCToken=jwt-1"
)

// startRole has a second account with an image and a role that the first one may assume.
func startRole(t *testing.T, change ...func(*ecssim.Scenario)) simulator {
	t.Helper()
	scenario := ecssim.Scenario{
		Accounts: []ecssim.Account{
			{AccountID: "2000000000000002", AccessKeys: []ecssim.AccessKey{{ID: "other-id", Secret: "other-secret"}}},
		},
		Roles: []ecssim.Role{{
			ARN: roleARN, Trusts: []string{account}, OIDCProviderARN: providerARN, OIDCTokens: []string{"jwt-1"},
		}},
		Images: []ecssim.Image{image("m-bp1"), image("m-bp2", func(i *ecssim.Image) { i.AccountID = "2000000000000002" })},
	}
	for _, c := range change {
		c(&scenario)
	}
	return startScenario(t, scenario)
}

// anonymous makes a call with no signature and its parameters in a form.
func (s simulator) anonymous(action, query string) answer {
	s.t.Helper()
	form, err := url.ParseQuery(query)
	if err != nil {
		s.t.Fatal(err)
	}
	r := requestV1(http.MethodPost, form)
	r.URL.RawQuery = "Action=" + action + "&Version=" + version(action) + "&Format=JSON"
	return s.do(r)
}

// key is the temporary one that a call was answered with.
func (a answer) key() ecssim.AccessKey {
	return ecssim.AccessKey{
		ID: a.Credentials.AccessKeyID, Secret: a.Credentials.AccessKeySecret, SecurityToken: a.Credentials.SecurityToken,
	}
}

func TestGetCallerIdentityNamesAUserInJSONAndXML(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			got := call(start(t), "GetCallerIdentity", "RegionId=")
			if got.status != 200 || got.IdentityType != "RAMUser" || got.AccountID != account || got.UserID == "" ||
				got.UserID != got.PrincipalID || got.Arn != "acs:ram::"+account+":user/demo-id" || got.RoleID != "" ||
				!uuid.MatchString(got.RequestID) {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

func TestGetCallerIdentityNamesAnAssumedRole(t *testing.T) {
	s := startRole(t)
	assumed := s.v3("AssumeRole", assume)
	got := s.as(assumed.key(), "GetCallerIdentity", "")
	if got.IdentityType != "AssumedRoleUser" || got.AccountID != "2000000000000002" || got.UserID != "" ||
		got.Arn != "acs:ram::2000000000000002:assumed-role/web/gc" || got.Arn != assumed.AssumedRoleUser.Arn ||
		got.PrincipalID != got.RoleID+":gc" || got.PrincipalID != assumed.AssumedRoleUser.AssumedRoleID {
		t.Errorf("got %s, assumed %s", got.body, assumed.body)
	}
}

// assumptions are the ways to assume a role.
var assumptions = map[string]func(s simulator, query string) answer{
	"AssumeRole in V3":     func(s simulator, query string) answer { return s.v3("AssumeRole", query) },
	"AssumeRole in V1 XML": func(s simulator, query string) answer { return s.v1("AssumeRole", query, "XML") },
	"AssumeRoleWithOIDC": func(s simulator, query string) answer {
		return s.anonymous("AssumeRoleWithOIDC", strings.Replace(withOIDC, assume, query, 1))
	},
}

func TestATemporaryKeyActsInTheAccountOfItsRoleUntilItExpires(t *testing.T) {
	for name, do := range assumptions {
		t.Run(name, func(t *testing.T) {
			s := startRole(t)
			got := do(s, assume)
			if !strings.HasPrefix(got.Credentials.AccessKeyID, "STS.") || !uuid.MatchString(got.RequestID) ||
				!got.Credentials.Expiration.Equal(noon.Add(time.Hour)) {
				t.Fatalf("got %s", got.body)
			}
			if seen := s.as(got.key(), "DescribeImages", ""); seen.ids() != "m-bp2" || s.last().AccountID != "2000000000000002" {
				t.Errorf("sees %s", seen.body)
			}
			bare := got.key()
			bare.SecurityToken = ""
			if refused := s.as(bare, "DescribeImages", ""); refused.Code != badToken {
				t.Errorf("without its token: %+v", refused)
			}
			s.clock.Step(time.Hour - time.Second)
			if last := s.as(got.key(), "DescribeImages", ""); last.Code != "" {
				t.Errorf("in its last second: %+v", last)
			}
			s.clock.Step(time.Second)
			if late := s.as(got.key(), "DescribeImages", ""); late.status != 403 || late.Code != "InvalidSecurityToken.Expired" {
				t.Errorf("expired: %+v", late)
			}
		})
	}
}

func TestATemporaryKeyLastsAsLongAsTheCallOrTheRoleSays(t *testing.T) {
	for name, test := range map[string]struct {
		query string
		role  time.Duration
		want  time.Duration
		code  string
	}{
		"by default":            {want: time.Hour},
		"the shortest":          {query: "&DurationSeconds=900", want: 15 * time.Minute},
		"the longest":           {query: "&DurationSeconds=43200", want: 12 * time.Hour},
		"as the role says":      {query: "&DurationSeconds=900", role: time.Minute, want: time.Minute},
		"too short":             {query: "&DurationSeconds=899", code: "InvalidParameter.DurationSeconds"},
		"too long":              {query: "&DurationSeconds=43201", code: "InvalidParameter.DurationSeconds"},
		"a time in words":       {query: "&DurationSeconds=long", code: "InvalidParameter.DurationSeconds"},
		"a session of one char": {query: "&RoleSessionName=g", code: "InvalidParameter.RoleSessionName"},
	} {
		for way, do := range assumptions {
			t.Run(name+", "+way, func(t *testing.T) {
				s := startRole(t, func(c *ecssim.Scenario) { c.Roles[0].SessionDuration = ecssim.Duration(test.role) })
				query := assume + test.query
				if strings.Contains(test.query, "RoleSessionName") {
					query = "RoleArn=" + roleARN + test.query
				}
				got := do(s, query)
				if got.Code != test.code || test.code == "" && !got.Credentials.Expiration.Equal(noon.Add(test.want)) {
					t.Errorf("got %s", got.body)
				}
			})
		}
	}
}

// stsErrors are the documented errors of the assumption of a role.
var stsErrors = []struct {
	action, query string
	change        func(*ecssim.Role)
	status        int
	code          string
}{
	{"AssumeRole", "RoleSessionName=gc", nil, 400, "MissingParameter"},
	{"AssumeRole", "RoleArn=" + roleARN, nil, 400, "MissingParameter"},
	{"AssumeRole", assume + "x&RoleArn=acs:ram::1:role/none", func(r *ecssim.Role) { r.ARN += "-2" },
		404, "EntityNotExist.Role"},
	{"AssumeRole", assume, func(r *ecssim.Role) { r.Trusts = []string{"7"} }, 403, "NoPermission"},
	{"AssumeRole", assume, func(r *ecssim.Role) { r.ExternalID = "secret-handshake" }, 403, "NoPermission"},
	{"AssumeRole", assume + "&ExternalId=guess", func(r *ecssim.Role) { r.ExternalID = "secret-handshake" },
		403, "NoPermission"},
	{"AssumeRole", assume + "&ExternalId=secret-handshake", func(r *ecssim.Role) { r.ExternalID = "secret-handshake" },
		200, ""},
	{"AssumeRole", assume + "&ExternalId=any", nil, 200, ""},
	{"AssumeRoleWithOIDC", assume + "&OIDCProviderArn=" + providerARN, nil, 400, "MissingParameter"},
	{"AssumeRoleWithOIDC", withOIDC, func(r *ecssim.Role) { r.ARN += "-2" }, 404, "EntityNotExist.Role"},
	{"AssumeRoleWithOIDC", withOIDC, func(r *ecssim.Role) { r.OIDCProviderARN += "-2" },
		401, "AuthenticationFail.NoPermission"},
	{"AssumeRoleWithOIDC", withOIDC, func(r *ecssim.Role) { r.OIDCTokens = []string{"jwt-2"} },
		401, "AuthenticationFail.OIDCToken.Invalid"},
	{"AssumeRoleWithOIDC", withOIDC, func(r *ecssim.Role) { r.Trusts = nil }, 200, ""},
}

func TestEveryErrorOfTheAssumptionOfARole(t *testing.T) {
	for _, test := range stsErrors {
		t.Run(test.action+" "+test.code, func(t *testing.T) {
			s := startRole(t, func(c *ecssim.Scenario) {
				if test.change != nil {
					test.change(&c.Roles[0])
				}
			})
			call := simulator.v3
			if test.action == "AssumeRoleWithOIDC" {
				call = simulator.anonymous
			}
			got := call(s, test.action, test.query)
			if got.status != test.status || got.Code != test.code || (got.key().ID == "") != (test.code != "") {
				t.Errorf("got %d %s", got.status, got.body)
			}
			if record := s.last(); record.Code != test.code || record.RegionID != "" || record.Action != test.action {
				t.Errorf("record %+v", record)
			}
		})
	}
}

func TestAssumeRoleWithOIDCNeedsNoSignature(t *testing.T) {
	const gateway, unproven = "Action=AssumeRoleWithOIDC&Version=2015-04-01", "IncompleteSignature"
	headers := func(r *http.Request) {
		r.Header.Set("X-Acs-Action", "AssumeRoleWithOIDC")
		r.Header.Set("X-Acs-Version", "2015-04-01")
	}
	for name, test := range map[string]struct {
		query, form string
		change      func(*http.Request)
		xml         bool
		code        string
	}{
		"all in the query":         {query: gateway + "&Format=JSON&" + withOIDC},
		"all in the form":          {form: gateway + "&Format=json&" + withOIDC},
		"the action in the query":  {query: gateway + "&Format=JSON", form: withOIDC},
		"the action in headers":    {form: withOIDC, change: headers},
		"the query beside headers": {query: withOIDC, change: headers},
		"no format":                {query: gateway, form: withOIDC, xml: true},
		"an old action": {query: strings.Replace(gateway, "2015-04-01", "2014-05-26", 1),
			form: withOIDC, xml: true, code: "InvalidVersion"},
		"a key beside it":            {query: gateway + "&AccessKeyId=demo-id", form: withOIDC, xml: true, code: unproven},
		"half a signature beside it": {query: gateway + "&Signature=x", form: withOIDC, xml: true, code: unproven},
		"half an authorization":      {form: withOIDC, change: set("Authorization", schemeV3), code: unproven},
		"another action": {query: "Action=AssumeRole&Version=2015-04-01",
			form: withOIDC, xml: true, code: unproven},
		"another action in a header": {form: withOIDC, change: set("X-Acs-Action", "DeleteImage"), code: unproven},
		"another authorization": {query: gateway, form: withOIDC, xml: true, change: set("Authorization", "Bearer x"),
			code: unproven},
	} {
		t.Run(name, func(t *testing.T) {
			s := startRole(t)
			form, _ := url.ParseQuery(test.form)
			r := requestV1(http.MethodPost, form)
			r.URL.RawQuery = test.query
			if test.change != nil {
				test.change(r)
			}
			got := s.do(r)
			if got.Code != test.code || (got.XMLName.Local != "") != test.xml || (got.key().ID == "") != (test.code != "") {
				t.Errorf("got %s", got.body)
			}
			if call := s.last(); call.SignatureValid || call.AccountID != "" || call.Code != test.code {
				t.Errorf("record %+v", call)
			}
		})
	}
}

func TestTheTokensOfARoleChangeWhileTheServerRuns(t *testing.T) {
	s := startRole(t)
	err := s.Configure(func(c *ecssim.Scenario) { c.Roles[0].OIDCTokens = []string{"jwt-2"} })
	if err != nil {
		t.Fatal(err)
	}
	if got := s.anonymous("AssumeRoleWithOIDC", withOIDC); got.Code != "AuthenticationFail.OIDCToken.Invalid" {
		t.Errorf("the old token: %+v", got)
	}
	rotated := strings.Replace(withOIDC, "jwt-1", "jwt-2", 1)
	if got := s.anonymous("AssumeRoleWithOIDC", rotated); got.Code != "" {
		t.Errorf("the new token: %+v", got)
	}
	err = s.Configure(func(c *ecssim.Scenario) { c.Roles[0].OIDCTokens, c.Roles[0].ARN = nil, "web" })
	if err == nil || s.anonymous("AssumeRoleWithOIDC", rotated).Code != "" {
		t.Errorf("a bad change had an effect: %v", err)
	}
}

func TestADeniedActionIsRefusedWithTheCodeOfItsService(t *testing.T) {
	for action, want := range map[string]string{
		"DeleteImage": "Forbidden.RAM", "DescribeImages": "Forbidden.RAM", "DescribeInstances": "Forbidden.RAM",
		"DescribeImageSharePermission": "Forbidden.RAM", "AssumeRole": "NoPermission",
	} {
		t.Run(action, func(t *testing.T) {
			restricted := ecssim.AccessKey{ID: "restricted", Secret: "s", Deny: []string{action}}
			s := startRole(t, func(c *ecssim.Scenario) { c.AccessKeys = []ecssim.AccessKey{restricted} })
			got := s.as(restricted, action, assume+"&ImageId=m-bp1")
			if got.status != 403 || got.Code != want || !s.last().SignatureValid || len(s.Images()) != 2 {
				t.Errorf("got %+v", got)
			}
			if got := s.as(restricted, "GetCallerIdentity", ""); got.Code != "" {
				t.Errorf("another action: %+v", got)
			}
			if got := s.v3(action, assume+"&ImageId=m-bp1"); got.Code != "" {
				t.Errorf("another key: %+v", got)
			}
		})
	}
}

func TestWhatARoleIsDeniedHoldsForKeysThatWereHandedOutBefore(t *testing.T) {
	s := startRole(t)
	key := s.v3("AssumeRole", assume).key()
	if err := s.Configure(func(c *ecssim.Scenario) { c.Roles[0].Deny = []string{"DeleteImage"} }); err != nil {
		t.Fatal(err)
	}
	if got := s.as(key, "DeleteImage", "ImageId=m-bp2"); got.Code != "Forbidden.RAM" || len(s.Images()) != 2 {
		t.Errorf("got %+v", got)
	}
	if got := s.as(key, "DescribeImages", ""); got.ids() != "m-bp2" {
		t.Errorf("got %+v", got)
	}
}

func TestNoRecordHoldsASecret(t *testing.T) {
	s := startRole(t)
	got := s.anonymous("AssumeRoleWithOIDC", withOIDC)
	key := got.key()
	s.as(key, "DescribeImages", "")
	p := s.paramsV1("DescribeImages", "")
	p.Set("AccessKeyId", key.ID)
	p.Set("SecurityToken", key.SecurityToken)
	if got := s.do(requestV1(http.MethodGet, signV1(http.MethodGet, p, key.Secret))); got.ids() != "m-bp2" {
		t.Fatalf("got %+v", got)
	}
	if token := s.Calls()[0].Parameters["OIDCToken"]; token != "…" {
		t.Errorf("recorded is %q", token)
	}
	_, state := s.admin(http.MethodGet, "state", "")
	for _, secret := range []string{"jwt-1", key.Secret, key.SecurityToken, "demo-secret"} {
		if strings.Contains(state, secret) {
			t.Errorf("the state shows %s", secret)
		}
	}
}

func TestFaultsAndQuotasHoldForAssumeRoleWithOIDC(t *testing.T) {
	s := startRole(t, func(c *ecssim.Scenario) {
		c.Quotas = map[string]ecssim.Quota{"AssumeRoleWithOIDC": {Limit: 2, Window: ecssim.Duration(time.Minute)}}
	})
	if err := s.AddFault(ecssim.Fault{Action: "AssumeRoleWithOIDC", Code: "ServiceUnavailable"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ServiceUnavailable", "", "Throttling"} {
		got := s.anonymous("AssumeRoleWithOIDC", withOIDC+"&RegionId="+region)
		if got.Code != want || (got.key().ID == "") != (want != "") || s.last().RegionID != "" {
			t.Errorf("got %s, want %q", got.body, want)
		}
	}
}

func TestAQuotaOfSTSKnowsNoRegion(t *testing.T) {
	s := startScenario(t, ecssim.Scenario{
		Quotas: map[string]ecssim.Quota{"GetCallerIdentity": {Limit: 1, Window: ecssim.Duration(time.Minute)}},
	})
	s.v3("GetCallerIdentity", "RegionId=cn-hangzhou")
	if got := s.v3("GetCallerIdentity", "RegionId=cn-shanghai"); got.Code != "Throttling" {
		t.Errorf("got %+v", got)
	}
}
