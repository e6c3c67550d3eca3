#!/usr/bin/env bash
# Writes the images of the node to bin/node/images: the operator as the Dockerfile builds it, the simulator, CoreDNS, and
# busybox, which also holds the namespaces of each pod.
#
#   images.sh [VERSION]   the operator's tag, and VERSION of its Dockerfile; default v0.0.0-e2e
#
# It needs no registry: the images that the Dockerfile starts from are made here under their names, with what it needs of
# them. Go, the module cache and the build cache are lent to the build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# In a mount namespace of its own, so that no mount of buildah outlives this.
[[ -n ${IN_NAMESPACE:-} ]] || IN_NAMESPACE=1 exec unshare --mount hack/node/images.sh "$@"

version=${1:-v0.0.0-e2e}
node=$PWD/bin/node
mkdir -p "$node/images"
tmp=$(mktemp -d "$node/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

buildah() { command buildah --root "$node/buildah" --runroot "$tmp/run" --storage-driver overlay "$@"; }

# build NAME ARGS... builds an image without asking a registry.
build() {
  buildah build --quiet --layers --pull-never --isolation chroot --network host --tag "$@" >/dev/null
}

save() {
  rm -f "$node/images/$2.tar"
  buildah push --quiet "$1" "docker-archive:$node/images/$2.tar:$1"
}

files=$tmp/files
mkdir "$files"
cp "$(command -v busybox)" bin/node/bin/coredns /etc/ssl/certs/ca-certificates.crt "$files"
CGO_ENABLED=0 go build -o "$files/ecssim" ./hack/ecssim

build localhost/busybox:1 --file - "$files" <<'END'
FROM scratch
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
CMD ["sleep", "2147483647"]
END
build localhost/coredns:1 --file - "$files" <<'END'
FROM scratch
COPY coredns /
USER 65532
ENTRYPOINT ["/coredns"]
END
build localhost/ecssim:1 --file - "$files" <<'END'
FROM scratch
COPY ecssim /
USER 65532
ENTRYPOINT ["/ecssim"]
END

mapfile -t bases < <(sed -nE 's/^FROM (--platform=[^ ]+ )?([^ ]+).*/\2/p' Dockerfile)
build "${bases[0]}" --file - "$files" <<'END'
FROM localhost/busybox:1
WORKDIR /tmp
COPY ca-certificates.crt /etc/ssl/certs/
ENV PATH=/usr/local/go/bin:/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local
END
build "${bases[1]}" --file - "$files" <<'END'
FROM scratch
COPY ca-certificates.crt /etc/ssl/certs/
USER 65532
END
build "docker.io/imagegc/ecs-image-gc:$version" --build-arg "VERSION=$version" --platform "linux/$(go env GOARCH)" \
  --volume "$(go env GOROOT):/usr/local/go:ro" --volume "$(go env GOMODCACHE):/go/pkg/mod:O" \
  --volume "$(go env GOCACHE):/root/.cache/go-build" .

save localhost/busybox:1 busybox
save localhost/coredns:1 coredns
save localhost/ecssim:1 ecssim
save "docker.io/imagegc/ecs-image-gc:$version" operator
