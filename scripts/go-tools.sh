#!/usr/bin/env bash
# Builds kubectl, the Kubernetes components of tests/cluster and helm from their Go modules into
# $VLFT_CACHE/bin, and again only when the module, its sources or the Go release change.
# Usage: go-tools.sh [kube] [helm]     (both when none is named)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
modules="$VLFT_ROOT/tests/cluster/go"
bin="$VLFT_CACHE/bin"
components="cluster-pki cluster-wait coredns etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler
  kubectl kubelet volume-provisioner"

command -v go >/dev/null || { echo "go-tools: go is missing; install Go 1.26 or newer" >&2; exit 1; }
# A C compiler would make the binaries depend on the machine's libc.
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath ${GOFLAGS:-}"
mkdir -p "$bin"

# key MODULE: what a built binary depends on.
key() {
  { go version; cat "$modules/$1"/go.mod "$modules/$1"/go.sum "$modules/$1"/*.go "${BASH_SOURCE[0]}" 2>/dev/null || true; } |
    sha256sum | cut -c1-32
}

# fresh MODULE FILE: true when FILE was built from MODULE as it is now.
fresh() { [ -x "$bin/$2" ] && [ "$(cat "$bin/.$1.key" 2>/dev/null)" = "$(key "$1")" ]; }

# A finished binary replaces the old one by a rename: a running cluster keeps the file it started.
build_kube() {
  fresh kube kube && return
  local version major_minor stamp=""
  version="$(cd "$modules/kube" && go list -m -f '{{.Version}}' k8s.io/kubernetes)"
  major_minor="${version#v}"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    stamp+=" -X $package.gitVersion=$version -X $package.gitTreeState=clean"
    stamp+=" -X $package.gitMajor=${major_minor%%.*} -X $package.gitMinor=$(cut -d. -f2 <<<"$major_minor")"
  done
  echo "go-tools: building the Kubernetes $version components (once per machine, some minutes)"
  (cd "$modules/kube" && go build -ldflags "-s -w$stamp" -o "$bin/kube.partial" .)
  mv "$bin/kube.partial" "$bin/kube"
  for component in $components; do ln -sfn kube "$bin/$component"; done
  key kube > "$bin/.kube.key"
}

build_helm() {
  fresh helm helm && return
  echo "go-tools: building helm (once per machine, a minute or two)"
  local version
  version="$(cd "$modules/helm" && go list -m -f '{{.Version}}' helm.sh/helm/v4)"
  (cd "$modules/helm" && go build -o "$bin/helm.partial" \
    -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=$version" helm.sh/helm/v4/cmd/helm)
  mv "$bin/helm.partial" "$bin/helm"
  key helm > "$bin/.helm.key"
}

for tool in "${@:-kube helm}"; do
  for name in $tool; do
    case "$name" in
      kube | helm) "build_$name" ;;
      *) echo "go-tools: no tool named $name; there are kube and helm" >&2; exit 2 ;;
    esac
  done
done
