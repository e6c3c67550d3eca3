//go:build e2e

package e2e

import (
	"context"

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
	return cluster.Get(ctx, "https://"+address(ctx, metrics)+":8443/metrics", token)
}
