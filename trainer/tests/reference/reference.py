"""Computes with Hugging Face transformers what the trainer must reproduce.

Usage: reference.py FAMILY FOLDER      (in the environment with transformers 5)

Reads FOLDER/VARIANT/model, writes FOLDER/inputs (the cases of inputs.json as data sets),
FOLDER/VARIANT/CASE.{Float64,Float32}.safetensors and FOLDER/VARIANT/generated.json. The tensors
have the names that `trainer forward --grads` gives them.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

import torch
import transformers
from safetensors.torch import save_file

from double import kept_double
from family import Family, load_inputs, load_pictures, read_chats, write_inputs

PRECISIONS = {"Float64": torch.float64, "Float32": torch.float32}
IGNORED = -100
NEW_TOKENS = 12


def main() -> None:
    family, folder = Family(sys.argv[1]), pathlib.Path(sys.argv[2])
    cases = load_inputs()
    write_inputs(cases, folder / "inputs")
    for variant in family.variants:
        for precision in PRECISIONS:
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

    def compute(self, data: pathlib.Path) -> dict[str, torch.Tensor]:
        inputs, labels = self.encode(read_chats(data), data.parent)
        self.model.zero_grad(set_to_none=True)
        context = kept_double(self.model) if self.model.dtype is torch.float64 else torch.enable_grad()
        with context:
            logits = self.model(**inputs).logits
            loss = mean_loss(logits, labels)
            loss.backward()
        tensors = {"loss": loss.detach()}
        for index, (mask, pixels) in enumerate(zip(inputs["attention_mask"], self.per_sample(inputs))):
            kept = mask.bool()
            shifted = torch.cat([labels[index][1:], torch.tensor([IGNORED])])
            sample = {
                "input_ids": inputs["input_ids"][index][kept],
                "labels": shifted[kept],
                "logits": logits[index][kept].detach(),
                **pixels,
            }
            tensors |= {f"sample.{index}.{name}": value.contiguous() for name, value in sample.items()}
        return tensors | self.gradients()

    def encode(self, chats: list[list[dict]], folder: pathlib.Path) -> tuple[dict, torch.Tensor]:
        texts = [self.processor.apply_chat_template(chat, tokenize=False) for chat in chats]
        inputs = self.process(texts, chats, folder, padding_side="right")
        inputs.pop("token_type_ids", None)
        return inputs, torch.stack([self.labels(ids) for ids in inputs["input_ids"]])

    def process(self, texts: list[str], chats: list[list[dict]], folder: pathlib.Path, padding_side: str):
        self.processor.tokenizer.padding_side = padding_side
        images = [picture for chat in chats for picture in load_pictures(chat, folder)]
        return self.processor(text=texts, images=images or None, padding=True, return_tensors="pt")

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

    def per_sample(self, inputs: dict) -> Iterator[dict[str, torch.Tensor]]:
        """The patches and grids that belong to each sample."""
        grids = inputs.get("image_grid_thw", torch.empty(0, 3, dtype=torch.long))
        patches = iter(inputs.get("pixel_values", torch.empty(0)).split(grids.prod(-1).tolist()))
        begin = self.model.config.vision_start_token_id
        remaining = iter(grids)
        for ids in inputs["input_ids"]:
            count = int((ids == begin).sum())
            if count == 0:
                yield {}
                continue
            yield {
                "image_grid_thw": torch.stack([next(remaining) for _ in range(count)]),
                "pixel_values": torch.cat([next(patches) for _ in range(count)]),
            }

    def gradients(self) -> dict[str, torch.Tensor]:
        """Of every parameter; zeros where a text-only batch reached nothing."""
        return {
            f"grad.{self.family.checkpoint_name(name)}": (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
            )
            for name, parameter in self.model.named_parameters()
        }

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


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over all supervised tokens of the batch; labels are not shifted yet."""
    shifted = labels[:, 1:].reshape(-1)
    flat = logits[:, :-1].reshape(-1, logits.shape[-1])
    return torch.nn.functional.cross_entropy(flat, shifted, ignore_index=IGNORED)


if __name__ == "__main__":
    main()
