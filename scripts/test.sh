#!/usr/bin/env bash
# Runs every test and closes with the line `N passed, N failed`.
#
# Each stage's whole output goes to out/test/<stage>.log; the screen gets a line a stage.
# A stage that cannot run counts as one failure, so that nothing is passed over in silence.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$VLFT_ROOT" || exit 1
logs="$VLFT_ROOT/out/test"
mkdir -p "$logs"
export VLFT_CLUSTER=vlft-test
passed=0 failed=0

stage() { # name, what it does, command...
  local name=$1 what=$2 start=$SECONDS code=0
  shift 2
  echo "== $what"
  "$@" >"$logs/$name.log" 2>&1 || code=$?
  count "$logs/$name.log" "$code"
  printf '   %s: %d min %02d s\n' "$name" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60))
  return "$code"
}

# Adds up the closing lines of cargo's test runners; a command that fails without one that
# tells of failures counts as a failure of its own.
count() { # log, exit code
  local ok bad
  ok=$(sed -n 's/^test result:.* \([0-9]*\) passed; .*/\1/p' "$1" | paste -sd+ | bc)
  bad=$(sed -n 's/^test result:.* \([0-9]*\) failed; .*/\1/p' "$1" | paste -sd+ | bc)
  ok=${ok:-0} bad=${bad:-0}
  [ "$2" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
  passed=$((passed + ok)) failed=$((failed + bad))
  if [ "$2" -ne 0 ]; then
    grep -E '^(test .* FAILED|---- .* stdout|error)|panicked at' "$1" | head -20 | sed 's/^/   /'
    echo "   failed; the whole output is in ${1#"$VLFT_ROOT"/}"
    [ -n "${CI:-}" ] && tail -n 60 "$1"
  fi
}

finish() {
  scripts/cluster.sh down >"$logs/cluster-down.log" 2>&1 || failed=$((failed + 1))
  echo "$passed passed, $failed failed" | tee "$logs/closing-line"
  [ "$failed" -eq 0 ]
}

prepare() {
  scripts/apt.sh && scripts/libtorch.sh && scripts/venv.sh && scripts/go-tools.sh
}

on_cluster() {
  KUBECONFIG="$(scripts/cluster.sh kubeconfig)" || return
  export KUBECONFIG
  local suites=() file
  for file in tests/tests/*; do suites+=(--test "$(basename "$file" .rs)"); done
  cargo test --locked --workspace "${suites[@]}" --no-fail-fast -- --test-threads "${VLFT_TEST_THREADS:-2}"
}

for tool in cargo go python3 gcc make bc; do
  command -v "$tool" >/dev/null || { echo "make test needs $tool; install it first" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "make test needs root: its cluster makes network namespaces" >&2; exit 1; }

stage prepare "tools: Debian packages, libtorch, Python reference, Kubernetes, Helm (cached in $VLFT_CACHE)" prepare \
  || { finish; exit 1; }
# Always the whole workspace: with other packages named, cargo would resolve other features and
# compile its dependencies again.
stage unit "unit tests of every crate, and the house's rules" \
  cargo test --locked --workspace --lib --bins --test house --no-fail-fast
stage parity "the trainer against Hugging Face transformers and PEFT" \
  cargo test --locked --workspace --test parity --no-fail-fast
stage parallel "several processes train as one, in the memory that the plan says" \
  cargo test --locked --workspace --test parallel --test memory --no-fail-fast
stage end_to_end "the trainer's binary: runs, resumes, refusals, full disks" \
  cargo test --locked --workspace --test end_to_end --no-fail-fast
stage lifecycle "the test cluster: up, down, and nothing left behind" \
  cargo test --locked --workspace --test lifecycle --no-fail-fast -- --test-threads 1
stage images "images of operator and trainer" scripts/images.sh || { finish; exit 1; }
stage cluster "a cluster of two nodes" scripts/cluster.sh up || { finish; exit 1; }
stage load "images into the cluster" scripts/cluster.sh load "$VLFT_CACHE"/images/{operator,trainer,busybox,stand-in}.tar
stage integration "integration tests on the cluster" on_cluster
finish
