package gitops

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
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

	It("link to a page that exists, also for codes that have one page together", func(ctx SpecContext) {
		const project = "https://github.com/imagegc/ecs-image-gc/blob/main"
		for _, alert := range alerts(ctx) {
			for _, meaning := range decision.Meanings {
				reason := decision.ReasonOf(strings.ReplaceAll(meaning.Pattern, "*", "RAM"))
				page, hasPage := strings.CutPrefix(alert.Annotations["runbook_url"], project)
				if alert.firesFor(reason) && hasPage {
					Expect(root+strings.ReplaceAll(page, "{{ $labels.reason }}", reason)).To(BeAnExistingFile(), alert.Alert)
				}
			}
		}
	})

	It("rest on metrics that the operator has", func(ctx SpecContext) {
		for _, alert := range alerts(ctx) {
			expectKnown(alert.Expr.String())
		}
	})
})

// operatorsMetrics are the labels of the operator's metrics, by name.
func operatorsMetrics() map[string][]string {
	descriptions, found := make(chan *prometheus.Desc), map[string][]string{}
	go func() {
		defer close(descriptions)
		metrics.Registry.(prometheus.Collector).Describe(descriptions)
		customimage.Collector{}.Describe(descriptions)
	}()
	for description := range descriptions {
		if d := described.FindStringSubmatch(description.String()); d != nil {
			found[d[1]] = labels(d[2])
		}
	}
	return found
}

func labels(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

var (
	described = regexp.MustCompile(`fqName: "(imagegc_\w+)".*variableLabels: \{([\w,]*)\}`)
	inTable   = regexp.MustCompile("(?m)^\\| `(imagegc_\\w+)(?:\\{([\\w,]+)\\})?` \\|")
	query     = regexp.MustCompile(`(?m)^ {4,}(.+) # in Prometheus$`)
)

// expectKnown expects that a query asks for metrics and labels that the operator has.
func expectKnown(query string) {
	GinkgoHelper()
	expression, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	Expect(err).NotTo(HaveOccurred(), query)
	var names, asked []string
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if sum, is := node.(*parser.AggregateExpr); is {
			asked = append(asked, sum.Grouping...)
		}
		return nil
	})
	for _, selector := range parser.ExtractSelectors(expression) {
		for _, matcher := range selector {
			if matcher.Name == "__name__" {
				names = append(names, matcher.Value)
			} else {
				asked = append(asked, matcher.Name)
			}
		}
	}
	Expect(names).NotTo(BeEmpty(), query)
	slices.Sort(asked)
	asked = slices.Compact(asked)
	for _, name := range names {
		Expect(operatorsMetrics()).To(HaveKeyWithValue(name, ContainElements(asked)), query)
	}
}

var _ = DescribeTable("A query is not accepted", func(query string) {
	Expect(InterceptGomegaFailure(func() { expectKnown(query) })).To(HaveOccurred())
},
	Entry("that does not parse", "sum by (reason (imagegc_customimages)"),
	Entry("of no metric", "1"),
	Entry("of another metric", "imagegc_unknown"),
	Entry("with another label", `imagegc_customimages_waiting{reason="quota"}`),
	Entry("with a sum by another label", "sum by (region) (rate(imagegc_ecs_requests_total[10m]))"),
)

func pages(patterns ...string) (found []string) {
	GinkgoHelper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(root + pattern)
		Expect(err).NotTo(HaveOccurred())
		found = append(found, files...)
	}
	return found
}

var _ = Describe("The documentation", func() {
	It("has queries on metrics that the operator has", func() {
		count := 0
		for _, page := range pages("/*.md", "/docs/*.md", "/docs/*/*.md") {
			text, err := os.ReadFile(page) // #nosec G304: a page of the project
			Expect(err).NotTo(HaveOccurred())
			for _, found := range query.FindAllStringSubmatch(string(text), -1) {
				expectKnown(found[1])
				count++
			}
		}
		Expect(count).To(BeNumerically(">=", 3))
	})

	It("lists all metrics of the operator with their labels", func() {
		text, err := os.ReadFile(root + "/README.md")
		Expect(err).NotTo(HaveOccurred())
		listed := map[string][]string{}
		for _, row := range inTable.FindAllStringSubmatch(string(text), -1) {
			listed[row[1]] = labels(row[2])
		}
		Expect(listed).To(Equal(operatorsMetrics()))
	})
})
