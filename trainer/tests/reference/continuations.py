"""Greedy continuations of a data set by an exported folder, as transformers 5 and PEFT load it.

Usage: continuations.py FAMILY MODEL DATA [ADAPTER]

Prints JSON: `continuations`, one {"ids", "text"} for each record of DATA. With ADAPTER, MODEL is
the base that PEFT puts the adapter on, and `logits` has the logits of DATA's first record.
"""

from __future__ import annotations

import json
import pathlib
import sys

import torch

from family import Family, read_chats
from reference import Reference


def main() -> None:
    family, model, data, *adapter = sys.argv[1:]
    reference = Reference(Family(family), pathlib.Path(model), torch.float32)
    if adapter:
        from peft import PeftModel

        reference.model = PeftModel.from_pretrained(reference.model, adapter[0]).eval()
    file = pathlib.Path(data)
    inputs, _ = reference.encode(read_chats(file)[:1], file.parent)
    with torch.no_grad():
        logits = reference.model(**inputs).logits[0]
    result = {"continuations": reference.generate(file), "logits": logits.flatten().tolist()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
