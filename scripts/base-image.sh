#!/usr/bin/env bash
# Makes a small Debian root file system for the trainer image where no registry can be reached,
# and prints the path of its tar file. Once per suite and package list.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
suite="${VLFT_BASE_SUITE:-bookworm}"
# The C and C++ libraries that the trainer links, and a shell with cp and ls for Jobs that
# fill a volume. Packages are extracted, not configured: no package manager, no init.
packages="base-files bash coreutils dash libc-bin libc6 libgcc-s1 libstdc++6
  libacl1 libattr1 libgmp10 libpcre2-8-0 libselinux1 libtinfo6"

key="$({ echo "$suite" $packages; cat "${BASH_SOURCE[0]}"; } | sha256sum | cut -c1-16)"
base="$VLFT_CACHE/images/base-$key.tar"
if [ ! -e "$base" ]; then
  command -v mmdebstrap >/dev/null || { echo "base-image: mmdebstrap is missing; apt-get install mmdebstrap" >&2; exit 1; }
  echo "base-image: making a Debian $suite root file system (once per machine)" >&2
  mkdir -p "$VLFT_CACHE/images"
  mmdebstrap --quiet --variant=extract --format=tar --skip=output/dev \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include="$(echo $packages | tr ' ' ,)" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='printf "root:x:0:0:root:/root:/bin/bash\ntrainer:x:65532:65532::/tmp:/bin/sh\n" >"$1/etc/passwd"' \
    --customize-hook='printf "root:x:0:\ntrainer:x:65532:\n" >"$1/etc/group"' \
    "$suite" "$base.partial" >&2
  mv "$base.partial" "$base"
fi
echo "$base"
