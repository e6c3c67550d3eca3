#!/usr/bin/env bash
# Prints a directory that holds the binaries of a Kubernetes control plane, after finding or making it:
#
#   KUBEBUILDER_ASSETS=$(hack/controlplane.sh) go test ./...
#
# The first of these that has them all: KUBEBUILDER_ASSETS; bin/k8s/VERSION; what setup-envtest downloads;
# what the modules pinned in hack/controlplane/go.mod compile to. The last two are kept in bin/k8s/VERSION.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binaries=(etcd kube-apiserver kubectl kube-controller-manager)
version=$(sed -n 's/^.*k8s\.io\/kubernetes \(v[0-9.]*\).*$/\1/p' hack/controlplane/go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
assets=$PWD/bin/k8s/$version

say() { echo "control plane: $*" >&2; }

# missing DIR lists the binaries that DIR does not have.
missing() {
  local binary
  for binary in "${binaries[@]}"; do
    [[ -x $1/$binary ]] || printf '%s ' "$binary"
  done
}

# download fetches what setup-envtest offers; where its index cannot be reached it gives up within seconds.
download() {
  local envtest found
  envtest=$(go tool -n -modfile=hack/tools/go.mod setup-envtest) || return
  timeout 5 "$envtest" list --bin-dir "$tmp" >/dev/null 2>&1 || return
  found=$(timeout 300 "$envtest" use "$major.$minor.x" --bin-dir "$tmp" --print path) || return
  install -m 755 -t "$tmp" "$found"/* && mv "$tmp"/{etcd,kube-apiserver,kubectl} "$assets"
}

# compile BINARY builds it beside its place and then moves it there, so that none is ever half written.
compile() {
  local package=k8s.io/kubernetes/cmd/$1 minutes=1 stamp=k8s.io/component-base/version
  case $1 in
  etcd) package=go.etcd.io/etcd/server/v3 ;;
  kube-apiserver) minutes=5 ;;
  kube-controller-manager) minutes=2 ;;
  esac
  say "compiling $1, about $minutes min on two cores"
  CGO_ENABLED=0 go -C hack/controlplane build -o "$tmp/$1" -ldflags "-s -w -X $stamp.gitVersion=$version \
    -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor" "$package" && mv "$tmp/$1" "$assets/$1"
}

if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
  lacks=$(missing "$KUBEBUILDER_ASSETS")
  if [[ -z $lacks ]]; then
    say "from KUBEBUILDER_ASSETS, $KUBEBUILDER_ASSETS"
    echo "$KUBEBUILDER_ASSETS"
    exit
  fi
  say "not from KUBEBUILDER_ASSETS, which lacks ${lacks% }"
fi

lacks=$(missing "$assets")
if [[ -n $lacks ]]; then
  mkdir -p "$assets"
  tmp=$(mktemp -d "$assets/.tmp.XXXXXX")
  trap 'chmod -R u+w "$tmp" && rm -rf "$tmp"' EXIT
  say "bin/k8s/$version lacks ${lacks% }"
  if [[ $lacks != "kube-controller-manager " ]]; then
    say "asking setup-envtest for a prebuilt one"
    download || say "no download from here"
  fi
  for binary in $(missing "$assets"); do
    compile "$binary" || {
      say "$binary could not be compiled; set KUBEBUILDER_ASSETS to a directory with ${binaries[*]}"
      exit 1
    }
  done
fi
say "$version from bin/k8s/$version"
echo "$assets"
