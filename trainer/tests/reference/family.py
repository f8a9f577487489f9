"""A model family as described by families/NAME.json, and the inputs of inputs.json."""

from __future__ import annotations

import json
import pathlib
import zlib

import numpy
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent


class Family:
    """Everything a test needs to know about a family; no family has code of its own here."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spec = json.loads((HERE / "families" / f"{name}.json").read_text())
        self.variants: dict[str, dict] = self.spec["variants"]


def load_inputs() -> dict[str, list]:
    return json.loads((HERE / "inputs.json").read_text())


def write_inputs(cases: dict[str, list], folder: pathlib.Path) -> None:
    """Writes each case as `CASE.jsonl` in the messages format, with its pictures beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, samples in cases.items():
        lines = [json.dumps({"messages": messages(sample, folder)}, ensure_ascii=False) for sample in samples]
        (folder / f"{case}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def messages(sample: list, folder: pathlib.Path | None = None) -> list[dict]:
    """A sample as chat messages; pictures are written to `folder` and named relative to it."""
    return [{"role": role, "content": [part(item, folder) for item in items]} for role, *items in sample]


def part(item: str | dict, folder: pathlib.Path | None) -> dict:
    if isinstance(item, str):
        return {"type": "text", "text": item}
    width, height = item["image"]
    kind = item.get("kind", "plain")
    name = f"{width}x{height}" + ("" if kind == "plain" else f"-{kind}") + (".jpg" if kind == "cmyk" else ".png")
    if folder is not None and not (folder / name).exists():
        save(picture(width, height), kind, folder / name)
    return {"type": "image", "image": name}


def save(rgb: Image.Image, kind: str, file: pathlib.Path) -> None:
    """Writes a picture the way cameras, scanners and designers leave them."""
    if kind == "grey":
        rgb = rgb.convert("L")
    elif kind == "palette":
        rgb = rgb.quantize(16)
    elif kind == "alpha":
        rgb.putalpha(rgb.getchannel("R"))
    elif kind == "deep":
        levels = numpy.asarray(rgb.convert("L")).astype(numpy.uint16)
        rgb = Image.fromarray(levels * 3 // 2)
    elif kind == "cmyk":
        # One colour: JPEG decoders differ by a level or two elsewhere.
        Image.new("CMYK", rgb.size, (40, 90, 200, 30)).save(file, quality=100)
        return
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        rgb.save(file, exif=exif)
        return
    rgb.save(file)


def picture(width: int, height: int) -> Image.Image:
    """A picture with gradients, edges and noise, the same on every machine."""
    random = numpy.random.default_rng(zlib.crc32(f"{width}x{height}".encode()))
    y, x = numpy.mgrid[0:height, 0:width]
    waves = [numpy.sin(x / a) + numpy.cos(y / b) for a, b in random.uniform(2, 30, (3, 2))]
    smooth = numpy.stack(waves, axis=-1) * 60 + 128
    noise = random.integers(-20, 21, (height, width, 3))
    edge = ((x * 3 + y * 2) % 37 < 5)[..., None] * 90
    return Image.fromarray((smooth + noise + edge).clip(0, 255).astype(numpy.uint8), "RGB")


def load_pictures(chat: list[dict], folder: pathlib.Path) -> list[Image.Image]:
    parts = [part for message in chat for part in message["content"] if part["type"] == "image"]
    return [ImageOps.exif_transpose(Image.open(folder / part["image"])).convert("RGB") for part in parts]


def read_chats(file: pathlib.Path) -> list[list[dict]]:
    return [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
