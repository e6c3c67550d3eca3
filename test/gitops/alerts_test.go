package gitops

import (
	"os"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// alert is a rule of config/prometheus/prometheus_rule.yaml.
type alert struct {
	monitoringv1.Rule
	expression parser.Expr
}

func alerts(ctx SpecContext) (found []alert) {
	GinkgoHelper()
	rule := &monitoringv1.PrometheusRule{}
	for manifest := range strings.SplitSeq(cluster.Build(ctx, "config/prometheus"), "\n---\n") {
		if strings.Contains(manifest, "kind: PrometheusRule") {
			Expect(yaml.UnmarshalStrict([]byte(manifest), rule)).To(Succeed())
		}
	}
	for _, group := range rule.Spec.Groups {
		for _, rule := range group.Rules {
			expression, err := parser.NewParser(parser.Options{}).ParseExpr(rule.Expr.String())
			Expect(err).NotTo(HaveOccurred(), rule.Alert)
			found = append(found, alert{rule, expression})
		}
	}
	Expect(found).To(HaveLen(4))
	return found
}

// firesFor reports whether an alert is about the objects that are not ready for a reason.
func (a alert) firesFor(reason string) bool {
	about := map[string]bool{}
	for _, selector := range parser.ExtractSelectors(a.expression) {
		for _, matcher := range selector {
			switch matcher.Name {
			case "__name__":
				about["metric"] = matcher.Value == "imagegc_customimages"
			case "reason":
				about["reason"] = matcher.Matches(reason)
			}
		}
	}
	return about["metric"] && about["reason"]
}

var _ = Describe("The alerts", func() {
	It("fire for every reason but Available, one for each", func(ctx SpecContext) {
		all := alerts(ctx)
		pages, err := os.ReadDir(root + "/docs/reasons")
		Expect(err).NotTo(HaveOccurred())
		reasons := []string{"NewError"}
		for _, page := range pages {
			reasons = append(reasons, strings.TrimSuffix(page.Name(), ".md"))
		}
		for _, reason := range reasons {
			firing := []string{}
			for _, alert := range all {
				if alert.firesFor(reason) {
					firing = append(firing, alert.Alert)
				}
			}
			Expect(firing).To(HaveLen(map[bool]int{true: 0, false: 1}[reason == "Available"]), reason)
		}
	})

	It("tell what waits for a user from what ends without help", func(ctx SpecContext) {
		names := map[ecs.Class]string{ecs.Blocked: "CustomImageDeletionBlocked", ecs.Waiting: "CustomImageWaiting"}
		for _, alert := range alerts(ctx) {
			for _, meaning := range decision.Meanings {
				if name := names[meaning.Class]; name != "" {
					Expect(alert.firesFor(meaning.Page())).To(Equal(alert.Alert == name), "%s for %s", alert.Alert, meaning.Page())
				}
			}
		}
	})

	It("rest on metrics that the operator has", func(ctx SpecContext) {
		descriptions, known := make(chan *prometheus.Desc, 8), ""
		customimage.Collector{}.Describe(descriptions)
		close(descriptions)
		for description := range descriptions {
			known += description.String()
		}
		for _, alert := range alerts(ctx) {
			for _, selector := range parser.ExtractSelectors(alert.expression) {
				for _, matcher := range selector {
					if matcher.Name == "__name__" {
						Expect(known).To(ContainSubstring(`"` + matcher.Value + `"`))
					}
				}
			}
		}
	})
})
