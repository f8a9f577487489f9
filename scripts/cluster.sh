#!/usr/bin/env bash
# The test cluster, by hand: everything that `cluster --help` lists.
# With CLUSTER=kind: `up`, `down`, `load` and `kubeconfig` on kind instead (needs Docker and kind).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$VLFT_ROOT"
name="${VLFT_CLUSTER:-vlft}"

kind_command() {
  local kubeconfig="$VLFT_CACHE/run/kind-$name/kubeconfig"
  case "${1:-}" in
    up)
      command -v kind >/dev/null || { echo "cluster: CLUSTER=kind needs kind; install it or leave CLUSTER out" >&2; exit 1; }
      mkdir -p "$(dirname "$kubeconfig")"
      kind create cluster --name "$name" --config tests/cluster/kind.yaml --kubeconfig "$kubeconfig" --wait 120s
      ;;
    down) kind delete cluster --name "$name" --kubeconfig "$kubeconfig" ;;
    load) shift; for archive in "$@"; do kind load image-archive --name "$name" "$archive"; done ;;
    kubeconfig) echo "$kubeconfig" ;;
    *) echo "cluster: on kind there are up, down, load and kubeconfig" >&2; exit 2 ;;
  esac
}

if [ "${CLUSTER:-}" = kind ]; then
  kind_command "$@"
else
  [ "$(id -u)" = 0 ] || { echo "cluster: needs root, to make network namespaces" >&2; exit 1; }
  if [ "${1:-}" = up ]; then
    scripts/apt.sh cluster && scripts/go-tools.sh kube && scripts/cluster-images.sh
  fi
  cargo build --quiet --workspace --bin cluster
  exec "$CARGO_TARGET_DIR/debug/cluster" --name "$name" "$@"
fi
