# Sourced by the Makefile's recipes and by developers: where build products are cached.
# Everything lies below one folder, so that emptying the cache is one `rm -r`.
VLFT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export VLFT_ROOT
export VLFT_CACHE="${VLFT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vlfinetune}"
# The libtorch that tch in Cargo.toml is pinned to; scripts/libtorch.sh lays it out.
export VLFT_TORCH_VERSION=2.13.0
export LIBTORCH="${LIBTORCH:-$VLFT_CACHE/libtorch-$VLFT_TORCH_VERSION-cpu}"
export LIBTORCH_CXX11_ABI=1
export LD_LIBRARY_PATH="$LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$VLFT_CACHE/target}"
