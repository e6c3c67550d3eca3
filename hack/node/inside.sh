#!/usr/bin/env bash
# The first process of the node, which `node.sh up` starts in namespaces of its own:
#
#   inside.sh STATE ASSETS: the node's directory, and that of the control plane's binaries
#
# When it ends, everything in the node ends. It ends when a part of the node does.
set -Eeuo pipefail
trap 'echo "inside.sh: line $LINENO failed: $BASH_COMMAND"' ERR
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
state=$1 assets=$2
etc=/run/node/etc pki=/run/node/pki log=/var/log/node
address=10.99.0.1 services=10.96.0.0/16 pods=10.244.0.0/16
export PATH=/run/node/bin:/run/node/assets:$PATH KUBECONFIG=/run/node/admin.conf KUBECACHEDIR=/run/node/cache

# mounts has all that is written below /run and /var written to the node's directory, and lets nothing be written to the
# machine's other directories.
mounts() {
  local directory
  mount --make-rprivate /
  for directory in /etc /opt /usr; do
    mount --bind -o ro "$directory" "$directory"
  done
  mount --bind "$state/var" /var
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock /run/netns /run/node/{assets,bin,etc,pki} "$log"
  ln -s /run /var/run
  mount --bind "$here/../../bin/node/bin" /run/node/bin
  mount --bind "$assets" /run/node/assets
  mount --bind "$here/etc" $etc
  sysctls
  mount --make-rshared /
}

# sysctls covers what the kubelet checks, which is the whole machine's, with files that hold what it wants.
sysctls() {
  local setting file
  for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/node/sysctl/${setting%=*}
    mkdir -p "${file%/*}"
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
  done
}

# network gives the node an address, on a bridge without ports, and a route for its own calls of Services.
network() {
  hostname node
  ip link set lo up
  ip link add node0 type bridge
  ip address add $address/24 dev node0
  ip link set node0 up
  ip route add default dev node0
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo 'nameserver 127.0.0.1' >/run/node/resolv.conf
}

# cgroups makes the parent of the pods in each hierarchy. In a new cpuset nothing runs before it has cores.
cgroups() {
  local hierarchy file
  for hierarchy in /sys/fs/cgroup/*/; do
    mkdir -p "${hierarchy}imagegc-node"
  done
  for file in cpuset.cpus cpuset.mems; do
    cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/imagegc-node/$file"
  done
}

key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

# issue NAME SUBJECT [NAMES] writes a certificate that is good for servers and clients, and its key.
issue() {
  openssl req -x509 -days 30 "${key[@]}" -CA $pki/ca.crt -CAkey $pki/ca.key -subj "$2" \
    -addext extendedKeyUsage=serverAuth,clientAuth ${3:+-addext "subjectAltName=$3"} \
    -keyout "$pki/$1.key" -out "$pki/$1.crt" 2>/dev/null
}

# user NAME SUBJECT [NAMES] writes a kubeconfig besides.
user() {
  issue "$@"
  cat >"/run/node/$1.conf" <<END
apiVersion: v1
kind: Config
current-context: node
contexts: [{name: node, context: {cluster: node, user: $1}}]
clusters: [{name: node, cluster: {server: "https://$address:6443", certificate-authority: $pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
END
}

certificates() {
  openssl req -x509 -days 30 "${key[@]}" -subj /CN=node-ca -keyout $pki/ca.key -out $pki/ca.crt 2>/dev/null
  openssl genrsa -out $pki/service-accounts.key 2048 2>/dev/null
  issue apiserver /CN=kube-apiserver "IP:$address,IP:10.96.0.1,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  issue kubelet-client /O=system:masters/CN=kube-apiserver
  user admin /O=system:masters/CN=admin
  user controller-manager /CN=system:kube-controller-manager
  user scheduler /CN=system:kube-scheduler
  user proxy /CN=system:kube-proxy
  user node /O=system:nodes/CN=system:node:node "IP:$address,DNS:node"
}

# start NAME ARGS... starts a part of the node.
declare -A parts
start() {
  "$@" >"$log/$1.log" 2>&1 </dev/null &
  parts[$!]=$1
}

until_ok() {
  until "$@" >/dev/null 2>&1; do sleep 0.1; done
}

# control_plane starts it. Nobody comes through a proxy, but without the requestheader flags the controller manager logs an
# error each minute.
control_plane() {
  start etcd --data-dir /var/lib/etcd --unsafe-no-fsync
  start kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address $address --service-cluster-ip-range $services \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file $pki/service-accounts.key --service-account-signing-key-file $pki/service-accounts.key \
    --tls-cert-file $pki/apiserver.crt --tls-private-key-file $pki/apiserver.key --client-ca-file $pki/ca.crt \
    --kubelet-client-certificate $pki/kubelet-client.crt --kubelet-client-key $pki/kubelet-client.key \
    --kubelet-certificate-authority $pki/ca.crt --kubelet-preferred-address-types InternalIP \
    --requestheader-client-ca-file $pki/ca.crt --requestheader-allowed-names nobody
  until_ok kubectl get --raw /readyz
  start kube-controller-manager --kubeconfig /run/node/controller-manager.conf --use-service-account-credentials \
    --service-account-private-key-file $pki/service-accounts.key --root-ca-file $pki/ca.crt \
    --allocate-node-cidrs --cluster-cidr $pods --leader-elect=false --flex-volume-plugin-dir /var/lib/kubelet/volume-plugins
  start kube-scheduler --kubeconfig /run/node/scheduler.conf --leader-elect=false
}

# images imports what images.sh has made: a node without a network cannot pull.
images() {
  local archive
  until_ok ctr version
  for archive in "$here"/../../bin/node/images/*.tar; do
    ctr -n k8s.io images import "$archive" >>$log/images.log 2>&1
  done
}

readlink /proc/self/ns/{mnt,pid,net,uts,ipc} >"$state/namespaces"
mounts
network
cgroups
certificates
start containerd --config $etc/containerd.toml
images &
importing=$!
control_plane
wait $importing
start kubelet --config $etc/kubelet.yaml --kubeconfig /run/node/node.conf --hostname-override node --node-ip $address
start kube-proxy --config $etc/kube-proxy.yaml
until_ok kubectl wait node/node --for=condition=Ready --timeout=1s
start kube-router --run-firewall=true --run-router=false --run-service-proxy=false --run-loadbalancer=false --health-port 0 \
  --kubeconfig /run/node/admin.conf --hostname-override node --service-cluster-ip-range $services
until_ok kubectl -n kube-system get serviceaccount default # without which no pod is made
kubectl apply --server-side -f $etc/coredns.yaml >/dev/null
until_ok kubectl -n kube-system rollout status deployment coredns --timeout=1s
touch "$state/ready"
wait -n -p ended || true
echo "${parts[$ended]} ended; its log: bin/node/state$log/${parts[$ended]}.log"
