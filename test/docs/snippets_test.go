package docs

import (
	"os"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// block is a piece of code that stands alone on a page: fenced, or indented and then without a language.
type block struct{ file, indent, language, text string }

var (
	fence    = regexp.MustCompile("(?ms)^( *)```([^\n`]*)\n(.*?)^ *```$")
	indented = regexp.MustCompile(`\n\n((?: {4}.*\n|\n)+)`)
	span     = regexp.MustCompile("`([^`]+)`")
	// unseen is code that the expressions above do not find.
	unseen = regexp.MustCompile("(?m)```|~~~|<pre|<code|^\t")

	continued = regexp.MustCompile(`\\\n\s*`)
	// prompted is a command in a record of a session. What follows it is output, except the rest of a long line.
	prompted = regexp.MustCompile(`(?m)^ *\$ (.*(?:\n +--.*)*)`)
	remark   = regexp.MustCompile(`(?:^|\s+)# .*`)
	// worded is a command among the texts in backquotes, and not the name of something, a field with its value or a flag.
	worded = regexp.MustCompile(`^[a-z][\w./-]* [^→]+$`)
)

// blocks returns the blocks of a page.
func blocks(g Gomega, file string) (found []block) {
	text := read(g, file)
	for _, b := range fence.FindAllStringSubmatch(text, -1) {
		found = append(found, block{file, b[1], b[2], strings.ReplaceAll("\n"+b[3], "\n"+b[1], "\n")})
	}
	text = fence.ReplaceAllString(text, "")
	g.Expect(text).NotTo(MatchRegexp(unseen.String()), file+": fence code with ``` alone on its line, or indent it with spaces")
	for _, b := range indented.FindAllStringSubmatch(text, -1) {
		found = append(found, block{file: file, text: b[1]})
	}
	return found
}

// commands returns each command that a reader may run, with its pages.
func commands(g Gomega) map[string][]string {
	found := map[string][]string{}
	for _, file := range documents(g) {
		for _, command := range commandsOf(g, file) {
			found[command] = append(found[command], file)
		}
	}
	return found
}

func commandsOf(g Gomega, file string) (found []string) {
	for _, b := range blocks(g, file) {
		if b.language == "" {
			for _, line := range lines(b.text) {
				found = append(found, apart(line)...)
			}
		}
	}
	for _, s := range span.FindAllStringSubmatch(fence.ReplaceAllString(read(g, file), ""), -1) {
		if text := oneLine(s[1]); worded.MatchString(text) {
			found = append(found, apart(text)...)
		}
	}
	return found
}

// lines returns the commands of a block, each on one line and without a remark.
func lines(text string) (found []string) {
	text = continued.ReplaceAllString(text, "")
	if session := prompted.FindAllStringSubmatch(text, -1); session != nil {
		for _, command := range session {
			found = append(found, oneLine(command[1]))
		}
		return found
	}
	open := ""
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, inPrometheus+"\n") {
			line = remark.ReplaceAllString(line, "")
		}
		if open += line; strings.Count(open, "'")%2 == 1 { // a quoted text goes on
			continue
		}
		if open = oneLine(open); open != "" {
			found = append(found, open)
		}
		open = ""
	}
	if open != "" { // no shell takes it
		found = append(found, oneLine(open))
	}
	return found
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// apart returns the commands of a line, except that those of git build on each other.
func apart(line string) []string {
	if !strings.HasPrefix(line, "git ") {
		line = strings.ReplaceAll(line, " && ", " | ")
	}
	return strings.Split(line, " | ")
}

const page = `# A page

Run

    a --flag    # the remark isn't part of it
    b 'one
      two' \\
      three

or "c in
the text", but not "name", "field: value", "--flag value", "a → b" and "An example".

1. In a list:

       d | e && f

   """
   g
   """

   """json
   {"h": 1}
   """

A session:

    $ i \\
        j
    output
    $ k
        --long
    other    # in Prometheus

A query:

    l    # in Prometheus
    git m && git n
    o 'open
`

func TestCommandsAreFoundInEveryForm(t *testing.T) {
	g, file := NewWithT(t), t.TempDir()+"/page.md"
	text := strings.NewReplacer(`"""`, "```", `"`, "`", `\\`, `\`).Replace(page)
	g.Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
	g.Expect(commandsOf(g, file)).To(ConsistOf("a --flag", "b 'one two' three", "c in the text", "d", "e", "f", "g", "i j", "k --long",
		"l # in Prometheus", "git m && git n", "o 'open"))
	for _, hidden := range []string{"~~~\na\n~~~", "\n\n\ta", "<pre>a</pre>", "```\na"} {
		g.Expect(unseen.MatchString(fence.ReplaceAllString(hidden, ""))).To(BeTrue(), hidden)
	}
}
