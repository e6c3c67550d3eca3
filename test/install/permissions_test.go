package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// auditPolicy has the API server record what the operator asks of it, and nobody else.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: ["system:serviceaccount:` + namespace + `:` + name + `"]
`

// Where a permission holds, as the documentation has it.
const (
	everywhere = "every namespace"
	atHome     = "its own namespace"
	atTenants  = "namespaces that bind `imagegc-credentials-reader`"
)

// purposes say what each resource is for.
var purposes = map[string]string{
	"customresourcedefinitions.apiextensions.k8s.io/customimages.ecs.imagegc.io": "see that the CRD is being deleted, and delete no image then",
	"namespaces.":                               "see that a namespace is being deleted, and delete no image then",
	"customimages.ecs.imagegc.io":               "its work: observe, and put the finalizer on and off",
	"customimages/status.ecs.imagegc.io":        "what it says",
	"events.events.k8s.io":                      "what it says",
	"tokenreviews.authentication.k8s.io":        "who asks for metrics",
	"subjectaccessreviews.authorization.k8s.io": "whether they may read metrics",
	"leases.coordination.k8s.io":                "leader election",
	"leases.coordination.k8s.io/ecs-image-gc":   "leader election",
	"events.":  "leader election",
	"secrets.": "the access keys of `spec.credentialsSecretRef`",
}

// granted returns where the operator may do what, a line "verb resource.group/object" for each verb.
func granted(ctx context.Context, tenant string) map[string][]string {
	GinkgoHelper()
	split := func(rules []string) (lines []string) {
		for _, rule := range rules {
			verbs, resource, _ := strings.Cut(rule, " ")
			for verb := range strings.SplitSeq(verbs, ",") {
				lines = append(lines, verb+" "+resource)
			}
		}
		slices.Sort(lines)
		return lines
	}
	all := split(rules(ctx, "default"))
	beyond := func(in string) []string {
		return slices.DeleteFunc(split(rules(ctx, in)), func(line string) bool { return slices.Contains(all, line) })
	}
	return map[string][]string{everywhere: all, atHome: beyond(namespace), atTenants: beyond(tenant)}
}

// used returns what of all that was used, and what was asked for that is not in it.
func used(ctx context.Context, granted map[string][]string, tenant string) (used map[string][]string, other []string) {
	GinkgoHelper()
	everybody := rulesOf(ctx, serviceAccount("another"), tenant)
	places := map[string]string{namespace: atHome, tenant: atTenants, friend: atTenants}
	used = map[string][]string{}
	for _, event := range audited() {
		line := event.Verb + " " + event.ObjectRef.Resource + "." + event.ObjectRef.APIGroup
		if event.ObjectRef.Subresource != "" {
			line = event.Verb + " " + event.ObjectRef.Resource + "/" + event.ObjectRef.Subresource + "." + event.ObjectRef.APIGroup
		}
		found := false
		for _, place := range []string{everywhere, places[event.ObjectRef.Namespace]} {
			for _, candidate := range []string{line, line + "/" + event.ObjectRef.Name} {
				if slices.Contains(granted[place], candidate) {
					used[place], found = append(used[place], candidate), true
				}
			}
		}
		if !found && !slices.Contains(everybody, line) {
			other = append(other, line+" in "+event.ObjectRef.Namespace)
		}
	}
	for place, lines := range used {
		slices.Sort(lines)
		used[place] = slices.Compact(lines)
	}
	slices.Sort(other)
	return used, slices.Compact(other)
}

// auditEvent is what is of interest of an audit.k8s.io/v1 Event.
type auditEvent struct {
	Verb      string
	ObjectRef *struct{ Resource, Subresource, APIGroup, Namespace, Name string }
}

// audited returns what was asked for, other than what there is to be asked for.
func audited() []auditEvent {
	GinkgoHelper()
	data, err := os.ReadFile(auditLog)
	Expect(err).NotTo(HaveOccurred())
	var events []auditEvent
	for line := range bytes.Lines(data) {
		event := auditEvent{}
		Expect(json.Unmarshal(line, &event)).To(Succeed())
		if event.ObjectRef != nil {
			events = append(events, event)
		}
	}
	return events
}

// permissionTable is the table of docs/security.md.
func permissionTable(granted, used map[string][]string) string {
	var table strings.Builder
	table.WriteString("| resource | granted | used | where | what for |\n|---|---|---|---|---|\n")
	for _, place := range []string{everywhere, atHome, atTenants} {
		verbs, usedVerbs := byResource(granted[place]), byResource(used[place])
		for _, resource := range slices.Sorted(maps.Keys(verbs)) {
			fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", strings.TrimSuffix(resource, "."),
				strings.Join(verbs[resource], ", "), strings.Join(usedVerbs[resource], ", "), place, purposes[resource])
		}
	}
	return table.String()
}

func byResource(lines []string) map[string][]string {
	verbs := map[string][]string{}
	for _, line := range lines {
		verb, resource, _ := strings.Cut(line, " ")
		verbs[resource] = append(verbs[resource], verb)
	}
	return verbs
}

var permissionRegion = regexp.MustCompile(`(?s)<!-- permissions -->\n.*?<!-- end -->`)

// checkPermissionTable compares the table in the documentation with this one or, with UPDATE_DOCS, replaces it.
func checkPermissionTable(table string) {
	GinkgoHelper()
	file := "../../docs/security.md"
	before, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred())
	Expect(permissionRegion.Match(before)).To(BeTrue(), "docs/security.md has a place for it")
	after := permissionRegion.ReplaceAllLiteral(before, []byte("<!-- permissions -->\n"+table+"<!-- end -->"))
	if os.Getenv("UPDATE_DOCS") != "" {
		Expect(os.WriteFile(file, after, 0o600)).To(Succeed())
		return
	}
	Expect(string(before)).To(Equal(string(after)), "docs/security.md is out of date: run `make docs-permissions`")
}
