package openapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const algorithm = "ACS3-HMAC-SHA256"

// Credentials are an access key, with a token if it is a temporary one.
type Credentials struct {
	AccessKeyID     string `json:"-"`
	AccessKeySecret string `json:"-"`
	SecurityToken   string `json:"-"`

	// AccountID is the account that the key belongs to; empty if it is not known.
	AccountID string
	// Origin says in words where the key came from, such as "Secret alibaba-cloud".
	Origin string
}

// String hides the key, so that no log or error shows it by accident.
func (Credentials) String() string { return "[access key]" }

// GoString hides the key from %#v.
func (c Credentials) GoString() string { return c.String() }

// Sign adds a V3 signature (ACS3-HMAC-SHA256) to a request whose query is already in canonical form and whose
// body is given. What it signs are the host, the content type and every x-acs-* header that the request has.
func Sign(request *http.Request, body []byte, credentials Credentials) {
	hash := hexHash(body)
	request.Header.Set("X-Acs-Content-Sha256", hash)
	if credentials.SecurityToken != "" {
		request.Header.Set("X-Acs-Security-Token", credentials.SecurityToken)
	}
	names, headers := canonicalHeaders(request)
	canonical := strings.Join([]string{
		request.Method, "/", canonicalQuery(request.URL.Query()), headers, names, hash,
	}, "\n")
	mac := hmac.New(sha256.New, []byte(credentials.AccessKeySecret))
	mac.Write([]byte(algorithm + "\n" + hexHash([]byte(canonical))))
	request.Header.Set("Authorization", algorithm+" Credential="+credentials.AccessKeyID+
		",SignedHeaders="+names+",Signature="+hex.EncodeToString(mac.Sum(nil)))
}

// canonicalHeaders returns the names of the headers to sign, and a line for each of them.
func canonicalHeaders(request *http.Request) (names, lines string) {
	host := request.Host
	if host == "" {
		host = request.URL.Host
	}
	values := map[string]string{"host": host}
	for name, value := range request.Header {
		name = strings.ToLower(name)
		if name == "content-type" || strings.HasPrefix(name, "x-acs-") {
			values[name] = strings.TrimSpace(strings.Join(value, ","))
		}
	}
	sorted := make([]string, 0, len(values))
	for name := range values {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	var b strings.Builder
	for _, name := range sorted {
		b.WriteString(name + ":" + values[name] + "\n")
	}
	return strings.Join(sorted, ";"), b.String()
}

// canonicalQuery sorts and encodes parameters as RFC 3986 has it, where url.Values writes a space as "+".
func canonicalQuery(query url.Values) string {
	return strings.ReplaceAll(query.Encode(), "+", "%20")
}

func hexHash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
