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

// metadataService tells an ECS instance about itself, and hands out the keys of its role.
var metadataService = "http://100.100.100.200"

// fromInstance uses the RAM role of the ECS instance that the operator runs on. All pods on that node can use it, so
// it is never chosen by "auto".
func fromInstance(service string, clk clock.PassiveClock) Identity {
	m := metadata{service: service, client: &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}, // a proxy would answer for its own node
		// Following a redirect would send the token to an unknown server, and take a key from it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r := &renewed{clock: clk, renew: m.key}
	return func(ctx context.Context) (openapi.Credentials, error) {
		credentials, err := r.credentials(ctx)
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
	_ = json.Unmarshal([]byte(text), &answer) // a field that is not set is missing
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
		return "", refuse(failure.CodeNoAnswer, "The metadata service of the ECS instance closed the connection.")
	case response.StatusCode == http.StatusNotFound:
		return "", refuse(v1alpha1.ReasonNoCredentials, "The operator's ECS instance has no RAM role.")
	case response.StatusCode != http.StatusOK:
		return "", refuse(failure.CodeUnusableAnswer, "The metadata service of the ECS instance answered HTTP %d.",
			response.StatusCode)
	}
	return string(body), nil
}
