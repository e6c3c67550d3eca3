package docs

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// expectSound checks a block that has a language.
func expectSound(ctx context.Context, b block) {
	GinkgoHelper()
	switch {
	case elsewhere[b.language] != "":
	case b.language == "json":
		expectPolicy(b.text)
	case b.language == "yaml" && b.file == root+"/docs/gitops.md":
		Expect(b.indent).To(BeEmpty(), "test/gitops/page_test.go looks for blocks that are not indented, and counts them")
	case b.language == "yaml":
		expectManifest(ctx, b.text)
	default:
		Expect(b.language).To(BeEmpty(), "nothing checks a block of this language")
	}
}

var _ = DescribeTable("The check of blocks refuses", func(ctx SpecContext, language, text string) {
	Expect(InterceptGomegaFailure(func() { expectSound(ctx, block{language: language, text: "\n" + text}) })).To(HaveOccurred())
},
	Entry("an unknown language", "toml", "a = 1"),
	Entry("an unknown kind", "yaml", "apiVersion: v1\nkind: Unknown\nmetadata: {name: a}"),
	Entry("an unknown field", "yaml", "spec: {regionID: cn-hangzhou, imageID: m-1, unknown: true}"),
	Entry("a value against a rule", "yaml", "spec: {regionID: cn-hangzhou, imageID: i-1}"),
	Entry("a patch of nothing", "yaml", "- target: {kind: Deployment, name: unknown}\n  patch: '[{op: remove, path: /spec}]'"),
	Entry("a patch that makes no object", "yaml",
		"- target: {kind: Deployment}\n  patch: '[{op: add, path: /spec/unknown, value: 1}]'"),
	Entry("an image of nothing", "yaml",
		"kind: Kustomization\nresources: [../config/default]\nimages: [{name: unknown, newName: a}]"),
	Entry("no JSON", "json", "{"),
	Entry("an unknown element", "json", `{"Version": "1", "Statements": []}`),
	Entry("a call that the operator does not make", "json",
		`{"Version": "1", "Statement": [{"Effect": "Allow", "Action": "ecs:DeleteSnapshot", "Resource": "acs:ecs:*:*:snapshot/*"}]}`),
	Entry("all calls", "json",
		`{"Version": "1", "Statement": [{"Effect": "Allow", "Action": "ecs:*", "Resource": "acs:ecs:*:*:image/*"}]}`),
	Entry("all resources", "json",
		`{"Version": "1", "Statement": [{"Effect": "Allow", "Action": "ecs:DeleteImage", "Resource": "*"}]}`),
	Entry("a role of another service account", "json", `{"Version": "1", "Statement": [{"Effect": "Allow",
		"Action": "sts:AssumeRole", "Principal": {"Federated": ["acs:ram::1:oidc-provider/a"]},
		"Condition": {"StringEquals": {"oidc:sub": ["system:serviceaccount:default:default"]}}}]}`),
)

// expectManifest expects that the API server accepts an object, and what an overlay makes. Of an object a page may show the
// spec alone, and of an overlay a patch alone.
func expectManifest(ctx context.Context, text string) {
	GinkgoHelper()
	switch {
	case strings.HasPrefix(text, "\nspec:"):
		text = "apiVersion: ecs.imagegc.io/v1alpha1\nkind: CustomImage\nmetadata: {name: any, namespace: team-web}" + text
	case strings.HasPrefix(text, "\n- target:"):
		text = overlay(ctx, "{resources: [../config/default], patches: "+asJSON(text)+"}")
	case strings.Contains(text, "kind: Kustomization\n"):
		text = overlay(ctx, text)
	}
	file := cluster.Write("manifest.yaml", []byte(text))
	Expect(shell(ctx, "kubectl apply --server-side --dry-run=server --validate=strict -f "+file)).To(cluster.BeQuiet())
}

func asJSON(text string) string {
	GinkgoHelper()
	converted, err := yaml.YAMLToJSON([]byte(text))
	Expect(err).NotTo(HaveOccurred())
	return string(converted)
}

// overlay builds an overlay of config/default, and expects that nothing in it is without an effect: kustomize says nothing
// of a patch whose target does not exist.
func overlay(ctx context.Context, text string) string {
	GinkgoHelper()
	var whole map[string]any
	Expect(yaml.UnmarshalStrict([]byte(text), &whole)).To(Succeed())
	built := build(ctx, whole)
	for _, key := range []string{"images", "patches"} {
		if value, found := whole[key]; found {
			delete(whole, key)
			Expect(build(ctx, whole)).NotTo(Equal(built), key+" change nothing")
			whole[key] = value
		}
	}
	return built
}

// build builds an overlay that is in a folder beside config. kustomize takes relative paths alone, so the folder is in the
// project.
func build(ctx context.Context, overlay map[string]any) string {
	GinkgoHelper()
	text, err := yaml.Marshal(overlay)
	Expect(err).NotTo(HaveOccurred())
	Expect(os.MkdirAll(root+"/bin", 0o750)).To(Succeed())
	folder, err := os.MkdirTemp(root+"/bin", "overlay-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, folder)
	text = []byte(strings.ReplaceAll(string(text), "../config/", "../../config/"))
	Expect(os.WriteFile(filepath.Join(folder, "kustomization.yaml"), text, 0o600)).To(Succeed())
	return cluster.Build(ctx, "bin/"+filepath.Base(folder))
}

// policy is a policy of RAM, or the trust policy of a role.
type policy struct {
	Version   string
	Statement []struct {
		Effect, Action, Resource string
		Principal                map[string][]string
		Condition                map[string]map[string]any
	}
}

const arn = `^acs:(ecs|ram):[^:]*:[^:]*:[a-z-]+/[^/]+$`

// expectPolicy expects a policy that allows nothing but calls of the operator.
func expectPolicy(text string) {
	GinkgoHelper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	var p policy
	Expect(decoder.Decode(&p)).To(Succeed())
	Expect(p.Version).To(Equal("1"))
	Expect(p.Statement).NotTo(BeEmpty())
	for _, s := range p.Statement {
		Expect(s.Effect).To(Equal("Allow"))
		service, action, _ := strings.Cut(s.Action, ":")
		source := map[string]string{"ecs": "/internal/ecs", "sts": "/internal/credentials"}[service]
		Expect(source).NotTo(BeEmpty(), s.Action)
		Expect(action).To(MatchRegexp(`^\w+$`))
		Expect(strings.Contains(calls(source), `"`+action+`"`)).To(BeTrue(), "the operator does not call "+s.Action)
		for _, names := range s.Principal {
			Expect(names).To(HaveEach(MatchRegexp(arn)))
		}
		if s.Principal == nil {
			Expect(s.Resource).To(MatchRegexp(arn))
		}
		if subject := s.Condition["StringEquals"]["oidc:sub"]; subject != nil {
			Expect(subject).To(HaveExactElements("system:serviceaccount:" + cluster.Namespace + ":" + cluster.Name))
		}
	}
}

// calls is the source of a package without its tests.
func calls(folder string) (text string) {
	GinkgoHelper()
	files, err := filepath.Glob(root + folder + "/*.go")
	Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			text += read(Default, file)
		}
	}
	return text
}
