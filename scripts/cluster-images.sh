#!/usr/bin/env bash
# Builds the small images that the cluster and its tests need into $VLFT_CACHE/images:
#   pause.tar     localhost/vlft/pause:1      every pod's sandbox
#   busybox.tar   localhost/vlft/busybox:1    a shell for tests (Debian's static busybox)
#   stand-in.tar  localhost/vlft/stand-in:1   speaks the trainer's contract without training
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
sources="$VLFT_ROOT/tests/cluster/images"
images="$VLFT_CACHE/images"
for tool in buildah gcc dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "cluster-images: $tool is missing; run scripts/apt.sh cluster" >&2; exit 1; }
done
mkdir -p "$images"
key="$(cat "$sources"/*/* "${BASH_SOURCE[0]}" | sha256sum | cut -c1-32)"
if [ -e "$images/pause.tar" ] && [ -e "$images/busybox.tar" ] && [ "$(cat "$images/.cluster.key" 2>/dev/null)" = "$key" ]; then
  exit 0
fi
echo "cluster-images: building the pause, busybox and stand-in images (once per machine)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp -r "$sources/." "$work"

gcc -static -Os -s -o "$work/pause/pause" "$work/pause/pause.c"
# Debian's static busybox, taken out of its package: nothing is installed on this machine.
chmod 755 "$work" # apt downloads as a user of its own
(cd "$work" && apt-get download -qq busybox-static >apt.log 2>&1 && dpkg-deb -x busybox-static_*.deb unpacked) ||
  { echo "cluster-images: cannot get busybox-static: $(tail -1 "$work/apt.log")" >&2; exit 1; }
mv "$work/unpacked/bin/busybox" "$work/busybox/busybox"
mkdir "$work/busybox/bin"
"$work/busybox/busybox" --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
done

# A storage of its own, removed with the work folder: buildah leaves nothing behind.
buildah="buildah --root $work/storage --runroot $work/run --storage-driver vfs"
for name in pause busybox stand-in; do
  $buildah build --quiet --isolation chroot --tag "localhost/vlft/$name:1" "$work/$name" >/dev/null
  rm -f "$images/$name.tar.partial"
  $buildah push --quiet "localhost/vlft/$name:1" "docker-archive:$images/$name.tar.partial:localhost/vlft/$name:1"
  mv "$images/$name.tar.partial" "$images/$name.tar"
done
echo "$key" > "$images/.cluster.key"
