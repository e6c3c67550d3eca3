#!/usr/bin/env bash
# Checks the operator on a node of its own: compiles what is missing, builds the images, starts a fresh node, runs test/e2e
# in it, and leaves it running for a look. Where a node cannot be, this says so and succeeds, unless E2E_REQUIRED=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! lacks=$(hack/node/node.sh needs); then
  echo "SKIPPED: e2e. This machine lacks $lacks"
  [[ ${E2E_REQUIRED:-} != 1 ]] || exit 1
  exit 0
fi

summary=
# step WHAT CMD... runs the command, and notes how long it took.
step() {
  local start=$SECONDS
  "${@:2}"
  summary+="$((SECONDS - start)) s  $1"$'\n'
}

checks() {
  go test -tags e2e -count=1 -timeout 20m -exec "$PWD/hack/node/node.sh exec" ./test/e2e -v -ginkgo.no-color && return
  hack/node/node.sh exec kubectl get pods,events -A
  hack/node/node.sh exec kubectl logs -n imagegc-system -l app.kubernetes.io/component=manager --prefix --tail=50
  echo 'e2e: failed; the node runs on: hack/node/node.sh exec kubectl ..., and make e2e-down to end it' >&2
  return 1
}

step "compile the node's parts that are missing" hack/node/build.sh
step 'build the images' hack/node/images.sh
step 'end the last node' hack/node/node.sh down
step 'start a node' hack/node/node.sh up
step 'check the operator' checks
printf '=== e2e passed\n%s' "$summary"
