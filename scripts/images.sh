#!/usr/bin/env bash
# Builds the container images from their Dockerfiles with buildah, out of the binaries that
# cargo builds here, and writes them to $VLFT_CACHE/images/NAME.tar (docker archives, for
# `cluster load` or `docker load`). What has not changed is not built again.
# Usage: images.sh [operator] [trainer]     (both when none is named)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$VLFT_ROOT"
images="$VLFT_CACHE/images"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)"
# The work folder of buildah lies in the cache too, so that emptying the cache frees it.
buildah="buildah --root $images/storage --runroot /run/vlft-buildah"

for tool in cargo strip buildah; do
  command -v $tool >/dev/null || { echo "images: $tool is missing; install it first" >&2; exit 1; }
done
mkdir -p "$images"
# One build at a time: the layers of all images lie in one store.
exec 9>"$images/.lock"
flock 9

# context NAME: an empty folder whose `prebuilt/` takes the files of an image.
context() {
  rm -rf "$images/context-$1"
  mkdir -p "$images/context-$1/prebuilt"
  echo "$images/context-$1/prebuilt"
}

# build NAME DOCKERFILE [BUILD-ARG...]: what lies in the context becomes $images/NAME.tar.
build() {
  local name="$1" dockerfile="$2" key
  shift 2
  key="$({ cat "$dockerfile"; echo "$version" "$@"; cd "$images/context-$name" && find . -type f -print0 | sort -z | xargs -0 sha256sum; } |
    sha256sum | cut -c1-32)"
  [ -e "$images/$name.tar" ] && [ "$(cat "$images/.$name.key" 2>/dev/null)" = "$key" ] && return
  echo "images: building vlfinetune/$name:$version"
  $buildah build --quiet --layers --isolation chroot --network host --file "$dockerfile" \
    --build-arg BINARIES=prebuilt "$@" --tag "localhost/vlfinetune/$name:$version" "$images/context-$name" >/dev/null
  rm -f "$images/$name.partial"
  $buildah push --quiet "localhost/vlfinetune/$name:$version" "docker-archive:$images/$name.partial:vlfinetune/$name:$version"
  mv "$images/$name.partial" "$images/$name.tar"
  echo "$key" >"$images/.$name.key"
  $buildah rmi --prune >/dev/null 2>&1 || true
}

build_operator() {
  local files
  files="$(context operator)"
  # The flag is given to the last crate alone, so that its dependencies are not compiled twice.
  cargo rustc --quiet --locked --package vlft-operator --bin operator -- -C target-feature=+crt-static
  strip -o "$files/operator" "$CARGO_TARGET_DIR/debug/operator"
  build operator operator/Dockerfile
}

# stripped_libtorch: a copy of libtorch without symbol tables (a fifth smaller), made once.
stripped_libtorch() {
  local stripped="$images/libtorch-$VLFT_TORCH_VERSION-cpu"
  if [ ! -e "$stripped" ]; then
    rm -rf "$stripped.partial"
    cp -a "$LIBTORCH/lib" "$stripped.partial"
    strip --strip-unneeded "$stripped.partial"/*
    mv "$stripped.partial" "$stripped"
  fi
  echo "$stripped"
}

# base_image: the name of an image with the root file system of base-image.sh.
base_image() {
  local archive name
  archive="$(scripts/base-image.sh)"
  name="localhost/vlfinetune/$(basename "$archive" .tar):latest"
  if ! $buildah inspect --type image "$name" >/dev/null 2>&1; then
    ln -f "$archive" "$(context base)/root.tar"
    printf 'FROM scratch\nADD prebuilt/root.tar /\n' >"$images/context-base/Dockerfile"
    $buildah build --quiet --isolation chroot --tag "$name" "$images/context-base" >/dev/null
  fi
  echo "$name"
}

build_trainer() {
  local files
  files="$(context trainer)"
  # The whole workspace, as everywhere: with one package alone, cargo would resolve other features
  # and compile its dependencies again.
  cargo build --quiet --locked --workspace --bins
  strip -o "$files/trainer" "$CARGO_TARGET_DIR/debug/trainer"
  cp -al "$(stripped_libtorch)" "$files/libtorch"
  mkdir "$files/examples"
  cp -r examples/digits "$files/examples/digits"
  build trainer trainer/Dockerfile --build-arg "BASE=$(base_image)"
}

for image in ${@:-operator trainer}; do
  case "$image" in
    operator | trainer) "build_$image" ;;
    *) echo "images: no image named $image; there are operator and trainer" >&2; exit 2 ;;
  esac
done
