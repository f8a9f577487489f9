"""Computes with Hugging Face transformers what the trainer must reproduce.

Usage: reference.py FAMILY FOLDER      (in the environment with transformers 5)

Writes FOLDER/VARIANT/model for the variants of transformers 5 (those of 4 are there already),
FOLDER/inputs (the cases of inputs.json as data sets),
FOLDER/VARIANT/CASE.{Float64,Float32,BFloat16}.safetensors and FOLDER/VARIANT/generated.json. The
tensors have the names that `trainer forward --grads` gives them.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import sys

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from double import kept_double
from family import Family, load_inputs, load_pictures, read_chats, write_inputs
from make_checkpoints import make_checkpoints

PRECISIONS = {"Float32": torch.float32, "Float64": torch.float64, "BFloat16": torch.bfloat16}
IGNORED = -100
NEW_TOKENS = 12


def main() -> None:
    family, folder = Family(sys.argv[1]), pathlib.Path(sys.argv[2])
    cases = load_inputs()
    write_inputs(cases, folder / "inputs")
    make_checkpoints(family, folder)
    for variant in family.variants:
        for precision in PRECISIONS:
            if precision == "BFloat16" and variant != next(iter(family.variants)):
                continue
            reference = Reference(family, folder / variant / "model", PRECISIONS[precision])
            for case in cases:
                tensors = reference.compute(folder / "inputs" / f"{case}.jsonl")
                save_file(tensors, folder / variant / f"{case}.{precision}.safetensors")
            if precision == "Float32":
                texts = {case: reference.generate(folder / "inputs" / f"{case}.jsonl") for case in cases}
                (folder / variant / "generated.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1))


class Reference:
    def __init__(self, family: Family, checkpoint: pathlib.Path, dtype: torch.dtype) -> None:
        self.family = family
        self.processor = transformers.AutoProcessor.from_pretrained(checkpoint)
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=dtype, attn_implementation="sdpa"
        ).eval()
        self.checkpoint = checkpoint

    def compute(self, data: pathlib.Path) -> dict[str, torch.Tensor]:
        inputs, labels = self.encode(read_chats(data), data.parent)
        self.model.zero_grad(set_to_none=True)
        context = kept_double(self.model) if self.model.dtype is torch.float64 else torch.enable_grad()
        with context:
            logits = self.model(**inputs).logits
            loss = mean_loss(logits, labels)
            loss.backward()
        tensors = {"loss": loss.detach()}
        chats = read_chats(data)
        for index, mask in enumerate(inputs["attention_mask"]):
            kept = mask.bool()
            shifted = torch.cat([labels[index][1:], torch.tensor([IGNORED])])
            sample = {
                "input_ids": inputs["input_ids"][index][kept],
                "labels": shifted[kept],
                "logits": logits[index][kept].detach(),
                **self.patches(load_pictures(chats[index], data.parent)),
            }
            tensors |= {f"sample.{index}.{name}": value.contiguous() for name, value in sample.items()}
        return tensors | self.gradients()

    def encode(self, chats: list[list[dict]], folder: pathlib.Path) -> tuple[dict, torch.Tensor]:
        texts = [self.processor.apply_chat_template(chat, tokenize=False) for chat in chats]
        inputs = self.process(texts, chats, folder, padding_side="right")
        if not self.family.spec.get("token_type_ids"):
            inputs.pop("token_type_ids", None)
        return inputs, torch.stack([self.labels(ids) for ids in inputs["input_ids"]])

    def process(self, texts: list[str], chats: list[list[dict]], folder: pathlib.Path, padding_side: str):
        images = [load_pictures(chat, folder) for chat in chats]
        if not self.family.spec.get("nested_images"):
            images = sum(images, [])
        images = images if any(images) else None
        # As apply_chat_template does: a template may have written the token that begins a text.
        bos = self.processor.tokenizer.bos_token
        begun = bos is not None and all(text.startswith(bos) for text in texts)
        return self.processor(
            text=texts, images=images, padding=True, padding_side=padding_side,
            add_special_tokens=not begun, return_tensors="pt",
        )

    def labels(self, ids: torch.Tensor) -> torch.Tensor:
        """The assistant's words and the token that ends its turn; everything else is ignored."""
        spec = self.family.spec["tokenizer"]
        begin = self.processor.tokenizer(spec["answer_begins_after"], add_special_tokens=False)["input_ids"]
        end = self.processor.tokenizer.convert_tokens_to_ids(spec["answer_ends_with"])
        labels, listening = torch.full_like(ids, IGNORED), False
        for position, token in enumerate(ids.tolist()):
            if listening:
                labels[position] = token
            if ids[max(0, position + 1 - len(begin)) : position + 1].tolist() == begin:
                listening = True
            elif token == end:
                listening = False
        return labels

    def patches(self, pictures: list) -> dict[str, torch.Tensor]:
        """Patches and grids of a sample's pictures, each processed by itself."""
        made = [self.picture_patches(picture) for picture in pictures]
        if not made:
            return {}
        pixels, grids = zip(*made)
        return {"image_grid_thw": torch.cat(grids), "pixel_values": torch.cat(pixels)}

    def picture_patches(self, picture) -> tuple[torch.Tensor, torch.Tensor]:
        """`[P, D]` and `[1, 3]`. Tiles for a convolution are laid out as the patches it will see."""
        arguments = self.family.spec.get("image_arguments", {})
        processed = self.processor.image_processor(images=[picture], return_tensors="pt", **arguments)
        pixels = processed["pixel_values"]
        if "image_grid_thw" in processed:
            return pixels, processed["image_grid_thw"]
        side = self.family.spec["patch"]
        tiles = pixels.flatten(0, -4).unfold(2, side, side).unfold(3, side, side)
        count, _, rows, columns = tiles.shape[:4]
        patches = tiles.permute(0, 2, 3, 1, 4, 5).reshape(count * rows * columns, -1)
        return patches, torch.tensor([[count, rows, columns]])

    def gradients(self) -> dict[str, torch.Tensor]:
        """Of every parameter; zeros where a text-only batch reached nothing. Parameters that the
        model has but never uses are left out."""
        names = self.names_on_disk()
        return {
            f"grad.{names[name]}": self.gradient(names[name], parameter)
            for name, parameter in self.model.named_parameters()
            if not self.is_listed("unused", names[name])
        }

    def gradient(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """Keys without rotary positions have biases that cancel in the softmax: what is left of
        their gradients is rounding, and stands here as the zero that it is."""
        if parameter.grad is None or self.is_listed("without_effect", name):
            return torch.zeros_like(parameter)
        return parameter.grad.clone()

    def is_listed(self, key: str, name: str) -> bool:
        return any(re.search(pattern, name) for pattern in self.family.spec.get(key, []))

    def names_on_disk(self) -> dict[str, str]:
        """The checkpoint's name for each parameter: the tensor of the same random values."""
        on_disk = {}
        for file in sorted(self.checkpoint.glob("*.safetensors")):
            with safe_open(file, "pt") as tensors:
                on_disk |= {fingerprint(tensors.get_tensor(name), self.model.dtype): name for name in tensors.keys()}
        return {name: on_disk[fingerprint(p, self.model.dtype)] for name, p in self.model.named_parameters()}

    def generate(self, data: pathlib.Path) -> list[dict]:
        """Greedy continuation of each sample's prompt, up to its last answer."""
        return [self.continuation(chat[:-1], data.parent) for chat in read_chats(data)]

    def continuation(self, chat: list[dict], folder: pathlib.Path) -> dict:
        text = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        inputs = self.process([text], [chat], folder, padding_side="left")
        with torch.no_grad():
            ids = self.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return {"ids": new.tolist(), "text": self.processor.decode(new, skip_special_tokens=True)}


def fingerprint(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    values = tensor.detach().to(dtype).to(torch.float64).contiguous()
    return hashlib.sha1(values.numpy().tobytes()).hexdigest()


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over all supervised tokens of the batch; labels are not shifted yet."""
    shifted = labels[:, 1:].reshape(-1)
    flat = logits[:, :-1].reshape(-1, logits.shape[-1])
    if flat.dtype is torch.bfloat16:
        flat = flat.float()
    return torch.nn.functional.cross_entropy(flat, shifted, ignore_index=IGNORED)


if __name__ == "__main__":
    main()
