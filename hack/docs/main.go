// Command docs writes the tables of the documentation that come from code: of the errors, from package decision, all of them
// or only those that an image is the cause of (obstacles); of the codes of one reason, on its page in docs/reasons (reason);
// of the reasons, from these pages; and of the flags, from what the manager prints for --help. A table stands between
// <!-- errors -->, <!-- obstacles -->, <!-- reason -->, <!-- reasons --> or <!-- flags --> and <!-- end -->. Run it in the
// root of the project.
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
	"time"

	"github.com/imagegc/ecs-image-gc/api/v1alpha1"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage"
	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
	"github.com/imagegc/ecs-image-gc/internal/openapi/failure"
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
	pages, err := pagesOfReasons()
	if err != nil {
		return err
	}
	reasons, err := reasonTable(pages)
	if err != nil {
		return err
	}
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		return err
	}
	tables := map[string]string{
		"errors": errorTable(decision.Meanings), "obstacles": errorTable(obstacles()), "flags": flags, "reasons": reasons,
	}
	for _, file := range append(files, "README.md", reasonPages+"/README.md") {
		if err := rewrite(file, tables); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for _, page := range pages {
		if err := rewrite(page, map[string]string{"reason": codeTable(reasonOf(page))}); err != nil {
			return fmt.Errorf("%s: %w", page, err)
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

// pagesOfReasons returns the files of the pages, without the index.
func pagesOfReasons() ([]string, error) {
	files, err := filepath.Glob(reasonPages + "/[A-Z]*.md")
	return slices.DeleteFunc(files, func(file string) bool { return reasonOf(file) == "README" }), err
}

func reasonOf(page string) string { return strings.TrimSuffix(filepath.Base(page), ".md") }

// reasonTable lists the pages, with the first sentence of each. Tests see to it that they are those of the code.
func reasonTable(pages []string) (string, error) {
	var b strings.Builder
	b.WriteString("| reason | code | condition | what it means |\n|---|---|---|---|\n")
	for _, page := range pages {
		text, err := os.ReadFile(page) // #nosec G304: a page of the documentation
		if err != nil {
			return "", err
		}
		sentence := firstSentence.FindSubmatch(text)
		if sentence == nil {
			return "", fmt.Errorf("%s does not say what it means", page)
		}
		var codes []string
		condition := ""
		for _, meaning := range meaningsOf(reasonOf(page)) {
			codes, condition = append(codes, code(meaning.Pattern)), meaning.Condition
		}
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s | %s |\n", reasonOf(page), reasonOf(page),
			cmp.Or(strings.Join(codes, ", "), "–"), code(condition), bytes.ReplaceAll(sentence[1], []byte("\n"), []byte(" ")))
	}
	return b.String(), nil
}

var firstSentence = regexp.MustCompile(`(?s)\n## What it means\n\n(.*?[.])\s`)

// codeTable lists the codes that have this reason, with what follows from their class.
func codeTable(reason string) string {
	var b strings.Builder
	b.WriteString("| code | HTTP | conditions | class | first wait | longest wait |\n|---|---|---|---|---|---|\n")
	for _, meaning := range meaningsOf(reason) {
		conditions := code(reportOn(meaning).Summary)
		if meaning.Condition != "" {
			conditions = code(meaning.Condition) + ", " + conditions
		}
		first, longest := waits(meaning.Class)
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n",
			code(meaning.Pattern), cmp.Or(meaning.HTTP, "–"), conditions, meaning.Class, first, longest)
	}
	return b.String()
}

// meaningsOf returns the rows of the table of errors whose codes have the page of this reason.
func meaningsOf(reason string) []decision.Meaning {
	return slices.DeleteFunc(slices.Clone(decision.Meanings), func(m decision.Meaning) bool {
		return reportOn(m).Page != reason
	})
}

// reportOn returns what the operator reports when a call fails with the code of a row.
func reportOn(m decision.Meaning) decision.Report {
	facts := decision.Facts{Image: &v1alpha1.CustomImage{}, Failure: &failure.Error{Code: m.Pattern}}
	switch v := decision.Explain(facts).(type) {
	case decision.Report:
		return v
	case decision.Retry:
		return v.Report
	}
	return decision.Report{}
}

// waits returns the first and the longest wait between two attempts.
func waits(class ecs.Class) (first, longest string) {
	backoff := customimage.DefaultBlocked
	switch class {
	case ecs.Throttled:
		return "the object's turn", "–"
	case ecs.Waiting:
		backoff = customimage.DefaultWaiting
	case ecs.Transient:
		backoff = customimage.Failing
	}
	return inWords(backoff.First), inWords(backoff.Longest)
}

func inWords(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
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
