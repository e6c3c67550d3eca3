// Command chart writes the templates of the Helm chart that have no options but to be left out: the CRD, the roles and
// the admission policies. It reads what kustomize builds of config/default from stdin, so config/ is the only source. The other
// templates are written by hand; test/chart compares all of them with config/. Run it in the root of the project.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const folder = "charts/ecs-image-gc/templates"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

// object is what decides where a manifest belongs.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
}

func run() error {
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	files := map[string][]string{}
	for text := range strings.SplitSeq(string(manifests), "\n---\n") {
		o := object{}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			return err
		}
		if file := fileOf(o); file != "" {
			files[file] = append(files[file], template(o, text))
		}
	}
	if len(files) != len(switches) {
		return fmt.Errorf("want the CRD, roles and policies of config/default on stdin, got %d of %d kinds", len(files), len(switches))
	}
	for file, texts := range files {
		content := "{{- /* Made from config/ by `make chart`. */}}\n"
		if value := switches[file]; value != "" {
			content += "{{- if ." + value + " }}\n" + strings.Join(texts, "---\n") + "{{- end }}\n"
		} else {
			content += strings.Join(texts, "---\n")
		}
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o644); err != nil { // #nosec G306: for everyone
			return err
		}
	}
	return nil
}

// switches are the values that leave a file out.
var switches = map[string]string{
	"crd.yaml": "Values.crds.enabled", "roles.yaml": "Values.roles.enabled", "admission.yaml": "Values.admission.enabled",
	"rbac.yaml": "",
}

// ofTheOperator are the roles that carry the name of the release. The others are for people, and messages name them.
var ofTheOperator = []string{"imagegc-manager-role", "imagegc-leader-election-role"}

func fileOf(o object) string {
	switch {
	case o.Kind == "CustomResourceDefinition":
		return "crd.yaml"
	case strings.Contains(o.Kind, "AdmissionPolicy"):
		return "admission.yaml"
	case o.Kind == "ClusterRole" && !slices.Contains(ofTheOperator, o.Metadata.Name):
		return "roles.yaml"
	case strings.Contains(o.Kind, "Role"):
		return "rbac.yaml"
	}
	return ""
}

const (
	labels = "    app.kubernetes.io/managed-by: kustomize\n    app.kubernetes.io/name: ecs-image-gc\n" +
		"    app.kubernetes.io/part-of: ecs-image-gc\n"
	keep = "    {{- if .Values.crds.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n"
	// mutating begins a template that older clusters do not have.
	mutating = "{{- if .Values.admission.addFinalizer }}\n" +
		"{{- if not (semverCompare \">=1.36.0-0\" .Capabilities.KubeVersion.Version) }}\n" +
		"{{- fail (printf \"admission.addFinalizer requires Kubernetes 1.36, and this is %s. Set it to false: an object that is deleted " +
		"before the operator has seen it is then removed, and its image is kept.\" .Capabilities.KubeVersion.Version) }}\n{{- end }}\n"
)

// template makes a template of a manifest.
func template(o object, text string) string {
	text = strings.ReplaceAll(text, "{{", `{{ "{{" }}`)
	text = strings.TrimSuffix(text, "\n") + "\n"
	for _, pair := range [][2]string{
		{labels, "    {{- include \"ecs-image-gc.labels\" . | nindent 4 }}\n"},
		{"name: imagegc-controller-manager\n", "name: {{ include \"ecs-image-gc.serviceAccountName\" . | quote }}\n"},
		{"imagegc-controller-manager", `{{ include "ecs-image-gc.serviceAccountName" . }}`}, // in an expression
		{"name: imagegc-manager-", `name: {{ include "ecs-image-gc.fullname" . }}-manager-`},
		{"name: imagegc-leader-", `name: {{ include "ecs-image-gc.fullname" . }}-leader-`},
		{"namespace: imagegc-system\n", "namespace: {{ .Release.Namespace | quote }}\n"},
		{"imagegc-system", "{{ .Release.Namespace }}"}, // in an expression
	} {
		text = strings.ReplaceAll(text, pair[0], pair[1])
	}
	switch {
	case o.Kind == "CustomResourceDefinition":
		return strings.Replace(text, "  annotations:\n", "  annotations:\n"+keep, 1)
	case strings.HasPrefix(o.Kind, "Mutating"):
		// Kustomize gives these a namespace, which they do not have.
		return mutating + strings.Replace(text, "  namespace: {{ .Release.Namespace | quote }}\n", "", 1) + "{{- end }}\n"
	}
	return text
}
