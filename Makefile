# `make` lists the targets. Only generate, manifests, docs, chart, fmt, tidy, docs-permissions, demo-picture and bench ARGS=--docs
# write to tracked files.

# The image that docker-build makes, and that build-installer and deploy put into the manifests.
IMG ?= $(IMAGE):latest
# The manifests that build-installer and deploy take, by their path from here: config/before-1.36 for an older Kubernetes, or an
# overlay of your own.
OVERLAY ?= config/default
# The platforms of docker-build. PUSH=1 pushes the result, since only a registry holds an image of many platforms.
PLATFORMS ?= linux/amd64,linux/arm64
# In the log and the User-Agent of the images that are built.
VERSION ?= $(shell git describe --tags --always --dirty)
# The name that config/manager gives the image.
IMAGE := imagegc/ecs-image-gc

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The same everywhere, so that nothing is compiled twice.
export CGO_ENABLED ?= 0

GO_TOOL := go tool -modfile=$(CURDIR)/hack/tools/go.mod
MODULES := $(patsubst %/go.mod,%,$(wildcard ./go.mod hack/*/go.mod hack/node/*/go.mod test/*/go.mod))
TEST_MODULES := $(filter-out hack/%,$(MODULES))
LINT_MODULES := $(TEST_MODULES) hack/golangci-lint hack/bench hack/release hack/gitops-controllers hack/gitops-argocd hack/node/coredns

##@ General

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

##@ See it work, on a control plane of its own

.PHONY: demo
demo: build ## Walk images through every documented error to their deletion, checking each step.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go run ./hack/demo

.PHONY: sandbox
sandbox: build ## Start what the demo starts, and stay: prints the kubeconfig and what to try.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go run ./hack/demo --sandbox

.PHONY: node
node: ## Start a Kubernetes node with the operator's image and the simulator, and say how to use it.
	hack/node/node.sh needs
	hack/node/build.sh
	hack/node/images.sh
	hack/node/node.sh up
	hack/node/node.sh exec kubectl apply --server-side -k hack/ecssim
	@cat hack/node/node.txt

.PHONY: node-down
node-down: ## End the node, and see that nothing is left of it.
	hack/node/node.sh down

.PHONY: controlplane
controlplane: ## Find or make the control plane's binaries, and print their directory.
	@hack/controlplane.sh

.PHONY: demo-picture
demo-picture: build ## Write docs/images/demo.svg, the picture of one scene of the demo.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go run ./hack/demo >bin/demo.txt
	sed -n '/^── 2\//,/^── 3\//{/^── 3\//!p}' bin/demo.txt >bin/scene.txt
	go tool -modfile=hack/picture/go.mod freeze --config=hack/picture/freeze.json --output=docs/images/demo.svg bin/scene.txt

##@ Check, as CI does: verify lint test-race test test-chart faults demo bench-short release-dry-run e2e

.PHONY: verify
verify: bin/golangci-lint ## Fail, and print the diff, if generate, manifests, docs, chart, fmt or tidy change a file.
	hack/verify.sh generate manifests docs chart fmt tidy build-installer

.PHONY: lint
lint: bin/golangci-lint lint-workflows ## Run the linters of .golangci.yml on every module with code in it.
	@! grep -rnE --include='*.go' '// *nolint' . || { echo 'no nolint: make an exception in .golangci.yml' >&2; exit 1; }
	for module in $(LINT_MODULES); do (cd $$module && $(CURDIR)/bin/golangci-lint run); done

.PHONY: lint-workflows
lint-workflows: ## Check .github: workflows with actionlint, actions pinned by commit, no module without updates.
	go tool -modfile=hack/actionlint/go.mod actionlint
	@! grep -n 'uses:' .github/workflows/* | grep -vE 'uses: (\./|[^@ ]+@[0-9a-f]{40} # v[0-9.]+$$)' || \
	  { echo 'pin these by commit, with the version in a comment' >&2; exit 1; }
	@for module in $(MODULES); do grep -qxF "  - /$${module#.}" .github/dependabot.yml || \
	  { echo "$$module is missing in .github/dependabot.yml" >&2; exit 1; }; done

# Suites wait for API servers much of the time, so there are more of them at once than cores.
.PHONY: test
test: ## Run all tests: unit tests, and envtest against a real kube-apiserver and etcd.
	assets=$$(hack/controlplane.sh); \
	for module in $(TEST_MODULES); do \
	  KUBEBUILDER_ASSETS=$$assets go -C $$module test -p 3 $$(go -C $$module list ./... | grep -v -e /test/faults -e /test/chart); \
	done

.PHONY: test-chart
test-chart: ## Test the Helm chart with Helm; UPDATE_GOLDEN=1 writes what it renders. The first time compiles Helm, about 3 min.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go test $(if $(UPDATE_GOLDEN),-count=1) ./test/chart

# A package counts as envtest if its tests import that, by whatever way.
.PHONY: test-race
test-race: ## Run what needs no control plane under the race detector (needs a C compiler).
	for module in $(TEST_MODULES); do \
	  packages=$$(go -C $$module list -test -f '{{.ImportPath}} {{.Deps}}' ./... | \
	    awk '$$1 ~ /\.test$$/ && !/controller-runtime\/pkg\/envtest/ {sub(/\.test$$/, "", $$1); print $$1}'); \
	  [ -z "$$packages" ] || CGO_ENABLED=1 go -C $$module test -race $$packages; \
	done

# One plan with PLAN=name, one random sequence with SEED=number: these print all calls. CI does not run all plans with two operators
# at once, PAIRS=1, nor every recorded call with every answer, COMPLETE=1.
.PHONY: faults
faults: ## Let every call of the operator fail, hang, or be its last, and check the promises; 6 min.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go -C test/faults test -count=1 -timeout=3h -parallel=48 \
	  $(if $(PLAN)$(SEED),-v) -run='$(if $(PAIRS)$(COMPLETE),TestPlans,TestPlans|TestKilled|TestSequences)' \
	  $(if $(PAIRS),-pairs) $(if $(COMPLETE),-complete) $(if $(PLAN),-plan=$(PLAN)) $(if $(SEED),-seed=$(SEED))

# One bug with MUTANT=name.
.PHONY: mutants
mutants: ## Put one bug after the other into a copy of the project, and see that a test catches it; 15 min.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go -C test/faults/mutants test -count=1 -timeout=60m -v \
	  -run='TestMutants/^$(MUTANT)'

.PHONY: gitops-controllers
gitops-controllers: ## Run Flux's kustomize-controller with config/gitops/flux; compiling it takes about 4 min.
	assets=$$(hack/controlplane.sh); \
	  KUBEBUILDER_ASSETS=$$assets go -C hack/gitops-controllers test -count=1 -timeout=30m -ginkgo.v ./...

.PHONY: gitops-argocd
gitops-argocd: ## Run Argo CD with config/gitops/argocd; 3 min, and 5 to compile it once. Needs its source, from GitHub.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets hack/gitops-argocd/run.sh

.PHONY: soak
soak: ## Delete and make objects for SOAK (30m), with 5 % of all calls failing, and the operator killed every 20 s.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go -C test/faults test -count=1 -timeout=0 -v \
	  -run=TestSoak -soak=$(or $(SOAK),30m)

.PHONY: e2e
e2e: ## Check the operator in pods, on a node made here: needs root; 2 min, and 15 to compile it all once.
	hack/node/e2e.sh

.PHONY: e2e-down
e2e-down: node-down ## End the node, and see that nothing is left of it.

.PHONY: fuzz
fuzz: ## Fuzz what reads answers, scenarios and times, for FUZZTIME (1m) each; the corpus is in testdata/fuzz.
	go test ./internal/openapi -run='^$$' -fuzz=FuzzDecode -fuzztime=$(or $(FUZZTIME),1m)
	go test ./internal/ecssim -run='^$$' -fuzz=FuzzScenario -fuzztime=$(or $(FUZZTIME),1m)
	go test ./internal/controller/customimage -run='^$$' -fuzz=FuzzBackoff -fuzztime=$(or $(FUZZTIME),1m)

# Both write what they measure to bin/bench.
.PHONY: bench
bench: build ## Measure speed, memory and fairness beside a stock controller; 45 min. To update docs: ARGS=--docs.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go -C hack/bench run . $(ARGS)

.PHONY: bench-short
bench-short: build ## The short form of bench, about 6 min.
	assets=$$(hack/controlplane.sh); KUBEBUILDER_ASSETS=$$assets go -C hack/bench run . --short $(ARGS)

##@ Generate

.PHONY: generate
generate: ## Write the deepcopy methods of the API types.
	$(GO_TOOL) controller-gen object paths=./api/...

.PHONY: manifests
manifests: ## Write config/crd/bases and config/rbac/role.yaml from the markers in the code.
	$(GO_TOOL) controller-gen crd rbac:roleName=manager-role paths=./api/... paths=./internal/... paths=. \
	  output:crd:dir=config/crd/bases output:rbac:dir=config/rbac

.PHONY: docs
docs: ## Write docs/reference.md, and the tables in docs and README.md that come from code.
	$(GO_TOOL) crd-ref-docs --source-path=api --config=hack/tools/crd-ref-docs.yaml --renderer=markdown \
	  --output-path=docs/reference.md --log-level=ERROR
	go run ./hack/docs

.PHONY: chart
chart: ## Write the templates of the Helm chart that come from config/, and its README.
	$(GO_TOOL) kustomize build config/default | go run ./hack/chart
	go tool -modfile=hack/helm-docs/go.mod helm-docs --chart-search-root=charts --log-level=warning

.PHONY: docs-permissions
docs-permissions: ## Write the table of permissions in docs/security.md, from what the manager was seen to use.
	assets=$$(hack/controlplane.sh); UPDATE_DOCS=1 KUBEBUILDER_ASSETS=$$assets go test -count=1 ./test/install

.PHONY: fmt
fmt: bin/golangci-lint ## Format the code and its imports.
	bin/golangci-lint fmt

.PHONY: tidy
tidy: ## Tidy every module.
	for module in $(MODULES); do go -C $$module mod tidy; done

##@ Build

.PHONY: build
build: ## Compile the operator to bin/manager.
	go build -o bin/manager .

.PHONY: build-ecssim
build-ecssim: ## Compile the ECS simulator to bin/ecssim.
	go build -o bin/ecssim ./hack/ecssim

.PHONY: docker-build
docker-build: ## Build the image IMG for PLATFORMS with docker buildx; PUSH=1 pushes it.
	docker buildx build --platform $(PLATFORMS) --build-arg VERSION=$(VERSION) --tag $(IMG) $(if $(PUSH),--push) .

# An overlay made for the occasion names the image, so that no kustomization in config is edited.
.PHONY: build-installer
build-installer: ## Write dist/install.yaml, the one file to install from, with the image IMG.
	rm -rf bin/installer && mkdir -p bin/installer dist
	cd bin/installer && $(GO_TOOL) kustomize create --resources ../../$(OVERLAY)
	cd bin/installer && $(GO_TOOL) kustomize edit set image $(IMAGE)=$(IMG)
	$(GO_TOOL) kustomize build bin/installer >dist/install.yaml
	@grep -q 'image: $(IMG)$$' dist/install.yaml || { echo 'no image named $(IMAGE) in $(OVERLAY)' >&2; exit 1; }

##@ Release: docs/release.md

RELEASE = go -C hack/release run . --version=$(VERSION) $(if $(BASE),--base=$(BASE)) \
  $(if $(REPOSITORY),--repository=$(REPOSITORY))

.PHONY: release-dry-run
release-dry-run: ## Make VERSION twice without Docker, compare and check it; files in bin/release. BASE=IMAGE builds on that. 15 min, CACHED=1 less.
	$(RELEASE) $(if $(CACHED),--cached)

.PHONY: release
release: ## Do the same on the base of the Dockerfile, and push it to REPOSITORY.
	$(RELEASE) --push

##@ Use a cluster: that of the current kubectl context

.PHONY: run
run: build ## Run the operator on this machine; flags in ARGS.
	bin/manager $(ARGS)

.PHONY: install
install: ## Install the CRDs.
	$(GO_TOOL) kustomize build config/crd | kubectl apply --server-side -f -

.PHONY: deploy
deploy: build-installer ## Install the CRDs and the operator with the image IMG.
	kubectl apply --server-side -f dist/install.yaml

# The CRD goes first, while the operator runs: it lets every object go then, and deletes no image.
.PHONY: undeploy
undeploy: uninstall build-installer ## Remove operator, CRDs and namespace. No image is deleted.
	kubectl delete --ignore-not-found --timeout=2m -f dist/install.yaml

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them all CustomImages. No image is deleted.
	$(GO_TOOL) kustomize build config/crd | kubectl delete --ignore-not-found --timeout=2m -f - || { printf '%s\n' >&2 \
	  'The CRD goes when the operator has let its objects go. If it runs, its log says why it does not.' \
	  'If none runs any more, whoever may change the objects and has the ClusterRole imagegc-customimage-releaser can do' \
	  'it; the image stays. If another finalizer is first, the command answers that the request is invalid, and changes nothing:' \
	  "write the index of the operator's finalizer in place of 0." \
	  "  kubectl patch cimg NAME -n NAMESPACE --type=json -p \\" \
	  "    '[{op: test, path: /metadata/finalizers/0, value: ecs.imagegc.io/delete-image}, {op: remove, path: /metadata/finalizers/0}]'"; exit 1; }

# Compiled again only when its module changes.
bin/golangci-lint: $(wildcard hack/golangci-lint/*)
	@echo 'compiling golangci-lint, about 4 min on two cores' >&2
	go -C hack/golangci-lint build -ldflags '-s -w' -o $(CURDIR)/$@ .
