#!/usr/bin/env bash
# Compiles and links the trainer with `--features cuda` against a libtorch with CUDA, and starts
# it. Needs no GPU; where there is none it shows no more than that the build is whole.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
"$root/scripts/libtorch-cuda.sh"
source "$root/scripts/cuda-env.sh"
cd "$root"
echo "cuda-check: compiling the trainer with --features cuda (the first time some 10 minutes)"
cargo build --quiet --locked --package trainer --bin trainer --features cuda
trainer="$CARGO_TARGET_DIR/debug/trainer"
# A linker that drops libraries nobody names would leave a trainer that never finds a GPU.
readelf -d "$trainer" | grep -q 'NEEDED.*libtorch_cuda\.so' ||
  { echo "cuda-check: the trainer is not linked with libtorch_cuda" >&2; exit 1; }
"$trainer" doctor
