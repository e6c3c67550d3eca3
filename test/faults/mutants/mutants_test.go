// Package mutants checks the checks: each patch beside this file puts one bug into a copy of the project, and names the tests
// that have to fail then. It knows nothing of what they test.
//
// A patch is a unified diff with two lines before it: what the bug is, and the arguments of `go test` that catch it.
// `make mutants` runs all, `make mutants MUTANT=name` one.
package mutants

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const root = "../../.."

// TestMutants runs each test twice: it passes without the bug, or it would catch nothing, and fails with it.
func TestMutants(t *testing.T) {
	patches, err := filepath.Glob("*.patch")
	if err != nil || len(patches) < 25 {
		t.Fatalf("%d patches, %v", len(patches), err)
	}
	p := project{dir: copyProject(t), kubeconfig: startCluster(t), passes: map[string]error{}}
	for _, file := range patches {
		t.Run(strings.TrimSuffix(file, ".patch"), func(t *testing.T) { p.try(t, file) })
	}
}

// project is a copy of the project.
type project struct {
	dir, kubeconfig string
	passes          map[string]error // what tests said of the project as it is, by their arguments
}

func (p project) try(t *testing.T, file string) {
	text, err := os.ReadFile(file) // #nosec G304: from Glob
	if err != nil {
		t.Fatal(err)
	}
	what, rest, _ := strings.Cut(string(text), "\n")
	caught, _, _ := strings.Cut(rest, "\n")
	args, ok := strings.CutPrefix(caught, "Caught by: ")
	if !ok {
		t.Fatalf("%s does not say what catches it", file)
	}
	if _, known := p.passes[args]; !known {
		p.passes[args] = p.test(t, args)
	}
	if err := p.passes[args]; err != nil {
		t.Fatalf("fails also without the bug: go test %s: %v", args, err)
	}
	patch, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	p.mustRun(t, "git", "apply", patch)
	defer p.mustRun(t, "git", "apply", "--reverse", patch)
	p.mustRun(t, "go", "build", "./...")
	began := time.Now()
	if p.test(t, args) == nil {
		t.Errorf("not caught by go test %s: %s", args, what)
		return
	}
	t.Logf("caught after %.0f s: %s", time.Since(began).Seconds(), what)
}

// test runs `go test`, and returns an error if a test fails. Anything else that goes wrong ends the test.
func (p project) test(t *testing.T, args string) error {
	t.Helper()
	output, err := p.run(t, "go", append([]string{"test", "-count=1", "-timeout=5m"}, strings.Fields(args)...)...)
	if err == nil && bytes.Contains(output, []byte("no tests to run")) {
		t.Fatalf("go test %s runs nothing", args)
	}
	isCheck := bytes.Contains(output, []byte("--- FAIL"))
	if strings.HasPrefix(args, "./test/faults ") {
		isCheck = bytes.Contains(output, []byte("violated:"))
	}
	if err != nil && !isCheck {
		t.Fatalf("go test %s: %v\n%s", args, err, output)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, output[:min(len(output), 4000)])
	}
	return nil
}

func (p project) run(t *testing.T, command string, args ...string) ([]byte, error) {
	t.Helper()
	process := exec.CommandContext(t.Context(), command, args...) // #nosec G204: of this file and the patches
	process.Dir = p.dir
	process.Env = append(os.Environ(), "FAULTS_KUBECONFIG="+p.kubeconfig)
	return process.CombinedOutput()
}

func (p project) mustRun(t *testing.T, command string, args ...string) {
	t.Helper()
	if output, err := p.run(t, command, args...); err != nil {
		t.Fatalf("%s %v: %v\n%s", command, args, err, output)
	}
}

// copyProject copies what git knows of the project, as it is in the work tree.
func copyProject(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, name)) // #nosec G304: of this project
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o750)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startCluster starts an API server for all the runs, and returns the name of its kubeconfig.
func startCluster(t *testing.T) string {
	t.Helper()
	environment := &envtest.Environment{}
	if _, err := environment.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = environment.Stop() })
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, environment.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
