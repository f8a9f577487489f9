# Sourced instead of env.sh to compile the trainer for NVIDIA GPUs (`--features cuda`).
# Build products get a folder of their own: the two libtorchs would displace each other.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
export LIBTORCH="$VLFT_CACHE/libtorch-$VLFT_TORCH_VERSION-cuda"
export CARGO_TARGET_DIR="${VLFT_CUDA_TARGET_DIR:-$VLFT_CACHE/target-cuda}"
# Headers and libraries of the CUDA wheels; torch-ext's build script reads CUDA_INCLUDE.
CUDA_INCLUDE="$(printf '%s:' "$LIBTORCH"/nvidia/*/include)"
export CUDA_INCLUDE="${CUDA_INCLUDE%:}"
export LD_LIBRARY_PATH="$LIBTORCH/torch/lib"
