package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
)

// root is the directory that commands run in, as the suites see it.
const root = "../.."

// Output is what a command printed, and how it ended.
type Output struct {
	Stdout, Stderr string
	Err            error // with what is on stderr
}

// Run runs a command in the project's root.
func Run(ctx context.Context, command string, args ...string) Output {
	return run(ctx, nil, command, args...)
}

func run(ctx context.Context, stdin io.Reader, command string, args ...string) Output {
	var stdout, stderr bytes.Buffer
	process := exec.CommandContext(ctx, command, args...)
	process.Dir, process.Stdin, process.Stdout, process.Stderr = root, stdin, &stdout, &stderr
	err := process.Run()
	if err != nil {
		err = fmt.Errorf("%s %v: %w: %s", filepath.Base(command), args, err, &stderr)
	}
	return Output{Stdout: stdout.String(), Stderr: stderr.String(), Err: err}
}

// BeQuiet matches the output of a command that succeeded without a warning.
func BeQuiet() types.GomegaMatcher {
	return gomega.And(gomega.HaveField("Err", gomega.BeNil()), gomega.HaveField("Stderr", gomega.BeEmpty()))
}

// Build returns the manifests of a kustomization.
func Build(ctx context.Context, kustomization string) string {
	ginkgo.GinkgoHelper()
	built := kustomize(ctx, "build", kustomization)
	gomega.Expect(built).To(BeQuiet())
	return built.Stdout
}

func kustomize(ctx context.Context, args ...string) Output {
	return Run(ctx, "go", append([]string{"tool", "-modfile=hack/tools/go.mod", "kustomize"}, args...)...)
}

// BuildManager compiles the operator, and returns the name of the program.
func BuildManager(ctx context.Context) string {
	ginkgo.GinkgoHelper()
	ReadInputs("api", "internal", "main.go", "go.mod")
	program := filepath.Join(ginkgo.GinkgoT().TempDir(), "manager")
	gomega.Expect(Run(ctx, "go", "build", "-o", program, ".")).To(BeQuiet())
	return program
}

// ReadInputs reads the files that kustomize, Helm or the compiler are going to read. Without that, `go test` would not know
// of them, and repeat its last result although they have changed.
func ReadInputs(paths ...string) {
	ginkgo.GinkgoHelper()
	tree := os.DirFS(root)
	for _, path := range paths {
		gomega.Expect(fs.WalkDir(tree, path, func(file string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				_, err = fs.ReadFile(tree, file)
			}
			return err
		})).To(gomega.Succeed())
	}
}

// Get returns the status and the body of an answer to a request with a token, if there is one.
func Get(ctx context.Context, url, token string) (string, error) {
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
