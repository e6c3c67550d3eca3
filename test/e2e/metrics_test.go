//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

const metrics = namespace + "/" + cluster.Name + "-metrics"

func metricsSpecs() {
	BeforeAll(func(ctx SpecContext) {
		for _, account := range []string{"prometheus", "stranger"} {
			kubectl(ctx, "create", "serviceaccount", account)
		}
		kubectl(ctx, "create", "clusterrolebinding", "prometheus", "--clusterrole=imagegc-metrics-reader",
			"--serviceaccount=default:prometheus")
	})

	It("shows them to who is bound to imagegc-metrics-reader", func(ctx SpecContext) {
		token := kubectl(ctx, "create", "token", "prometheus")
		Eventually(scrape).WithArguments(ctx, token).Should(And(HavePrefix("200 "), ContainSubstring("imagegc_images_deleted_total")))
	})

	It("does not show them to others: 403", func(ctx SpecContext) {
		Expect(scrape(ctx, kubectl(ctx, "create", "token", "stranger"))).To(HavePrefix("403 "))
	})

	It("does not show them to strangers to the cluster: 401", func(ctx SpecContext) {
		Expect(scrape(ctx, "")).To(HavePrefix("401 "))
		// The library answers 500 to a token that the API server refuses.
		Expect(scrape(ctx, "no.such.token")).To(Or(HavePrefix("401 "), HavePrefix("500 ")))
	})
}

// scrape asks the Service for the metrics, and returns the status and the body of the answer.
func scrape(ctx context.Context, token string) (string, error) {
	url := "https://" + address(ctx, metrics) + ":8443/metrics"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// The manager makes its certificate itself.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s", response.StatusCode, body), err
}
