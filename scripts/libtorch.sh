#!/usr/bin/env bash
# Lays out a CPU-only libtorch folder from the PyPI wheel that tch is pinned to.
#
# The wheel's own libtorch.so pulls in libtorch_cuda; a stub that needs only the CPU half
# keeps the trainer image without CUDA. libtorch_cpu.so itself needs the CUDA runtime and
# CUPTI libraries to load, so these two come along from their own small wheels.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ -e "$LIBTORCH/.complete" ] && exit 0
for tool in python3 gcc; do
  command -v "$tool" >/dev/null || { echo "libtorch: $tool is missing; install it first" >&2; exit 1; }
done
echo "libtorch: laying out $VLFT_TORCH_VERSION for CPU (once per machine)"
download="$VLFT_CACHE/dl"
mkdir -p "$download"
python3 -m pip download --quiet --no-deps --dest "$download" \
  "torch==$VLFT_TORCH_VERSION" "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cupti==13.0.*"
partial="$LIBTORCH.partial"
rm -rf "$partial"
mkdir -p "$partial/lib" "$partial/unpacked"
python3 - "$download" "$partial/unpacked" <<'PY'
import pathlib, sys, zipfile
source, target = map(pathlib.Path, sys.argv[1:])
wanted = ("torch/include/", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/lib/libgomp",
          "torch.libs/", "nvidia/")
for wheel in source.glob("*.whl"):
    if not wheel.name.startswith(("torch-", "nvidia_cuda_runtime", "nvidia_cuda_cupti")):
        continue
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(wanted):
                archive.extract(name, target)
PY
unpacked="$partial/unpacked"
mv "$unpacked/torch/include" "$partial/include"
find "$unpacked" \( -name 'libc10.so' -o -name 'libtorch_cpu.so' -o -name 'libgomp*.so*' \
  -o -name 'libcudart.so*' -o -name 'libcupti.so*' \) -exec mv -t "$partial/lib" {} +
gcc -shared -fPIC -x c /dev/null -o "$partial/lib/libtorch.so" -Wl,--no-as-needed \
  -L"$partial/lib" -ltorch_cpu -lc10 -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined
rm -rf "$partial/unpacked"
echo "$VLFT_TORCH_VERSION" > "$partial/build-version"
touch "$partial/.complete"
rm -rf "$LIBTORCH"
mv "$partial" "$LIBTORCH"
