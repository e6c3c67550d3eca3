// Command docs writes the tables of the documentation that come from code: of the errors, from package decision, all of them
// or those alone that an image is the cause of (obstacles); of the flags, from what the manager prints for --help; and
// of the reasons, from their pages in docs/reasons. A table stands between <!-- errors -->, <!-- obstacles -->,
// <!-- flags --> or <!-- reasons --> and <!-- end -->. Run it in the root of the project.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
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
	reasons, err := reasonTable()
	if err != nil {
		return err
	}
	tables := map[string]string{
		"errors": errorTable(decision.Meanings), "obstacles": errorTable(obstacles()), "flags": flags, "reasons": reasons,
	}
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		return err
	}
	for _, file := range append(files, "README.md", reasonPages+"/README.md") {
		if err := rewrite(file, tables); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// writtenElsewhere is the table of permissions, by the test in test/install that measures them.
const writtenElsewhere = "permissions"

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
		if name == writtenElsewhere {
			return found
		}
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

// obstacles are the errors of which the state of an image is the cause.
func obstacles() []decision.Meaning {
	return slices.DeleteFunc(slices.Clone(decision.Meanings), func(m decision.Meaning) bool {
		return !slices.Contains([]ecs.Class{ecs.Blocked, ecs.Waiting, ecs.Gone}, m.Class)
	})
}

func errorTable(meanings []decision.Meaning) string {
	var b strings.Builder
	b.WriteString("| ECS code | HTTP | condition | class | what to do |\n|---|---|---|---|---|\n")
	for _, meaning := range meanings {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", meaning.Pattern, cmp.Or(meaning.HTTP, "–"),
			code(meaning.Condition), meaning.Class, filledIn.Replace(meaning.Advice))
	}
	return b.String()
}

// filledIn says in general what the operator fills in for one object.
var filledIn = strings.NewReplacer(
	"{origin}", "*the source of the key*",
	"{action}", "*the refused action*",
	"{operator}", "--serviceaccount=imagegc-system:imagegc-controller-manager",
	"{namespace}", "NAMESPACE",
	"{secret}", "SECRET",
	"{keeping}", " and keep the image",
	"{wait}", "*so long*",
	"{name}", "NAME",
	"{imageID}", "IMAGE",
)

func code(text string) string {
	if text == "" {
		return "–"
	}
	return "`" + text + "`"
}

// reasonPages is where each reason has a page, which is called like it.
const reasonPages = "docs/reasons"

// reasonTable lists the pages, with the first sentence of each. Tests see to it that they are those of the code.
func reasonTable() (string, error) {
	pages, err := filepath.Glob(reasonPages + "/[A-Z]*.md")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| reason | ECS code | condition | what it means |\n|---|---|---|---|\n")
	for _, page := range pages {
		text, err := os.ReadFile(page) // #nosec G304: a page of the documentation
		if err != nil {
			return "", err
		}
		reason := strings.TrimSuffix(filepath.Base(page), ".md")
		sentence := firstSentence.FindSubmatch(text)
		if sentence == nil {
			if reason == "README" {
				continue
			}
			return "", fmt.Errorf("%s does not say what it means", page)
		}
		codes, condition := codesOf(reason)
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s | %s |\n", reason, reason, codes, code(condition),
			bytes.ReplaceAll(sentence[1], []byte("\n"), []byte(" ")))
	}
	return b.String(), nil
}

var firstSentence = regexp.MustCompile(`(?s)\n## What it means\n\n(.*?[.])\s`)

// codesOf returns the codes that have this page, and their condition.
func codesOf(page string) (codes, condition string) {
	for _, meaning := range decision.Meanings {
		if meaning.Condition != "" && meaning.Page() == page {
			codes, condition = strings.TrimPrefix(codes+", "+code(meaning.Pattern), ", "), meaning.Condition
		}
	}
	return cmp.Or(codes, "–"), condition
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
