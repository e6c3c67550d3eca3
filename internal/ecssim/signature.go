package ecssim

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// clockWindow is how far the time in a call may be from the server's, either way.
const clockWindow = 15 * time.Minute

// proof is what a call gives to show who made it, whatever the version of its signature.
type proof struct {
	keyID, token, nonce, date, toSign, signature string
	sign                                         func(secret string) string
}

// authenticate finds out whose call it is, but for the one action that proves it otherwise. The order in which the
// real gateway looks at a call with several faults is not documented; only a call with a valid signature uses up its
// nonce here.
func (s *Server) authenticate(q *request) *failure {
	if q.unsigned {
		return nil
	}
	p := q.proof
	if p.keyID == "" || p.nonce == "" || p.date == "" || p.signature == "" {
		return fail("IncompleteSignature")
	}
	q.AccessKeyID = p.keyID
	caller, found := s.identify(p.keyID)
	switch {
	case !found:
		return fail("InvalidAccessKeyId.NotFound")
	case caller.Inactive:
		return fail("InvalidAccessKeyId.Inactive")
	case p.token != caller.SecurityToken:
		return fail("InvalidSecurityToken.MismatchWithAccessKey")
	case caller.expired(q.Time):
		return fail("InvalidSecurityToken.Expired")
	case p.signature != p.sign(caller.Secret):
		return fail("SignatureDoesNotMatch", p.toSign)
	}
	q.SignatureValid, q.AccountID, q.caller = true, caller.accountID, caller
	return s.refuseReplay(q)
}

// refuseReplay lets a call in that was signed just now and not made before.
func (s *Server) refuseReplay(q *request) *failure {
	signed, err := time.Parse("2006-01-02T15:04:05Z", q.proof.date)
	nonce := q.AccessKeyID + " " + q.proof.nonce
	switch {
	case err != nil || q.Time.Sub(signed).Abs() > clockWindow:
		return fail("InvalidTimeStamp.Expired")
	case s.nonces[nonce]:
		return fail("SignatureNonceUsed")
	}
	s.nonces[nonce] = true
	return nil
}

// proofV1 reads a signature that is one of the parameters, and covers all others in query and form alike.
func (q *request) proofV1() proof {
	get := q.http.Form.Get
	if get("SignatureMethod") != "HMAC-SHA1" || get("SignatureVersion") != "1.0" {
		return proof{}
	}
	signed := maps.Clone(q.http.Form)
	signed.Del("Signature")
	toSign := q.Method + "&%2F&" + url.QueryEscape(canonicalQuery(signed))
	return proof{
		keyID: get("AccessKeyId"), token: get("SecurityToken"), nonce: get("SignatureNonce"),
		date: get("Timestamp"), signature: get("Signature"), toSign: toSign,
		sign: func(secret string) string {
			return base64.StdEncoding.EncodeToString(digest(hmac.New(sha1.New, []byte(secret+"&")), toSign))
		},
	}
}

const schemeV3 = "ACS3-HMAC-SHA256"

var (
	authorizationV3 = regexp.MustCompile(
		`^` + schemeV3 + ` +Credential=([^,]+), *SignedHeaders=([^,]+), *Signature=([0-9a-f]+)$`)
	mustBeSigned = strings.Fields(
		"host x-acs-action x-acs-content-sha256 x-acs-date x-acs-signature-nonce x-acs-version")
)

// proofV3 reads a signature that is in the Authorization header, and covers the query, the hash of the body
// and the headers that it names: clients sign whatever x-acs-* headers they send.
func (q *request) proofV3() proof {
	header := q.http.Header.Clone()
	header.Set("Host", q.http.Host) // which net/http keeps elsewhere
	parts := authorizationV3.FindStringSubmatch(header.Get("Authorization"))
	if parts == nil {
		return proof{}
	}
	names := strings.Split(parts[2], ";")
	if slices.ContainsFunc(mustBeSigned, func(name string) bool { return !slices.Contains(names, name) }) {
		return proof{}
	}
	canonical := q.Method + "\n/\n" + canonicalQuery(q.http.URL.Query()) + "\n"
	for _, name := range names {
		canonical += name + ":" + strings.TrimSpace(header.Get(name)) + "\n"
	}
	canonical += fmt.Sprintf("\n%s\n%x", parts[2], digest(sha256.New(), q.body))
	toSign := fmt.Sprintf("%s\n%x", schemeV3, digest(sha256.New(), canonical))
	return proof{
		keyID: parts[1], token: header.Get("X-Acs-Security-Token"), nonce: header.Get("X-Acs-Signature-Nonce"),
		date: header.Get("X-Acs-Date"), signature: parts[3], toSign: toSign,
		sign: func(secret string) string {
			return fmt.Sprintf("%x", digest(hmac.New(sha256.New, []byte(secret)), toSign))
		},
	}
}

// canonicalQuery corrects the only thing that net/url encodes differently from RFC 3986: the space.
func canonicalQuery(params url.Values) string { return strings.ReplaceAll(params.Encode(), "+", "%20") }

func digest(h hash.Hash, text string) []byte {
	h.Write([]byte(text))
	return h.Sum(nil)
}
