package docs

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/imagegc/ecs-image-gc/test/cluster"
)

// What a line is if it begins with no program.
const (
	assignment   = "an assignment"
	managersFlag = "a flag of the manager"
	inPrometheus = "# in Prometheus"
)

// programs are the checks of commands, by their program.
var programs = map[string]func(ctx context.Context, command string){
	"aliyun": expectAction, "go": expectGo, "helm": expectRunWithChart, "kubectl": expectAccepted, "make": expectTarget,
	"diff": expectDone, "git": expectDone, "set": expectDone, "sha256sum": expectDone, assignment: expectDone,
	"base64": expectFilter, "grep": expectFilter, "od": expectFilter, managersFlag: expectFlag,
	"cosign": expectReleased, "crane": expectRequest, "gh": expectReleased,
}

// elsewhere is what is not checked here, and why: queries, a language, and single commands.
var elsewhere = map[string]string{
	inPrometheus: "test/gitops/alerts_test.go parses the query",
	"mermaid":    "GitHub draws it",

	// What these do needs what is not here. Compare a command with the help of its program by hand.
	"apt-get install -y --no-install-recommends busybox-static buildah ipset iptables nftables runc": "changes the machine",
	"chronyc tracking": "is for a node of the user",
	`curl -sS -o /dev/null -w '%{http_code}\n' https://ecs.REGION.aliyuncs.com/`: "calls Alibaba Cloud",
	"docker build": "needs a daemon",
	"hack/node/node.sh exec kubectl get pods -A": "needs the node that `make node` starts",
	"hack/node/node.sh exec bash":                "the same",
	"ls bin/node/state/var/log/node":             "the same",
}

func programOf(command string) string {
	word, _, _ := strings.Cut(command, " ")
	switch {
	case strings.HasSuffix(command, inPrometheus):
		return inPrometheus
	case strings.HasPrefix(word, "--"):
		return managersFlag
	case word == "export" || regexp.MustCompile(`^\w+=`).MatchString(word):
		return assignment
	}
	return word
}

func expectChecked(ctx context.Context, command string) {
	GinkgoHelper()
	program := programOf(command)
	if check := programs[program]; check != nil {
		check(ctx, command)
		return
	}
	Expect(elsewhere).To(Or(HaveKey(command), HaveKey(program)),
		"nothing checks this: add a check to programs, or the reason for none to elsewhere")
}

var _ = DescribeTable("The checks refuse", func(ctx SpecContext, command string) {
	Expect(InterceptGomegaFailure(func() { expectChecked(ctx, command) })).To(HaveOccurred())
},
	Entry(nil, "unknown-program --flag"),
	Entry(nil, "docker build --unknown"),
	Entry(nil, "--unknown-flag=value"),
	Entry(nil, "make unknown-target"),
	Entry(nil, "make demo VERSION=v0.1.0"),
	Entry(nil, "make mutants MUTANT=unknown"),
	Entry(nil, "make faults PLAN=unknown/DeleteImage.1/lost"),
	Entry(nil, "make bench ARGS=--unknown=1"),
	Entry(nil, "go test ./internal/unknown"),
	Entry(nil, "go test ./internal/openapi -run TestUnknown"),
	Entry(nil, "go test ./test/admission -ginkgo.focus='an unknown sentence'"),
	Entry(nil, "go run ./hack/ecssim --unknown"),
	Entry(nil, "helm install unknown"),
	Entry(nil, "diff digests.txt unknown"),
	Entry(nil, "sha256sum --check unknown"),
	Entry(nil, "export KUBEBUILDER_ASSETS=$(hack/unknown.sh)"),
	Entry(nil, "set -euo unknown"),
	Entry(nil, "git checkout v9.9.9"),
	Entry(nil, "git clone https://github.com/imagegc/unknown"),
	Entry(nil, "grep --unknown"),
	Entry(nil, "kubectl get unknown"),
	Entry(nil, "kubectl get cimg --unknown"),
	Entry(nil, "crane manifest --unknown ghcr.io/imagegc/ecs-image-gc:v0.1.0"),
	Entry(nil, "crane manifest ghcr.io/imagegc/ecs-image-gc:v0.1.0:1"),
	Entry(nil, "cosign verify-blob --bundle unknown.sigstore.json checksums.txt"),
	Entry(nil, "gh attestation verify unknown.yaml --repo imagegc/ecs-image-gc"),
	Entry(nil, "aliyun unknown GetCallerIdentity"),
	Entry(nil, "aliyun ecs UnknownAction"),
	Entry(nil, "aliyun ecs RebootInstance --InstanceId 1"), // not in the table of actions
	Entry(nil, "aliyun ecs CancelTask --Unknown 1"),
	Entry(nil, "aliyun ecs CancelTask --TaskId"),
	Entry(nil, "aliyun ecs CancelTask --TaskId.1 1"),
	Entry(nil, `aliyun ram CreatePolicy --PolicyDocument '{"Version":"1","Statement":[]}'`),
)

// words are the arguments of a command, as a shell takes it apart.
func words(ctx context.Context, command string) []string {
	GinkgoHelper()
	output := shell(ctx, `printf '%s\0' `+command)
	Expect(output.Err).NotTo(HaveOccurred())
	return strings.Split(strings.TrimSuffix(output.Stdout, "\x00"), "\x00")
}

var variable = regexp.MustCompile(`\b([A-Z]+)=(?:'([^']*)'|(\S+))`)

// expectTarget expects that make has the targets, and that each variable changes what they do.
func expectTarget(ctx context.Context, command string) {
	GinkgoHelper()
	dryRun := func(command string) string {
		output := shell(ctx, strings.Replace(command, "make", "make --dry-run", 1))
		Expect(output.Err).NotTo(HaveOccurred())
		return output.Stdout
	}
	does := dryRun(command)
	for _, found := range variable.FindAllStringSubmatch(command, -1) {
		name, value := found[1], found[2]+found[3]
		Expect(dryRun(strings.Replace(command, found[0], name+"=", 1))).NotTo(Equal(does), name+" changes nothing")
		switch name {
		case "MUTANT":
			Expect(root + "/test/faults/mutants/" + value + ".patch").To(BeAnExistingFile())
		case "PLAN":
			if scenario, _, whole := strings.Cut(value, "/"); whole {
				expectText("/test/faults/scenarios_test.go", `{name: "`+scenario+`"`)
			}
		case "ARGS":
			for argument := range strings.FieldsSeq(value) {
				flag, _, _ := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
				expectText("/hack/bench/main.go", `, "`+flag+`", `)
			}
		}
	}
}

// expectGo expects that `go run` accepts the flags, and that `go test` finds the tests.
func expectGo(ctx context.Context, command string) {
	GinkgoHelper()
	if strings.HasPrefix(command, "go run ") {
		Expect(cluster.Run(ctx, "bash", "-c", command+" --help").Err).NotTo(HaveOccurred())
		return
	}
	arguments, folder := words(ctx, command), root
	if arguments[1] == "-C" {
		arguments, folder = arguments[2:], filepath.Join(root, arguments[2])
	}
	Expect(arguments[1]).To(Equal("test"))
	for _, argument := range arguments {
		if !strings.HasPrefix(argument, ".") {
			continue
		}
		files, err := filepath.Glob(filepath.Join(folder, argument, "*_test.go"))
		Expect(err).NotTo(HaveOccurred())
		Expect(files).NotTo(BeEmpty())
		tests := ""
		for _, file := range files {
			tests += read(Default, file)
		}
		if n := slices.Index(arguments, "-run"); n > 0 {
			Expect(strings.Contains(tests, "func "+arguments[n+1]+"(")).To(BeTrue(), arguments[n+1])
		}
		for _, argument := range arguments {
			if sentence, found := strings.CutPrefix(argument, "-ginkgo.focus="); found {
				Expect(says(tests, sentence)).To(BeTrue(), sentence)
			}
		}
	}
}

// says reports whether tests have a sentence, alone or as the end of what its container is called and the beginning of its
// own name.
func says(tests, sentence string) bool {
	for n, letter := range sentence {
		if letter == ' ' && strings.Contains(tests, sentence[:n]+`"`) && strings.Contains(tests, `"`+sentence[n+1:]) {
			return true
		}
	}
	return strings.Contains(tests, sentence)
}

// expectRunWithChart expects that test/chart runs the command: it runs those of two pages and, of other pages, those for a
// release that is installed.
func expectRunWithChart(_ context.Context, command string) {
	GinkgoHelper()
	inOrder := []string{root + "/README.md", root + "/charts/ecs-image-gc/README.md"}
	for run, pages := range commands(Default) {
		for _, page := range pages {
			isOfInstalled := regexp.MustCompile("^helm (upgrade|get) ").MatchString(run) &&
				(filepath.Dir(page) == root+"/docs" || filepath.Dir(page) == root+"/docs/reasons")
			if strings.HasPrefix(run, command) && (slices.Contains(inOrder, page) || isOfInstalled) {
				return
			}
		}
	}
	Expect(command).To(BeEmpty(), "test/chart does not run it")
}

// release is what the commands of a maintainer work on: a clone of a repository, and the files of a release.
const release = `
set -e; export HOME=$PWD
git config --global user.name a; git config --global user.email a@example.com
git config --global url."$PWD/origin".insteadOf https://github.com/imagegc/ecs-image-gc
git init --bare origin; git clone origin work; cd work; git commit --allow-empty --message a
mkdir -p bin/release; echo a | tee digests.txt bin/release/digests.txt >missing
sha256sum digests.txt missing >checksums.txt; rm missing
`

// expectDone does what a command says, in a folder of its own.
func expectDone(ctx context.Context, command string) {
	GinkgoHelper()
	tagged := ""
	if !strings.HasPrefix(command, "git tag ") {
		tagged = "git tag v0.1.0; "
	}
	// The status of an export is never that of the command in it.
	command = strings.ReplaceAll(strings.TrimPrefix(command, "export "), "hack/", "$project/hack/")
	Expect(shell(ctx, "project=$PWD; cd "+GinkgoT().TempDir()+release+tagged+command).Err).NotTo(HaveOccurred())
}

// expectFilter expects that a program that reads the output of another accepts its arguments. 1 is a grep without a find.
func expectFilter(ctx context.Context, command string) {
	GinkgoHelper()
	Expect(shell(ctx, command+" </dev/null || [ $? = 1 ]").Err).NotTo(HaveOccurred())
}

// expectFlag expects a flag in the table that `make docs` writes from the manager's help.
func expectFlag(_ context.Context, flag string) {
	GinkgoHelper()
	name, _, _ := strings.Cut(flag, "=")
	expectText("/README.md", "| `"+name+"` |")
}

func expectText(file, text string) {
	GinkgoHelper()
	Expect(strings.Contains(read(Default, root+file), text)).To(BeTrue(), "%s lacks %s", file, text)
}

// expectRequest expects that crane understands the command and the name of the image: it gets as far as the registry.
func expectRequest(ctx context.Context, command string) {
	GinkgoHelper()
	program, args, _ := strings.Cut(command, " ")
	compiled := cluster.Run(ctx, "go", "-C", "hack/release", "tool", "-n", program) // may call what serves modules
	Expect(compiled.Err).NotTo(HaveOccurred())
	const withoutNetwork = "HTTPS_PROXY=http://127.0.0.1:1 NO_PROXY= no_proxy= "
	Expect(cluster.Run(ctx, "bash", "-c", withoutNetwork+strings.TrimSpace(compiled.Stdout)+" "+args).Stderr).
		To(ContainSubstring("connection refused"))
}

// expectReleased expects that the release makes and signs the files that a command verifies. The flags are not checked, and
// nothing is verified: there is no release, and compiling cosign takes much longer than all of this suite.
func expectReleased(_ context.Context, command string) {
	GinkgoHelper()
	made := calls("/hack/release") + read(Default, root+"/.github/workflows/release.yml")
	for word := range strings.FieldsSeq(command) {
		if strings.Contains("|.json|.txt|.yaml|", "|"+filepath.Ext(word)+"|") {
			Expect(strings.Contains(made, word)).To(BeTrue(), word)
		}
	}
}

// ofTheCLI are flags of aliyun that no action has: names from its help, as read by hand.
var ofTheCLI = []string{"mode", "access-key-id", "access-key-secret", "region", "RegionId"}

// expectAction expects that the vendor's SDK has the action and the parameters. That aliyun accepts the command, that no
// parameter is missing and that a value is one of those allowed is not checked: no module holds what aliyun is compiled from,
// since its actions are in a submodule of git.
func expectAction(ctx context.Context, command string) {
	GinkgoHelper()
	arguments := words(ctx, command)
	product, action, parameters := arguments[1], arguments[2], arguments[3:]
	Expect(len(parameters)%2).To(BeZero(), "the last parameter has no value")
	request := request(ctx, product, action)
	for n, parameter := range parameters {
		name, isName := strings.CutPrefix(parameter, "--")
		Expect(isName).To(Equal(n%2 == 0), "names and values take turns: "+parameter)
		if !isName || slices.Contains(ofTheCLI, name) {
			continue
		}
		name, _, numbered := strings.Cut(name, ".")
		field := regexp.MustCompile(`name:"` + name + `"(?: +type:"(\w+)")?`).FindStringSubmatch(request)
		Expect(field).NotTo(BeNil(), parameter)
		repeated := field[1] == "Repeated"
		Expect(repeated).To(Equal(numbered), parameter)
		if strings.HasPrefix(parameters[n+1], "{") {
			expectPolicy(parameters[n+1])
		}
	}
	expectText("/docs/reasons/README.md", "`"+product+":"+action+"`")
}

// request is the type of the parameters of an action, in the source of the SDK that test/clients uses.
func request(ctx context.Context, product, action string) string {
	GinkgoHelper()
	folder := cluster.Run(ctx, "go", "-C", "test/clients", "list", "-find", "-f", "{{.Dir}}",
		"github.com/aliyun/alibaba-cloud-sdk-go/services/"+product)
	Expect(folder.Err).NotTo(HaveOccurred())
	files, err := filepath.Glob(strings.TrimSpace(folder.Stdout) + "/*.go")
	Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		if strings.EqualFold(strings.ReplaceAll(filepath.Base(file), "_", ""), action+".go") {
			_, text, found := strings.Cut(read(Default, file), "type "+action+"Request struct {")
			Expect(found).To(BeTrue(), file)
			text, _, _ = strings.Cut(text, "\n}")
			return text
		}
	}
	Expect(action).To(BeEmpty(), "the SDK has no such action")
	return ""
}
