package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// release is all that a release is made from. No time, path or name of a machine is among it.
type release struct {
	root       string
	tree       string // of git, with what is not committed
	version    string
	revision   string
	date       time.Time // of the commit, or SOURCE_DATE_EPOCH
	repository name.Repository
	recipe     recipe
	base       base
}

func describe(ctx context.Context, s settings) (r *release, err error) {
	r = &release{root: s.root, version: s.version}
	if r.version == "" {
		return nil, errors.New("--version is required")
	}
	if r.revision, err = git(ctx, s.root, "rev-parse", "HEAD"); err != nil {
		return nil, err
	}
	if r.date, err = sourceDate(ctx, s.root); err != nil {
		return nil, err
	}
	if r.tree, err = snapshot(ctx, s.root); err != nil {
		return nil, err
	}
	if r.repository, err = name.NewRepository(s.repository, name.StrictValidation); err != nil {
		return nil, fmt.Errorf("--repository: %w", err)
	}
	if r.recipe, err = readDockerfile(filepath.Join(s.root, "Dockerfile")); err != nil {
		return nil, fmt.Errorf("read the Dockerfile: %w", err)
	}
	r.base, err = findBase(ctx, s, r.recipe.base)
	return r, err
}

// sourceDate is the date of everything that has one.
func sourceDate(ctx context.Context, root string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		var err error
		if text, err = git(ctx, root, "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, err
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// snapshot returns a tree of git with the working tree as it is, by way of an index of its own.
func snapshot(ctx context.Context, root string) (string, error) {
	tmp, err := os.MkdirTemp("", "release-index-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	index := filepath.Join(tmp, "index")
	if _, err := gitIndex(ctx, root, index, "add", "--all"); err != nil {
		return "", err
	}
	return gitIndex(ctx, root, index, "write-tree")
}

// checkout writes the files of the release to a directory.
func (r *release) checkout(ctx context.Context, dir string) error {
	index := dir + ".index"
	if _, err := gitIndex(ctx, r.root, index, "read-tree", r.tree); err != nil {
		return err
	}
	_, err := gitIndex(ctx, r.root, index, "checkout-index", "--all", "--prefix="+dir+"/")
	return err
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	out, err := output(ctx, root, os.Environ(), "git", args...)
	return strings.TrimSpace(string(out)), err
}

// gitIndex is git with another index than that of the working tree.
func gitIndex(ctx context.Context, root, index string, args ...string) (string, error) {
	out, err := output(ctx, root, append(os.Environ(), "GIT_INDEX_FILE="+index), "git", args...)
	return strings.TrimSpace(string(out)), err
}

// output runs a command and returns what it prints; on failure the error has what it says.
func output(ctx context.Context, dir string, env []string, command string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, command, args...) // #nosec G204: commands of this program and of the Dockerfile
	cmd.Dir, cmd.Env = dir, env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", command, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// recipe is what the Dockerfile says of the image.
type recipe struct {
	compile    string // the command that compiles the operator, for $TARGETOS and $TARGETARCH
	base       string // what the last stage builds on
	binary     string // where the operator is in the image
	user       string
	entrypoint []string
}

// readDockerfile understands what our Dockerfile uses. Anything else in its last stage is an error, since the image
// would not be what the Dockerfile says.
func readDockerfile(file string) (r recipe, err error) {
	text, err := os.ReadFile(file) // #nosec G304: a file of the project
	if err != nil {
		return r, err
	}
	stages := strings.Split("\n"+strings.ReplaceAll(string(text), "\\\n", ""), "\nFROM ")
	for _, line := range strings.Split(strings.Join(stages[:len(stages)-1], "\n"), "\n") {
		if command, ok := strings.CutPrefix(line, "RUN "); ok && strings.Contains(command, "go build") {
			r.compile = command
		}
	}
	lines := strings.Split(strings.TrimSpace(stages[len(stages)-1]), "\n")
	r.base = lines[0]
	for _, line := range lines[1:] {
		instruction, value, _ := strings.Cut(line, " ")
		switch instruction {
		case "COPY":
			_, r.binary, _ = strings.Cut(strings.TrimPrefix(value, "--from=build "), " ")
		case "USER":
			r.user = value
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(value), &r.entrypoint)
		default:
			err = fmt.Errorf("cannot follow %q", line)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}
