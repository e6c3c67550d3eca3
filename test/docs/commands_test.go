package docs

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// TestCommands checks every command and every block of the documentation, and that there is a check for each.
func TestCommands(t *testing.T) {
	g := NewWithT(t)
	unused, all := maps.Clone(elsewhere), commands(g)
	g.Expect(len(all)).To(BeNumerically(">", 200), "the commands were not found")
	for _, command := range slices.Sorted(maps.Keys(all)) {
		delete(unused, command)
		delete(unused, programOf(command))
		It("accepts: "+command, func(ctx SpecContext) { expectChecked(ctx, command) }, NodeTimeout(time.Minute))
	}
	for _, file := range documents(g) {
		for n, b := range blocks(g, file) {
			if b.language == "" { // commands
				continue
			}
			delete(unused, b.language)
			name := fmt.Sprintf("accepts block %d of %s", n+1, strings.TrimPrefix(file, root))
			It(name, func(ctx SpecContext) { expectSound(ctx, b) }, NodeTimeout(time.Minute))
		}
	}
	g.Expect(unused).To(BeEmpty())
	RegisterFailHandler(Fail)
	RunSpecs(t, "commands")
}

// objects are those that commands are about.
const objects = `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: team-web}}
- {apiVersion: v1, kind: Namespace, metadata: {name: monitoring}}
- {apiVersion: v1, kind: Namespace, metadata: {name: argocd}}
- {apiVersion: v1, kind: Node, metadata: {name: node}}
- {apiVersion: v1, kind: Secret, metadata: {name: alibaba-cloud, namespace: imagegc-system}}
- {apiVersion: v1, kind: Secret, metadata: {name: alibaba-cloud, namespace: team-web},
   stringData: {access-key-id: a, access-key-secret: a, role-arn: a, external-id: a}}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: reader, namespace: team-web},
   roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: imagegc-credentials-reader},
   subjects: [{kind: ServiceAccount, name: imagegc-controller-manager, namespace: imagegc-system}]}
- {apiVersion: ecs.imagegc.io/v1alpha1, kind: CustomImage,
   metadata: {name: web, namespace: team-web, annotations: {example.com/team: web}},
   spec: {regionID: cn-hangzhou, imageID: m-1, accountID: "1"}}
- {apiVersion: ecs.imagegc.io/v1alpha1, kind: CustomImage, metadata: {name: web-2023-12, namespace: imagegc-system},
   spec: {regionID: cn-hangzhou, imageID: m-2}}
- {apiVersion: ecs.imagegc.io/v1alpha1, kind: CustomImage, metadata: {name: web-2023-12, namespace: default},
   spec: {regionID: cn-hangzhou, imageID: m-3}}
`

const status = `{"status":{"image":{"imageID":"m-1","regionID":"cn-hangzhou","ownerID":"1"},"lastError":{"code":"A"},"conditions":[
{"type":"InUse","status":"True","reason":"A","message":"a","lastTransitionTime":"2024-01-01T00:00:00Z"}]}}`

// placeholders are what the documentation has in place of names, and the names here.
var placeholders = map[string]string{
	"NAME": "web", "NAMESPACE": "team-web", "IMAGE": "m-1", "REGION": "cn-hangzhou", "SECRET": "alibaba-cloud",
	"OTHER": "web-2023-12", "OTHER-NAMESPACE": "default", "NODE": "node", "ANY-NAME": "any-name", "USER": "alice",
	"ADMINISTRATOR": "alice", "ACCOUNT": "1", "OTHER-ACCOUNT": "2", "ROLE": "role", "EXTERNAL-ID": "id", "FOLDER": "config/default",
}

var placeholder = regexp.MustCompile(`\b[A-Z]+(-[A-Z]+)*\b`)

var shell func(ctx context.Context, command string) cluster.Output

var _ = BeforeSuite(func(ctx SpecContext) {
	environment := &envtest.Environment{}
	k8s := cluster.Start(ctx, environment)
	Expect(k8s.Apply(ctx, objects)).To(cluster.BeQuiet())
	k8s.MustKubectl(ctx, "patch", "cimg", "web", "-n", "team-web", "--subresource=status", "--type=merge", "-p", status)
	cluster.ReadInputs("Makefile", "hack", "internal", "test")
	set := "unset MAKEFLAGS; export KUBE_EDITOR=true HOME=" + filepath.Dir(k8s.Kubeconfig) + " KUBECONFIG=" + k8s.Kubeconfig +
		" PATH=" + filepath.Dir(environment.ControlPlane.KubectlPath) + ":$PATH; "
	shell = func(ctx context.Context, command string) cluster.Output {
		return cluster.Run(ctx, "bash", "-c", set+command)
	}
})

// unserved are the verbs that cannot do their work here, and why. Their arguments are checked without a server.
var unserved = map[string]string{"logs": "no pod runs here", "wait": "no operator runs here"}

var (
	verbOf = regexp.MustCompile(`^kubectl (?:-n \S+ )?([a-z]+)`)
	// inGeneral is a command without an object.
	inGeneral = regexp.MustCompile(`^kubectl (?:create )?[a-z]+(?: -\S+)*$`)
	// changing are the verbs that the API server can do without an effect.
	changing = []string{"annotate", "apply", "cordon", "create", "delete", "label", "patch", "uncordon"}
)

func expectAccepted(ctx context.Context, command string) {
	GinkgoHelper()
	verb := verbOf.FindStringSubmatch(command)[1]
	filledIn := placeholder.ReplaceAllStringFunc(command, func(name string) string { return cmp.Or(placeholders[name], name) })
	switch {
	case inGeneral.MatchString(command):
		filledIn += " --help"
	case unserved[verb] != "":
		Expect(shell(ctx, filledIn+" --server=http://127.0.0.1:1").Stderr).To(ContainSubstring("refused"), unserved[verb])
		return
	case slices.Contains(changing, verb):
		filledIn += " --dry-run=server"
	case strings.Contains(command, "jsonpath"):
		filledIn += " --allow-missing-template-keys=false"
	}
	output := shell(ctx, filledIn)
	if verb == "create" && strings.Contains(output.Stderr, "already exists") {
		return
	}
	Expect(output.Err).NotTo(HaveOccurred())
	if strings.Contains(command, "jsonpath") {
		Expect(output.Stdout).NotTo(BeEmpty(), "there is nothing at this path")
	}
}
