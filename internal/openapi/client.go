// Package openapi makes calls to Alibaba Cloud's OpenAPI in its RPC style: it finds the endpoint, signs,
// sends one attempt within a time limit, and tells a success from everything else. It knows the gateway in front of
// every product, and no product: its callers know the operations and what their errors mean. It never repeats a call.
package openapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// maxBody bounds what is read of an answer, in bytes: a page of 100 images is below 1 MiB.
const maxBody = 16 << 20

// Call is one request to an operation.
type Call struct {
	Product string // as in the host name: ecs
	Version string // of the product's API: 2014-05-26
	Action  string // DeleteImage
	Region  string // the region whose endpoint is called
	// Central says that outside of virtual private clouds the product has one endpoint for all regions.
	Central bool
	Query   url.Values
	// Secret holds parameters that go into the body, since URLs end up in logs.
	Secret url.Values
	// Credentials is the key to sign with.
	Credentials Credentials
	// Unsigned sends the call without a signature: it proves in another way who makes it.
	Unsigned bool
	// Caller names who makes the call. A caller that has to wait for a quota keeps its turn.
	Caller string
}

// Observer is told of each call that was sent: the action, the error code ("" for a success), and how long
// the answer took.
type Observer func(action, code string, took time.Duration)

// Config is what a Client needs.
type Config struct {
	Endpoints Endpoints
	// Timeout is how long one call may take. Below 40 s a slow DeleteImage would look like a failure.
	Timeout time.Duration
	// Connections is how many connections to one endpoint there may be; further callers wait. As many as there
	// are concurrent callers is right: all are kept, and none is opened in vain.
	Connections int
	// UserAgent names this program and its version to Alibaba Cloud.
	UserAgent string
	// Observe may be nil.
	Observe Observer
	Clock   clock.PassiveClock
}

// Client makes calls. It is safe for concurrent use, and meant to be shared: it keeps connections, and it
// knows which quotas are used up.
type Client struct {
	config Config
	http   *http.Client
	gate   gate
}

// New returns a client that has made no call yet.
func New(config Config) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 0 // no limit over all endpoints together
	transport.MaxIdleConnsPerHost = config.Connections
	transport.MaxConnsPerHost = config.Connections
	// With HTTP/2 all calls would share one connection, and all would fail if it broke without notice.
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return &Client{
		config: config,
		http: &http.Client{
			Transport: transport,
			// A redirect is not an answer: following it would send a signed request to an unknown server.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Do makes one call and decodes a success into out, a pointer to a struct with json and xml tags, or nil.
// It returns the RequestId of a success. Every failure of the call, a broken connection and a quota known to
// be used up included, is a *failure.Error.
func (c *Client) Do(ctx context.Context, call Call, out any) (string, error) {
	started := c.config.Clock.Now()
	if refusal := c.gate.take(call.quota(), call.Caller, false, started); refusal != nil {
		return "", about(call, refusal)
	}
	requestID, limits, err := c.attempt(ctx, call, out)
	ended := c.config.Clock.Now()
	if c.config.Observe != nil {
		c.config.Observe(call.Action, failure.CodeOf(err), ended.Sub(started))
	}
	e := (*failure.Error)(nil)
	failed := errors.As(err, &e)
	switch {
	case failed && isThrottle(e.Code):
		if e.Wait <= 0 { // quotas are counted over fixed windows, most of them of a minute
			e.Wait = ended.Truncate(time.Minute).Add(time.Minute).Sub(ended)
		}
		c.gate.learn(call.quota(), started, ended, limits, e)
	case !failed || e.HTTPStatus != 0:
		c.gate.learn(call.quota(), started, ended, limits, nil)
	}
	if failed {
		return "", about(call, e)
	}
	return requestID, err
}

// Reserve reports whether the call could be sent now. If it has to wait for a quota, the *failure.Error says how long,
// and the caller of the call has its turn then. It sends nothing, and needs no access key if the account is known.
func (c *Client) Reserve(call Call) error {
	if refusal := c.gate.take(call.quota(), call.Caller, true, c.config.Clock.Now()); refusal != nil {
		return about(call, refusal)
	}
	return nil
}

// Waiting counts the callers that wait for their turn.
func (c *Client) Waiting() int { return c.gate.waiting() }

func (c Call) quota() quota {
	return quota{cmp.Or(c.Credentials.AccountID, c.Credentials.AccessKeyID), c.Region, c.Product, c.Action}
}

// about adds to an error what it is about.
func about(call Call, e *failure.Error) *failure.Error {
	e.Action, e.Origin = call.Product+":"+call.Action, call.Credentials.Origin
	return e
}

func (c *Client) attempt(ctx context.Context, call Call, out any) (string, rateLimit, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	request, err := c.request(ctx, call)
	if err != nil {
		return "", rateLimit{}, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return "", rateLimit{}, c.connectionError(err, call)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return "", rateLimit{}, c.connectionError(err, call)
	}
	requestID, err := decode(response, body, call, out)
	return requestID, rateLimitOf(response.Header), err
}

// request builds a POST. When a kept connection breaks, net/http sends a GET again without notice, and the
// answer is the one to the second request.
func (c *Client) request(ctx context.Context, call Call) (*http.Request, error) {
	query, body := call.Query, []byte(call.Secret.Encode())
	if call.Unsigned {
		query = c.unsignedQuery(call)
	}
	target, _ := c.config.Endpoints.url(call)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target+"/?"+canonicalQuery(query), bytes.NewReader(body))
	if err != nil {
		// The text of a url.Error holds the query, in which nothing is secret.
		return nil, fmt.Errorf("build %s request: %w", call.Action, err)
	}
	request.Header.Set("User-Agent", c.config.UserAgent)
	request.Header.Set("Accept", "application/json")
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if call.Unsigned {
		return request, nil
	}
	request.Header.Set("X-Acs-Action", call.Action)
	request.Header.Set("X-Acs-Version", call.Version)
	request.Header.Set("X-Acs-Date", c.now())
	request.Header.Set("X-Acs-Signature-Nonce", nonce())
	Sign(request, body, call.Credentials)
	return request, nil
}

// unsignedQuery adds what a signed call has in its headers.
func (c *Client) unsignedQuery(call Call) url.Values {
	query := maps.Clone(call.Query)
	query.Set("Action", call.Action)
	query.Set("Version", call.Version)
	query.Set("Format", "JSON")
	query.Set("Timestamp", c.now())
	query.Set("SignatureNonce", nonce())
	return query
}

func (c *Client) now() string { return c.config.Clock.Now().UTC().Format("2006-01-02T15:04:05Z") }

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// connectionError keeps of a failed exchange what is the same for the same failure: the texts of net/http hold port
// numbers, and a status that repeats them would change each time.
func (c *Client) connectionError(err error, call Call) error {
	e := &failure.Error{Code: failure.CodeNoAnswer, Cause: err}
	var dns *net.DNSError
	var certificate x509.CertificateInvalidError // its text tells the time
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Message = fmt.Sprintf("No answer within %s.", c.config.Timeout)
	case errors.As(err, &dns):
		e.Message = fmt.Sprintf("The host name %s does not resolve.", dns.Name)
		if c.isMissingEndpoint(dns, call) {
			e.Code = failure.CodeEndpointNotFound
		}
	case errors.As(err, &certificate):
		e.Message = "The server's certificate has expired or is not valid."
	default:
		e.Message = fmt.Sprintf("The connection failed: %s.", leafOf(err))
	}
	return e
}

// isMissingEndpoint reports whether there is no host of the name that was made from the region of a call. A name
// that cannot be looked up, and that of a proxy, say nothing about the region.
func (c *Client) isMissingEndpoint(dns *net.DNSError, call Call) bool {
	target, regional := c.config.Endpoints.url(call)
	return regional && dns.IsNotFound && target == "https://"+strings.TrimSuffix(dns.Name, ".")
}

func leafOf(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}
