#!/usr/bin/env python3
"""Writes examples/digits: the 1,797 handwritten digits that scikit-learn bundles, as PNG files.

Run once; its output is committed. It needs scikit-learn and Pillow:

    python3 -m venv venv && venv/bin/pip install scikit-learn==1.7.2 pillow==13.0.0
    venv/bin/python scripts/digits.py examples/digits

The same versions write the same bytes. Each 8x8 picture of 17 grey levels becomes 56x56 pixels,
losslessly (every source pixel is a block of seven by seven): two by two merged patches of 28
pixels, and the smallest picture that Qwen2-VL's processor takes without enlarging it
(`min_pixels` = 56 * 56).
"""

import json
import pathlib
import random
import shutil
import sys

import numpy
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIDE = 56
SEED = 20240607
HELD_OUT = 297


def picture(grey_levels: numpy.ndarray) -> Image.Image:
    """A `[8, 8]` array of 0 (paper) to 16 (ink) as an 8-bit greyscale picture, ink white."""
    levels = numpy.rint(grey_levels * (255 / 16)).astype(numpy.uint8)
    return Image.fromarray(levels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def split(labels: list[int]) -> tuple[list[int], list[int]]:
    """Indices to train on and held out; every digit has the same share of both (±1)."""
    shuffled = list(range(len(labels)))
    random.Random(SEED).shuffle(shuffled)
    by_digit = [[i for i in shuffled if labels[i] == digit] for digit in range(10)]
    # Take turns through the digits, so that any prefix is balanced.
    turns = [group[turn] for turn in range(max(map(len, by_digit))) for group in by_digit if turn < len(group)]
    return sorted(turns[HELD_OUT:]), sorted(turns[:HELD_OUT])


def write_part(folder: pathlib.Path, images: numpy.ndarray, labels: list[int], chosen: list[int]) -> None:
    """Writes `images/NNNN.png` (numbered from 1, as in the source) and `metadata.jsonl`."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for index in chosen:
            name = f"images/{index + 1:04}.png"
            picture(images[index]).save(folder / name, optimize=True)
            line = {"image": name, "text": f"a handwritten digit {NAMES[labels[index]]}"}
            metadata.write(json.dumps(line) + "\n")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: digits.py FOLDER")
    folder = pathlib.Path(sys.argv[1])
    digits = load_digits()
    labels = [int(label) for label in digits.target]
    train, held_out = split(labels)
    write_part(folder / "train", digits.images, labels, train)
    write_part(folder / "validation", digits.images, labels, held_out)
    print(f"{folder}: {len(train)} to train, {len(held_out)} held out")


if __name__ == "__main__":
    main()
