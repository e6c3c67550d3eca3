package credentials

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/utils/clock"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/openapi"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
)

// metadataService is where an ECS instance learns about itself, its role's keys included.
var metadataService = "http://100.100.100.200"

// fromInstance uses the RAM role of the ECS instance that the operator runs on. All pods on that node can do so;
// that is why it is used only when asked for.
func fromInstance(service string, clk clock.PassiveClock) Identity {
	m := metadata{service: service, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}, // a proxy would answer for its own node
		// Following a redirect would hand the token on, and take a key from who knows whom.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r := &renewed{clock: clk, renew: func(ctx context.Context, _ string) (temporary, error) { return m.key(ctx) }}
	return func(ctx context.Context, regionID string) (openapi.Credentials, error) {
		credentials, err := r.credentials(ctx, regionID)
		credentials.Origin = "the RAM role of the operator's ECS instance"
		return credentials, err
	}
}

type metadata struct {
	service string
	client  *http.Client
}

// key asks for the role's name and then for its key, in the hardened mode of the service, in which a request has to
// carry a token.
func (m metadata) key(ctx context.Context) (temporary, error) {
	const roles = "/latest/meta-data/ram/security-credentials/"
	token, err := m.ask(ctx, http.MethodPut, "/latest/api/token", "X-Aliyun-Ecs-Metadata-Token-Ttl-Seconds", "60")
	if err != nil {
		return temporary{}, err
	}
	name, err := m.ask(ctx, http.MethodGet, roles, "X-Aliyun-Ecs-Metadata-Token", token)
	if err != nil {
		return temporary{}, err
	}
	text, err := m.ask(ctx, http.MethodGet, roles+strings.TrimSpace(name), "X-Aliyun-Ecs-Metadata-Token", token)
	if err != nil {
		return temporary{}, err
	}
	var answer issued
	_ = json.Unmarshal([]byte(text), &answer) // what is not there after it is missing
	return answer.temporary("The metadata service of the ECS instance")
}

// ask makes one request. Its errors hold nothing of the answer, which may be a key.
func (m metadata) ask(ctx context.Context, method, path, header, value string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, m.service+path, http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set(header, value)
	response, err := m.client.Do(request)
	if err != nil {
		return "", refuse(failure.CodeNoAnswer, "The metadata service of the ECS instance does not answer.")
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	switch {
	case err != nil:
		return "", refuse(failure.CodeNoAnswer, "The metadata service of the ECS instance broke off its answer.")
	case response.StatusCode == http.StatusNotFound:
		return "", refuse(v1alpha1.ReasonNoCredentials, "The operator's ECS instance has no RAM role.")
	case response.StatusCode != http.StatusOK:
		return "", refuse(failure.CodeUnusableAnswer, "The metadata service of the ECS instance answered HTTP %d.",
			response.StatusCode)
	}
	return string(body), nil
}
