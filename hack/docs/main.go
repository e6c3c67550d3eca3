// Command docs writes the tables of the documentation that come from code: of the errors, from package ecs, and
// of the flags, from what the manager prints for --help. A table stands in README.md or docs/*.md between
// <!-- errors --> or <!-- flags --> and <!-- end -->. Run it in the root of the project.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

var region = regexp.MustCompile(`(?s)<!-- (\w+) -->\n.*?<!-- end -->`)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run() error {
	flags, err := flagTable()
	if err != nil {
		return err
	}
	tables := map[string]string{"errors": errorTable(), "flags": flags}
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		return err
	}
	for _, file := range append(files, "README.md") {
		if err := rewrite(file, tables); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// rewrite replaces the tables of one file.
func rewrite(file string, tables map[string]string) error {
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var unknown error
	after := region.ReplaceAllFunc(before, func(found []byte) []byte {
		name := string(region.FindSubmatch(found)[1])
		table, ok := tables[name]
		if !ok {
			unknown = fmt.Errorf("no table is called %q", name)
		}
		return fmt.Appendf(nil, "<!-- %s -->\n%s<!-- end -->", name, table)
	})
	if unknown != nil || bytes.Equal(before, after) {
		return unknown
	}
	return os.WriteFile(file, after, 0o644) // #nosec G306: documentation is for everybody
}

func errorTable() string {
	var b strings.Builder
	b.WriteString("| ECS code | HTTP | condition | class | what to do |\n|---|---|---|---|---|\n")
	for _, meaning := range ecs.Meanings {
		condition := "–"
		if meaning.Condition != "" {
			condition = "`" + meaning.Condition + "`"
		}
		http := meaning.HTTP
		if http == "" {
			http = "–"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", meaning.Code, http, condition, meaning.Class, meaning.Advice)
	}
	return b.String()
}

// A flag and its text, as package flag prints them.
var flagText = regexp.MustCompile(`(?m)^  -(\S+)(?: \w+)?\n\s+(.*?)(?: \(default "?(.*?)"?\))?$`)

func flagTable() (string, error) {
	// It exits with an error after printing, as package flag has it for --help in some versions.
	help, err := exec.CommandContext(context.Background(), "go", "run", ".", "--help").CombinedOutput()
	flags := flagText.FindAllStringSubmatch(string(help), -1)
	if len(flags) == 0 {
		return "", fmt.Errorf("the manager's --help: %w: %s", err, help)
	}
	var b strings.Builder
	b.WriteString("| flag | default | meaning |\n|---|---|---|\n")
	for _, flag := range flags {
		byDefault := "–"
		if flag[3] != "" {
			byDefault = "`" + flag[3] + "`"
		}
		fmt.Fprintf(&b, "| `--%s` | %s | %s |\n", flag[1], byDefault, strings.ReplaceAll(flag[2], "|", `\|`))
	}
	return b.String(), nil
}
