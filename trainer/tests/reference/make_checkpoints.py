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
    make_checkpoints(Family(sys.argv[1]), pathlib.Path(sys.argv[2]))


def make_checkpoints(family: Family, folder: pathlib.Path) -> None:
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
    special = spec["special_tokens"]
    trainer = trainers.BpeTrainer(
        vocab_size=spec["vocab_size"] - len(special), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [item for case in load_inputs().values() for chat in case for turn in chat for item in turn]
    backend.train_from_iterator([text for text in texts if isinstance(text, str)], trainer)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.post_processor = post_processor(backend, spec)
    names = {key: spec[key] for key in ("pad_token", "eos_token", "bos_token") if key in spec}
    tokenizer_class = getattr(transformers, family.spec["tokenizer_class"])
    return tokenizer_class(
        tokenizer_object=backend, **names, **{"unk_token": None} | spec.get("arguments", {}),
        chat_template=family.spec["chat_template"], **vocabulary(backend, tokenizer_class),
    )


def post_processor(backend: Tokenizer, spec: dict):
    """Byte levels, and the token that begins every text where the family has one."""
    byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    bos = spec.get("bos_token")
    if bos is None:
        return byte_level
    ids = [(bos, backend.token_to_id(bos))]
    begin = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=ids)
    return processors.Sequence([byte_level, begin])


def vocabulary(backend: Tokenizer, tokenizer_class: type) -> dict:
    """Tokenizers of a family of their own build the backend from these in transformers 5."""
    if transformers.__version__.startswith("4") or tokenizer_class is transformers.PreTrainedTokenizerFast:
        return {}
    model = json.loads(backend.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def make_model(family: Family, variant: dict, tokenizer, seed: int) -> transformers.PreTrainedModel:
    values = filled({**family.spec["config"], **variant.get("config", {})}, tokenizer)
    config_class = variant.get("config_class", family.spec["config_class"])
    model_class = variant.get("model_class", family.spec["model_class"])
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**values))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(random_like(name, parameter, family, generator))
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def filled(value, tokenizer):
    """A config in which `$vocab` and `$TOKEN` stand for the vocabulary's size and a token's id."""
    if isinstance(value, dict):
        return {key: filled(inner, tokenizer) for key, inner in value.items()}
    if isinstance(value, str) and value.startswith("$"):
        return len(tokenizer) if value == "$vocab" else tokenizer.convert_tokens_to_ids(value[1:])
    return value


def random_like(name: str, parameter: torch.Tensor, family: Family, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim == 1:
        # Gemma stores what is to be added to 1.
        centre = family.spec.get("norm_centre", 1.0) if name.endswith("weight") else 0.0
        return centre + 0.3 * noise
    fan_in = parameter[0].numel()
    # Above the usual scale: at the head for logits of standard deviation 2, elsewhere so that
    # what a token attends to decides the next one, and greedy text does not just repeat itself.
    gain = 2.0 if "embed_tokens" in name or "lm_head" in name else 1.8
    return gain * noise / fan_in**0.5


def make_processor(family: Family, tokenizer) -> transformers.ProcessorMixin:
    spec = family.spec
    image_class = getattr(transformers, spec["image_processor_class"])
    parts = {"image_processor": image_class(**spec["image_processor"]), "tokenizer": tokenizer}
    if "video_processor_class" in spec:
        parts["video_processor"] = getattr(transformers, spec["video_processor_class"])(**spec["video_processor"])
    processor_class = getattr(transformers, spec["processor_class"])
    return processor_class(**parts, **spec.get("processor", {}), chat_template=spec["chat_template"])


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
