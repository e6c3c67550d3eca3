#!/usr/bin/env bash
# Runs the make targets given and fails if they change any file that git does not ignore, printing the
# change. What was uncommitted before is no matter: only before and after are compared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

index=$(mktemp -d)
trap 'rm -rf "$index"' EXIT

# snapshot prints the id of a git tree of the working tree as it is, by way of an index of its own.
snapshot() {
  GIT_INDEX_FILE=$index/index git add --all
  GIT_INDEX_FILE=$index/index git write-tree
}

before=$(snapshot)
"${MAKE:-make}" --no-print-directory "$@"
after=$(snapshot)
git --no-pager diff --exit-code "$before" "$after" || {
  echo "verify: the files above were out of date; commit what 'make $*' wrote" >&2
  exit 1
}
