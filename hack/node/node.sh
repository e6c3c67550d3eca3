#!/usr/bin/env bash
# A Kubernetes node on this machine, in namespaces of its own. README.md says what is in it.
#
#   node.sh needs         print what this machine lacks for it, and fail if that is anything
#   node.sh up            start it, and wait until it runs pods
#   node.sh exec CMD...   run a command in it, with kubectl in PATH and KUBECONFIG set
#   node.sh load TAR...   give it more images
#   node.sh down          end it, remove its files, and fail if it left anything else
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(readlink -f "$here/../..")
state=$root/bin/node/state

say() { echo "node: $*" >&2; }

# packages are the commands that a machine may lack, and the Debian packages that have them.
packages=(busybox=busybox-static buildah=buildah ip=iproute2 ipset=ipset iptables=iptables nft=nftables
  openssl=openssl runc=runc)

needs() {
  local package lacks=()
  for package in "${packages[@]}"; do
    command -v "${package%=*}" >/dev/null || lacks+=("${package#*=}")
  done
  if ((${#lacks[@]})); then
    echo "packages: apt-get install -y --no-install-recommends ${lacks[*]}"
    return 1
  fi
  try "root, and leave to make namespaces" unshare --mount --pid --net --uts --ipc --fork true &&
    try "cgroup v1, with a hierarchy for each controller" test -w /sys/fs/cgroup/cpuset/tasks &&
    try "bridges and veth devices" unshare --net sh -c 'ip link add name x type bridge && ip link add name y type veth' &&
    try "nftables and ipset in the kernel" unshare --net sh -c 'nft add table t && iptables -S && ipset create s hash:ip'
}

# try WHAT CMD... prints WHAT if the command fails.
try() {
  "${@:2}" >/dev/null 2>&1 || { echo "$1"; return 1; }
}

up() {
  local assets deadline=$((SECONDS + 120)) pid
  [[ ! -e $state ]] || { say "there is one; use node.sh down"; exit 1; }
  assets=$("$root/hack/controlplane.sh" 2>/dev/null)
  mkdir -p "$state"/var/{lib,log,tmp}
  touch "$state/namespaces"
  traces >"$state/before"
  setsid unshare --mount --pid --net --uts --ipc --fork --kill-child --mount-proc \
    "$here/inside.sh" "$state" "$assets" >"$state/log" 2>&1 </dev/null &
  pid=$!
  echo $pid >"$state/pid"
  until [[ -e $state/ready ]]; do
    if ! kill -0 $pid 2>/dev/null || ((SECONDS > deadline)); then
      cat "$state/log" >&2
      say "failed to start; logs are in $state/var/log/node"
      exit 1
    fi
    sleep 0.1
  done
  say "ready after $((SECONDS - deadline + 120)) s"
}

# enter runs a command in the node, in the same working directory. The node's first process is unshare's only child.
enter() {
  local unshare
  unshare=$(<"$state/pid")
  nsenter --target "$(tr -d " " <"/proc/$unshare/task/$unshare/children")" --mount --pid --net --uts --ipc \
    env -C "$PWD" KUBECONFIG=/run/node/admin.conf KUBECACHEDIR=/run/node/cache \
    HELM_CACHE_HOME=/run/node/cache HELM_CONFIG_HOME=/run/node/cache HELM_DATA_HOME=/run/node/cache \
    PATH="/run/node/bin:/run/node/assets:$PATH" "$@"
}

load() {
  local archive
  for archive; do
    enter ctr -n k8s.io images import "$(readlink -f "$archive")"
  done
}

down() {
  local i
  [[ -e $state ]] || return 0
  if grep -qsF "$here/inside.sh" "/proc/$(<"$state/pid")/cmdline"; then
    kill -KILL "$(<"$state/pid")" # with which the first process dies, and with that all others
  fi
  for ((i = 0; i < 100; i++)); do
    find /sys/fs/cgroup -depth -path '*/imagegc-node*' -type d -exec rmdir {} + 2>/dev/null || true
    [[ -n $(left) ]] || break
    sleep 0.1
  done
  if [[ -n $(left) ]]; then
    left >&2
    say "the lines above are left of it"
    exit 1
  fi
  say "ended; $(wc -l <"$state/before") mounts, network devices and settings are as before, and no process is left"
  rm -rf --one-file-system "$state"
}

# left lists what is there and was not before the node: traces, and processes in its namespaces.
left() {
  traces | sort | comm -13 <(sort "$state/before") -
  find /proc/[0-9]*/ns -printf '%l %h\n' 2>/dev/null | grep -Ff "$state/namespaces" || true
}

# traces lists all that a node could leave on the machine, except for processes.
traces() {
  cut -d' ' -f4,5 /proc/self/mountinfo
  ip -brief link | cut -d' ' -f1
  find /sys/fs/cgroup -name imagegc-node
  (cd /proc/sys && grep . vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes net/ipv4/ip_forward)
}

case ${1:-} in
needs | up | down) "$1" ;;
exec) enter "${@:2}" ;;
load) load "${@:2}" ;;
*) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
