"""Loads what a LoRA run left behind: the adapter with PEFT, the merged folder with transformers.

Usage: elsewhere.py FAMILY BASE DATA ADAPTER MERGED

Prints JSON: the logits of DATA's first record by the base model alone, with the adapter, and by
the merged folder, and the merged folder's greedy `continuations` of every record.
"""

from __future__ import annotations

import json
import pathlib
import sys

import torch
from peft import PeftModel

from family import Family, read_chats
from reference import Reference


def main() -> None:
    family, (base, data, adapter, merged) = Family(sys.argv[1]), map(pathlib.Path, sys.argv[2:])
    reference = Reference(family, base, torch.float32)
    result = {"base": logits(reference, data)}
    reference.model = PeftModel.from_pretrained(reference.model, adapter).eval()
    result["with_adapter"] = logits(reference, data)
    reference = Reference(family, merged, torch.float32)
    result |= {"merged": logits(reference, data), "continuations": reference.generate(data)}
    print(json.dumps(result))


def logits(reference: Reference, data: pathlib.Path) -> list[float]:
    inputs, _ = reference.encode(read_chats(data)[:1], data.parent)
    with torch.no_grad():
        return reference.model(**inputs).logits[0].flatten().tolist()


if __name__ == "__main__":
    main()
