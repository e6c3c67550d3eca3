#!/usr/bin/env bash
# Compiles the parts of the node, from the modules that pin them, to bin/node/bin. What is there is kept: after a
# change of a version, remove it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=$PWD/bin/node/bin
export CGO_ENABLED=0

version=$(sed -n 's/^.*k8s\.io\/kubernetes \(v[0-9.]*\).*$/\1/p' hack/controlplane/go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
stamp=k8s.io/component-base/version
stamps="-X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"

# compile MODULE PACKAGE [LDFLAGS] builds it beside its place and then moves it there, so that none is ever half written.
compile() {
  local name=${2##*/} start=$SECONDS
  [[ $2 != . ]] || name=${1##*/}
  [[ ! -x $bin/$name ]] || return 0
  go -C "$1" build -o "$bin/.$name" -ldflags "-s -w ${3:-}" "$2"
  mv "$bin/.$name" "$bin/$name"
  echo "node: compiled $name in $((SECONDS - start)) s" >&2
}

mkdir -p "$bin"
for command in kubelet kube-scheduler kube-proxy; do
  compile hack/controlplane k8s.io/kubernetes/cmd/$command "$stamps"
done
for command in containerd containerd-shim-runc-v2 ctr; do
  compile hack/node/containerd github.com/containerd/containerd/v2/cmd/$command
done
for plugin in main/ptp ipam/host-local; do
  compile hack/node/containerd github.com/containernetworking/plugins/plugins/$plugin
done
compile hack/node/coredns .
compile hack/helm helm.sh/helm/v4/cmd/helm
compile hack/node/kube-router github.com/cloudnativelabs/kube-router/v2/cmd/kube-router
