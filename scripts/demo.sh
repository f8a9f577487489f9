#!/usr/bin/env bash
# Fine-tunes examples/digits.yaml on a real cluster and reports what came out.
# With `distributed`: runs over two pods with two processes each, and accidents that befall them.
# VLFT_DEMO_STEPS=N trains fewer steps; CLUSTER=kind uses kind.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$VLFT_ROOT"
export VLFT_CLUSTER=vlft-demo
case "${1:-}" in
  '') demo=demo log="$VLFT_ROOT/out/demo" ;;
  distributed) demo=demo_distributed log="$VLFT_ROOT/out/demo-distributed" ;;
  *) echo "usage: scripts/demo.sh [distributed]" >&2; exit 2 ;;
esac
mkdir -p "$log"
start=$SECONDS

for tool in cargo go python3 gcc make; do
  command -v "$tool" >/dev/null || { echo "make demo needs $tool; install it first" >&2; exit 1; }
done

quietly() { # what it does, command...: output goes to a log that is shown when it fails
  local what=$1
  shift
  echo "== $what"
  "$@" >"$log/setup.log" 2>&1 || { tail -n 40 "$log/setup.log" >&2; echo "demo: failed: $what" >&2; exit 1; }
}

quietly "tools: Debian packages, libtorch, Kubernetes, Helm (cached in $VLFT_CACHE)" \
  bash -c 'scripts/apt.sh && scripts/libtorch.sh && scripts/go-tools.sh'
quietly "compiling operator, trainer and demo" \
  cargo build --locked --workspace --bins
quietly "images of operator and trainer" scripts/images.sh
end() { scripts/cluster.sh down >"$log/down.log" 2>&1 || { cat "$log/down.log" >&2; return 1; }; }
trap end EXIT
trap 'exit 130' INT TERM
echo "== a cluster of two nodes"
scripts/cluster.sh up
quietly "images into the cluster" scripts/cluster.sh load "$VLFT_CACHE"/images/{operator,trainer}.tar
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)"
KUBECONFIG="$(scripts/cluster.sh kubeconfig)"
export KUBECONFIG
export VLFT_HELM="$VLFT_CACHE/bin/helm"
export VLFT_OPERATOR_IMAGE="vlfinetune/operator:$version" VLFT_TRAINER_IMAGE="vlfinetune/trainer:$version"
export VLFT_CLUSTER_BIN="$CARGO_TARGET_DIR/debug/cluster"
"$CARGO_TARGET_DIR/debug/$demo" || {
  echo "demo: state of the cluster:" >&2
  kubectl="$VLFT_CACHE/bin/kubectl"
  { "$kubectl" -n vlft-demo get all,vlft,events; "$kubectl" -n vlft-demo describe vlft
    "$kubectl" -n vlft-demo logs --tail 50 -l vlft.dev/finetune=digits
    "$kubectl" -n vlfinetune-system logs --tail 50 -l app.kubernetes.io/name=vlfinetune-operator
  } >&2 || true
  exit 1
}
echo "== taking the cluster down"
printf 'demo: %d min %02d s\n' $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
