#!/usr/bin/env bash
# Makes the two Python environments that the parity tests compare with, once per machine.
#
# Usage: scripts/venv.sh 5    (transformers 5 and PEFT)
#        scripts/venv.sh 4    (the last transformers 4)
#        scripts/venv.sh      (both)
# Prints the environment's python on standard output, what it does on standard error.
# An environment is keyed by a hash of its pinned requirements; both share one torch.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ $# -eq 0 ]; then
  for series in 5 4; do "${BASH_SOURCE[0]}" "$series"; done
  exit
fi
series="$1"
requirements="$VLFT_ROOT/trainer/tests/reference/requirements-$series.txt"
layout="$VLFT_ROOT/scripts/torch_python"
say() { echo "venv: $*" >&2; }
fail() { say "$*"; exit 1; }
[ -n "$series" ] && [ -f "$requirements" ] || fail "usage: scripts/venv.sh 4|5"
pinned() { sed -n "s/^$1==//p" "$requirements"; }
key() { cat "$@" | sha256sum | cut -c1-12; }
[ "$(pinned torch)" = "$VLFT_TORCH_VERSION" ] \
  || fail "$requirements must pin torch==$VLFT_TORCH_VERSION, the libtorch of scripts/env.sh"
torch="$VLFT_CACHE/torch-python-$(key "$layout"/* <(grep -E '^(torch|torchvision)==' "$requirements"))"
venv="$VLFT_CACHE/venv-$(key "$requirements" <(echo "$torch"))"

lay_out_torch() {
  [ -e "$torch/.complete" ] && return
  say "laying out torch $VLFT_TORCH_VERSION and torchvision for the CPU (once per machine, under a minute)"
  for tool in g++ nm; do
    command -v "$tool" >/dev/null || fail "$tool is missing; install build-essential first"
  done
  "$VLFT_ROOT/scripts/libtorch.sh" >&2 || fail "libtorch.sh failed (see above); it downloads torch once: is a package index reachable?"
  python3 -m pip download --quiet --no-deps --dest "$VLFT_CACHE/dl" \
    "torch==$VLFT_TORCH_VERSION" "torchvision==$(pinned torchvision)" \
    || fail "cannot download torchvision==$(pinned torchvision): no network, or no package index reachable"
  rm -rf "$torch"
  mkdir -p "$torch"
  python3 "$layout/lay_out.py" "$VLFT_CACHE/dl" "$LIBTORCH" "$torch"
  touch "$torch/.complete"
}

make_venv() {
  say "installing transformers $(pinned transformers) with its pinned requirements (once per machine, about a minute)"
  rm -rf "$venv"
  python3 -m venv "$venv" || fail "python3 -m venv failed; install python3-venv first"
  echo "$torch" > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth"
  # --no-deps: the file pins the whole set, and torch comes from the shared layout.
  "$venv/bin/pip" install --quiet --no-deps --disable-pip-version-check \
    -r <(grep -vE '^(torch|torchvision)==' "$requirements") \
    || fail "cannot install $requirements: no network, or no package index reachable"
  "$venv/bin/python" -c 'import torch, torchvision, transformers' \
    || fail "the installed torch or transformers does not import; see above"
  touch "$venv/.complete"
}

mkdir -p "$VLFT_CACHE"
if [ ! -e "$venv/.complete" ]; then
  exec 9> "$VLFT_CACHE/venv.lock"
  flock 9
  lay_out_torch
  [ -e "$venv/.complete" ] || make_venv
  exec 9>&-
fi
echo "$venv/bin/python"
