package ecssim

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"maps"
	"net/http"
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
	keyID, token, nonce, timestamp string
	toSign                         string
	signature                      []byte
	algorithm                      func() hash.Hash
	secretSuffix                   string
}

// authenticate finds out whose call it is. The order in which the real gateway looks at a call with several
// faults is not documented; only a call with a valid signature uses up its nonce here.
func (s *Server) authenticate(q *request) *failure {
	p := q.proof()
	if p == nil || p.nonce == "" || p.timestamp == "" {
		return fail("IncompleteSignature")
	}
	q.AccessKeyID = p.keyID
	key, known := s.keys[p.keyID]
	mac := hmac.New(p.algorithm, []byte(key.Secret+p.secretSuffix))
	mac.Write([]byte(p.toSign))
	switch {
	case !known:
		return fail("InvalidAccessKeyId.NotFound")
	case key.Inactive:
		return fail("InvalidAccessKeyId.Inactive")
	case p.token != key.SecurityToken:
		return fail("InvalidSecurityToken.MismatchWithAccessKey")
	case !hmac.Equal(mac.Sum(nil), p.signature):
		return fail("SignatureDoesNotMatch", p.toSign)
	}
	q.SignatureValid, q.AccountID = true, key.accountID
	return s.fresh(q, p)
}

// fresh holds for a call of these minutes that was not made before. Nonces are kept for as long as the calls.
func (s *Server) fresh(q *request, p *proof) *failure {
	signed, err := time.Parse("2006-01-02T15:04:05Z", p.timestamp)
	nonce := p.keyID + " " + p.nonce
	switch {
	case err != nil:
		return fail("InvalidTimeStamp.Format")
	case q.Time.Sub(signed).Abs() > clockWindow:
		return fail("InvalidTimeStamp.Expired")
	case s.nonces[nonce]:
		return fail("SignatureNonceUsed")
	}
	s.nonces[nonce] = true
	return nil
}

func (q *request) proof() *proof {
	if q.v3 {
		return q.proofV3()
	}
	return q.proofV1()
}

// proofV1 reads a signature that is one of the parameters, and covers all others in query and form alike.
func (q *request) proofV1() *proof {
	get := q.params.Get
	signature, err := base64.StdEncoding.DecodeString(get("Signature"))
	style := get("SignatureMethod") + " " + get("SignatureVersion")
	if err != nil || len(signature) == 0 || style != "HMAC-SHA1 1.0" {
		return nil
	}
	return &proof{
		keyID: get("AccessKeyId"), token: get("SecurityToken"),
		nonce: get("SignatureNonce"), timestamp: get("Timestamp"),
		toSign:    q.Method + "&%2F&" + escape(canonicalQuery(q.params, "Signature")),
		signature: signature, algorithm: sha1.New, secretSuffix: "&",
	}
}

const schemeV3 = "ACS3-HMAC-SHA256"

var (
	authorizationV3 = regexp.MustCompile(
		`^` + schemeV3 + ` +Credential=([^,]+), *SignedHeaders=([^,]+), *Signature=((?:[0-9a-f]{2})+)$`)
	mustBeSigned = strings.Fields(
		"host x-acs-action x-acs-content-sha256 x-acs-date x-acs-signature-nonce x-acs-version")
)

// proofV3 reads a signature that is in the Authorization header, and covers the query, the hash of the body
// and the headers that it names: clients sign whatever x-acs-* headers they send.
func (q *request) proofV3() *proof {
	parts := authorizationV3.FindStringSubmatch(q.http.Header.Get("Authorization"))
	if parts == nil {
		return nil
	}
	signed := strings.Split(parts[2], ";")
	if slices.ContainsFunc(mustBeSigned, func(name string) bool { return !slices.Contains(signed, name) }) {
		return nil
	}
	signature, _ := hex.DecodeString(parts[3]) // the pattern lets nothing else through
	h := q.http.Header
	if h.Get("X-Acs-Content-Sha256") != hexSHA256(q.body) {
		signature = nil // whatever it proves, it is not this body
	}
	return &proof{
		keyID: parts[1], token: h.Get("X-Acs-Security-Token"),
		nonce: h.Get("X-Acs-Signature-Nonce"), timestamp: h.Get("X-Acs-Date"),
		toSign:    schemeV3 + "\n" + hexSHA256([]byte(q.canonicalV3(signed))),
		signature: signature, algorithm: sha256.New,
	}
}

func (q *request) canonicalV3(signed []string) string {
	lines := []string{q.Method, cmp.Or(q.http.URL.EscapedPath(), "/"), canonicalQuery(q.http.URL.Query(), "")}
	for _, name := range signed {
		values := q.http.Header[http.CanonicalHeaderKey(name)]
		if name == "host" {
			values = []string{q.http.Host}
		}
		lines = append(lines, name+":"+strings.TrimSpace(strings.Join(values, ",")))
	}
	lines = append(lines, "", strings.Join(signed, ";"), q.http.Header.Get("X-Acs-Content-Sha256"))
	return strings.Join(lines, "\n")
}

// canonicalQuery is the parameters in order, percent-encoded as RFC 3986 has it, without one of them.
func canonicalQuery(params url.Values, without string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(params)) {
		for _, value := range params[key] {
			if key != without {
				pairs = append(pairs, escape(key)+"="+escape(value))
			}
		}
	}
	return strings.Join(pairs, "&")
}

// escape differs from url.QueryEscape in the space alone, which that writes as a plus sign.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
