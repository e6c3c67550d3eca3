package main

import (
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/internal/controller/customimage/decision"
)

func TestEachPageOfACodeBeginsWithItsTable(t *testing.T) {
	t.Chdir("../..")
	for _, meaning := range decision.Meanings {
		reason := reportOn(meaning).Page
		t.Run(meaning.Pattern, func(t *testing.T) {
			g := NewWithT(t)
			text, err := os.ReadFile(reasonPages + "/" + reason + ".md")
			g.Expect(err).NotTo(HaveOccurred())
			begins := "# " + reason + "\n\n<!-- reason -->\n" + codeTable(reason) + "<!-- end -->\n\n## "
			g.Expect(strings.HasPrefix(string(text), begins)).To(BeTrue(), "run `make docs`")
			g.Expect(codeTable(reason)).To(ContainSubstring("| `" + meaning.Pattern + "` |"))
		})
	}
}

func TestPagesOfOtherReasonsHaveNoTable(t *testing.T) {
	t.Chdir("../..")
	g := NewWithT(t)
	pages, err := pagesOfReasons()
	g.Expect(err).NotTo(HaveOccurred())
	for _, page := range pages {
		text, err := os.ReadFile(page)
		g.Expect(err).NotTo(HaveOccurred())
		hasCodes := len(meaningsOf(reasonOf(page))) > 0
		g.Expect(strings.Contains(string(text), "<!-- reason -->")).To(Equal(hasCodes), page)
	}
}
