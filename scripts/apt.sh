#!/usr/bin/env bash
# Installs the Debian packages that are missing, and says in one line when it cannot.
# Usage: apt.sh [build] [cluster] [images] [metrics]     (all groups when none is named)
set -euo pipefail

# packages GROUP: lines "PROGRAM-OR-PATH PACKAGE"; a package is missing when its program is.
packages() {
  case "$1" in
    build) printf '%s\n' "gcc gcc" "g++ g++" "make make" "cmake cmake" "pkg-config pkg-config" "python3 python3" \
      "/usr/lib/python3/dist-packages/pip python3-pip" "/usr/lib/python3/dist-packages/venv python3-venv" ;;
    cluster) printf '%s\n' "containerd containerd" "runc runc" "/usr/lib/cni/ptp containernetworking-plugins" \
      "ip iproute2" "nft nftables" "unshare util-linux" "gcc gcc" "buildah buildah" "dpkg-deb dpkg" ;;
    images) printf '%s\n' "buildah buildah" "mmdebstrap mmdebstrap" ;;
    metrics) printf '%s\n' "prometheus prometheus" ;;
    *) echo "apt: no group named $1; there are build, cluster, images and metrics" >&2; return 2 ;;
  esac
}

# present WHAT: a path that exists, or a program on the path (system folders included).
present() {
  case "$1" in
    /usr/lib/cni/*) [ -e "$1" ] || [ -e "/opt/cni/bin/${1##*/}" ] ;;
    /usr/lib/python3/dist-packages/venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
    /usr/lib/python3/dist-packages/pip) python3 -m pip --version >/dev/null 2>&1 ;;
    /*) [ -e "$1" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
  esac
}

groups="${*:-build cluster images metrics}"
missing=()
for group in $groups; do
  wanted="$(packages "$group")"
  while read -r what package; do
    present "$what" || missing+=("$package")
  done <<<"$wanted"
done
[ ${#missing[@]} -eq 0 ] && exit 0
list="$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"
command -v apt-get >/dev/null || { echo "apt: missing ${list% }, and this is no Debian: install them first" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || { echo "apt: missing ${list% }: run as root, or install them first" >&2; exit 1; }
echo "apt: installing ${list% }"
export DEBIAN_FRONTEND=noninteractive
# Their services are not wanted: what is needed is started by our own programs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
log="$(mktemp)"
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $list; } >"$log" 2>&1 ||
  { echo "apt: cannot install ${list% }: $(grep -m1 '^E:' "$log" || tail -1 "$log")" >&2; exit 1; }
