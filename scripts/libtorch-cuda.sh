#!/usr/bin/env bash
# Lays out a libtorch with CUDA, cuDNN and NCCL from the PyPI wheel that tch is pinned to and
# the nvidia-* wheels it names, with the headers that compiling against it needs.
# Usage: libtorch-cuda.sh                    for compiling: $VLFT_CACHE/libtorch-VERSION-cuda
#        libtorch-cuda.sh --runtime FOLDER   also copies what a trainer needs at run time
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cuda-env.sh"

# install FOLDER: torch alone without its Python dependencies, then the CUDA libraries that
# its metadata pins. `crt` and `cccl` hold headers of the runtime that no wheel depends on.
install() {
  python3 -m pip install --quiet --no-deps --no-compile --target "$1" "torch==$VLFT_TORCH_VERSION"
  local pinned
  mapfile -t pinned < <(sed -n 's/^Requires-Dist: \(\(cuda-toolkit\|nvidia-\)[^;]*\);.*/\1/p' "$1"/torch-*.dist-info/METADATA |
    tr -d ' ')
  [ "${#pinned[@]}" -gt 0 ] || { echo "libtorch-cuda: the torch wheel names no CUDA libraries" >&2; exit 1; }
  python3 -m pip install --quiet --no-compile --upgrade --target "$1" "${pinned[@]}" \
    "nvidia-cuda-crt==13.0.*" "nvidia-cuda-cccl==13.0.*"
}

# runtime FOLDER: shared libraries alone, in the layout that their relative paths expect.
runtime() {
  mkdir -p "$1"
  (cd "$LIBTORCH" && find torch/lib nvidia/*/lib -name '*.so*' ! -name 'libtorch_python*' ! -name 'libshm*' -print0 |
    xargs -0 cp -a --parents -t "$1")
  find "$1/torch" -name '*.so*' -type f -exec strip --strip-unneeded {} +
}

if [ ! -e "$LIBTORCH/.complete" ]; then
  command -v python3 >/dev/null || { echo "libtorch-cuda: python3 is missing; install it first" >&2; exit 1; }
  echo "libtorch-cuda: laying out $VLFT_TORCH_VERSION with CUDA (once per machine; about 3 GB to download)"
  rm -rf "$LIBTORCH" "$LIBTORCH.partial"
  install "$LIBTORCH.partial"
  ln -s torch/lib "$LIBTORCH.partial/lib"
  ln -s torch/include "$LIBTORCH.partial/include"
  echo "$VLFT_TORCH_VERSION" >"$LIBTORCH.partial/build-version"
  touch "$LIBTORCH.partial/.complete"
  mv "$LIBTORCH.partial" "$LIBTORCH"
fi
if [ "${1:-}" = --runtime ]; then
  runtime "${2:?libtorch-cuda: --runtime takes a folder}"
fi
