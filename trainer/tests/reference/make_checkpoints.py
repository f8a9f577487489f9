"""Writes a family's small random checkpoints, as one series of transformers saves them.

Usage: make_checkpoints.py FAMILY FOLDER     (run once in each environment)

Writes FOLDER/VARIANT/model for the variants of the series that is installed. Every parameter is
random, biases and norms too, so that none can be left out of a model without being noticed; the
logits have a standard deviation of at least 1.
"""

from __future__ import annotations

import json
import pathlib
import sys
import zlib

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from family import Family, load_inputs


def main() -> None:
    family, folder = Family(sys.argv[1]), pathlib.Path(sys.argv[2])
    series = int(transformers.__version__.split(".")[0])
    for name, variant in family.variants.items():
        if variant["series"] == series:
            make_checkpoint(family, name, variant, folder / name / "model")


def make_checkpoint(family: Family, name: str, variant: dict, folder: pathlib.Path) -> None:
    tokenizer = make_tokenizer(family)
    model = make_model(family, variant, tokenizer, seed=zlib.crc32(name.encode()))
    sharding = {"max_shard_size": variant["max_shard_size"]} if "max_shard_size" in variant else {}
    model.save_pretrained(folder, **sharding)
    make_processor(family, tokenizer).save_pretrained(folder)
    if variant.get("flat_config"):
        flatten_config(folder / "config.json")


def make_tokenizer(family: Family) -> transformers.PreTrainedTokenizerBase:
    """A byte-level BPE over the texts of inputs.json, put together as the family's own."""
    spec = family.spec["tokenizer"]
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(spec["pattern"]), behavior="isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    backend.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    special = spec["special_tokens"]
    trainer = trainers.BpeTrainer(
        vocab_size=spec["vocab_size"] - len(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [item for case in load_inputs().values() for chat in case for turn in chat for item in turn]
    backend.train_from_iterator([text for text in texts if isinstance(text, str)], trainer)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer_class = getattr(transformers, spec.get("class", family.spec["tokenizer_class"]))
    return tokenizer_class(
        tokenizer_object=backend, pad_token=spec["pad_token"], eos_token=spec["eos_token"],
        unk_token=None, chat_template=family.spec["chat_template"], **vocabulary(backend),
    )


def vocabulary(backend: Tokenizer) -> dict:
    """transformers 5 builds its own backend from these; 4 takes `tokenizer_object`."""
    if transformers.__version__.startswith("4"):
        return {}
    model = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def make_model(family: Family, variant: dict, tokenizer, seed: int) -> transformers.PreTrainedModel:
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in family.spec["special_ids"].items()}
    values = {**family.spec["config"], **variant["config"], **ids, "vocab_size": len(tokenizer)}
    config = getattr(transformers, family.spec["config_class"])(**values)
    model = getattr(transformers, family.spec["model_class"])(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(random_like(name, parameter, generator))
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = ids["eos_token_id"]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def random_like(name: str, parameter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim == 1:
        centre = 1.0 if name.endswith("weight") else 0.0
        return centre + 0.3 * noise
    fan_in = parameter[0].numel()
    # Above the usual scale: at the head for logits of standard deviation 2, elsewhere so that
    # what a token attends to decides the next one, and greedy text does not just repeat itself.
    gain = 2.0 if "embed_tokens" in name or "lm_head" in name else 1.8
    return gain * noise / fan_in**0.5


def make_processor(family: Family, tokenizer) -> transformers.ProcessorMixin:
    image_class = getattr(transformers, family.spec["image_processor_class"])
    parts = {"image_processor": image_class(**family.spec["image_processor"]), "tokenizer": tokenizer}
    processor_class = getattr(transformers, family.spec["processor_class"])
    if "video_processor" in processor_class.__init__.__code__.co_varnames:
        video = {key: family.spec["image_processor"][key] for key in ("patch_size", "merge_size", "temporal_patch_size")}
        parts["video_processor"] = transformers.Qwen2VLVideoProcessor(**video)
    return processor_class(**parts, chat_template=family.spec["chat_template"])


def flatten_config(file: pathlib.Path) -> None:
    """The language model's keys at the top level, as checkpoints on the Hub have them."""
    config = json.loads(file.read_text())
    text = config.pop("text_config")
    text.pop("model_type")
    flat = {**text, **config}
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": text["rope_scaling"]["mrope_section"]}
    flat["architectures"] = text["architectures"]
    file.write_text(json.dumps(flat, indent=2) + "\n")


if __name__ == "__main__":
    main()
