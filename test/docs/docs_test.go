// Package docs tests that the documentation is whole: a page for each reason, no link to nowhere, no test named that does
// not exist, and no command or manifest that nothing checks.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
	"github.com/imagegc/ecs-image-gc/internal/ecs"
)

const root = "../.."

// reasons are all that a condition can have, but for those of codes that nobody knows: the constants of the API, and
// the codes that are said as they are.
func reasons(g *WithT) map[string]bool {
	found := map[string]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), root+"/api/v1alpha1/reasons.go", nil, 0)
	g.Expect(err).NotTo(HaveOccurred())
	ast.Inspect(file, func(node ast.Node) bool {
		if spec, ok := node.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			g.Expect(err).NotTo(HaveOccurred())
			found[value] = true
		}
		return true
	})
	for _, meaning := range decision.Meanings {
		if meaning.Class != ecs.Throttled && meaning.Class != ecs.Transient {
			found[meaning.Page()] = true
		}
	}
	found["Retrying"] = true // the reason of all transient codes
	return found
}

func pages(g *WithT) map[string]string {
	files, err := filepath.Glob(root + "/docs/reasons/*.md")
	g.Expect(err).NotTo(HaveOccurred())
	texts := map[string]string{}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".md"); name != "README" {
			texts[name] = read(g, file)
		}
	}
	return texts
}

func read(g Gomega, file string) string {
	text, err := os.ReadFile(file) // #nosec G304: a file of the project
	g.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

func TestEachReasonHasAPageAndEachPageAReason(t *testing.T) {
	g := NewWithT(t)
	all, written := reasons(g), pages(g)
	g.Expect(len(all)).To(BeNumerically(">", 30), "the reasons were not found")
	for reason := range all {
		g.Expect(written).To(HaveKey(reason), "docs/reasons/%s.md is missing", reason)
	}
	for page := range written {
		g.Expect(all).To(HaveKey(page), "no condition has the reason of docs/reasons/%s.md", page)
	}
	index := read(g, root+"/docs/reasons/README.md")
	for reason := range all {
		g.Expect(index).To(ContainSubstring("["+reason+"]("+reason+".md)"), "run `make docs`")
	}
}

// codes is the table of the codes of a reason, which `make docs` writes.
var codes = regexp.MustCompile(`(?s)<!-- reason -->.*?<!-- end -->`)

var sections = []string{"What it means", "Why it happens", "What to do", "When the operator retries"}

func TestEachPageHasTheSameSectionsWithWordsInThem(t *testing.T) {
	for name, text := range pages(NewWithT(t)) {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			parts := strings.Split(text, "\n## ")
			beginning, rest, _ := strings.Cut(parts[0], "\n")
			g.Expect(beginning).To(Equal("# " + name))
			g.Expect(strings.TrimSpace(codes.ReplaceAllString(rest, ""))).To(BeEmpty())
			g.Expect(parts).To(HaveLen(1 + len(sections)))
			for n, section := range sections {
				heading, body, _ := strings.Cut(parts[n+1], "\n")
				g.Expect(heading).To(Equal(section))
				g.Expect(strings.TrimSpace(body)).NotTo(BeEmpty(), section)
			}
			g.Expect(strings.Count(text, "\n")).To(BeNumerically("<=", 60), "a page must be short enough to read at night")
		})
	}
}

func TestEachDecisionHasFourSectionsAndIsInTheIndex(t *testing.T) {
	g := NewWithT(t)
	index := read(g, root+"/docs/adr/README.md")
	files, err := filepath.Glob(root + "/docs/adr/[0-9]*.md")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).NotTo(BeEmpty())
	for n, file := range files {
		text := read(g, file)
		g.Expect(text).To(HavePrefix("# "+strconv.Itoa(n+1)+". "), file)
		g.Expect(text).To(MatchRegexp(`(?s)\n## Status\n.+\n## Context\n.+\n## Decision\n.+\n## Consequences\n.+`), file)
		g.Expect(strings.Count(text, "\n")).To(BeNumerically("<=", 60), file)
		g.Expect(index).To(ContainSubstring("("+filepath.Base(file)+")"), file)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fenced  = regexp.MustCompile("(?s)```.*?```")
	// aFile is a path of the project in backquotes.
	aFile = regexp.MustCompile("`((?:api|config|docs|hack|internal|test)/[\\w./-]+|[\\w-]+\\.(?:go|md|yaml))`")
)

// documents are the pages that people wrote.
func documents(g Gomega) (found []string) {
	for _, pattern := range []string{"/*.md", "/.github/*.md", "/charts/*/*.md", "/docs/*.md", "/docs/*/*.md", "/hack/*/*.md"} {
		files, err := filepath.Glob(root + pattern)
		g.Expect(err).NotTo(HaveOccurred())
		found = append(found, files...)
	}
	g.Expect(len(found)).To(BeNumerically(">", 40))
	return found
}

func TestNoLinkLeadsNowhere(t *testing.T) {
	for _, file := range documents(NewWithT(t)) {
		t.Run(file, func(t *testing.T) {
			g := NewWithT(t)
			for _, found := range link.FindAllStringSubmatch(fenced.ReplaceAllString(read(g, file), ""), -1) {
				path, anchor, _ := strings.Cut(found[1], "#")
				if strings.Contains(path, "://") {
					continue
				}
				target := file
				if path != "" {
					target = filepath.Join(filepath.Dir(file), path)
					g.Expect(target).To(BeAnExistingFile())
				}
				if anchor != "" {
					g.Expect(anchors(g, target)).To(ContainElement(anchor), found[1])
				}
			}
		})
	}
}

// anchors are what the headings of a page are linked to by.
func anchors(g *WithT, file string) (found []string) {
	notInAnchors := regexp.MustCompile(`[^a-z0-9 _-]`)
	for _, text := range heading.FindAllStringSubmatch(read(g, file), -1) {
		found = append(found, strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(text[1]), ""), " ", "-"))
	}
	return found
}

func TestEachFileThatIsNamedExists(t *testing.T) {
	generated := []string{"/dist/install.yaml", "/trust.json", "/policy.json"}
	all := strings.Join(append(paths(NewWithT(t)), generated...), "\n") + "\n"
	for _, file := range documents(NewWithT(t)) {
		t.Run(file, func(t *testing.T) {
			g := NewWithT(t)
			for _, found := range aFile.FindAllStringSubmatch(fenced.ReplaceAllString(read(g, file), ""), -1) {
				g.Expect(strings.Contains(all, "/"+strings.TrimSuffix(found[1], "/")+"\n")).To(BeTrue(), found[1])
			}
		})
	}
}

// paths are the files and folders of the project.
func paths(g *WithT) (found []string) {
	g.Expect(filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if name := entry.Name(); entry.IsDir() && (name == ".git" || name == "bin") { // in a worktree .git is a file
			return filepath.SkipDir
		}
		found = append(found, path)
		return err
	})).To(Succeed())
	return found
}

var (
	// quoted is a file of tests and sentences in it: `FILE`: "SENTENCE", "SENTENCE".
	quoted   = regexp.MustCompile("`([\\w./-]+_test\\.go)`:((?:,?\\s+\"[^\"]+\")+)")
	sentence = regexp.MustCompile(`"([^"]+)"`)
)

func TestEachTestThatIsQuotedExists(t *testing.T) {
	count := 0
	for _, file := range documents(NewWithT(t)) {
		g := NewWithT(t)
		for _, found := range quoted.FindAllStringSubmatch(read(g, file), -1) {
			tests := read(g, filepath.Join(root, found[1]))
			for _, words := range sentence.FindAllStringSubmatch(found[2], -1) {
				name := strings.Join(strings.Fields(words[1]), " ")
				exists := strings.Contains(tests, strconv.Quote(name)) || strings.Contains(tests, "func "+name+"(")
				g.Expect(exists).To(BeTrue(), "%s quotes %q of %s", file, name, found[1])
				count++
			}
		}
	}
	NewWithT(t).Expect(count).To(BeNumerically(">", 20), "docs/security.md quotes the test of each claim")
}

// TestScenarios checks that the scenarios exist which docs/reliability.md names for each hole.
func TestScenarios(t *testing.T) {
	g := NewWithT(t)
	_, table, found := strings.Cut(read(g, root+"/docs/reliability.md"), "| hole | scenario |")
	g.Expect(found).To(BeTrue())
	table, _, _ = strings.Cut(table, "\n\n")
	names := regexp.MustCompile("`([a-z-]+)`[,|\\s]*").FindAllStringSubmatch(regexp.MustCompile(`(?m)^\|.*?\|`).ReplaceAllString(table, ""), -1)
	g.Expect(len(names)).To(BeNumerically(">", 15), "the table was not found")
	scenarios := read(g, root+"/test/faults/scenarios_test.go")
	for _, name := range names {
		g.Expect(scenarios).To(MatchRegexp(`(name: |vetoed\(|cleared\()"` + name[1] + `"`))
	}
}
