#!/usr/bin/env bash
# Formatting, lints, licences; stops at the first that is not clean.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$VLFT_ROOT"
scripts/libtorch.sh
echo "== cargo fmt"
cargo fmt --all --check
echo "== cargo clippy"
cargo clippy --quiet --workspace --all-targets -- -D warnings
echo "== cargo deny (licences, bans, sources)"
if ! command -v cargo-deny >/dev/null && [ ! -x "$VLFT_CACHE/bin/cargo-deny" ]; then
  echo "   installing cargo-deny (once per machine)"
  cargo install --quiet --locked --root "$VLFT_CACHE" --target-dir "$VLFT_CACHE/target-tools" cargo-deny
fi
PATH="$VLFT_CACHE/bin:$PATH" cargo deny --log-level error check licenses bans sources
