"""Trains in plain PyTorch and prints the loss of each step.

Usage: curve.py FAMILY MODEL DATA PLAN.json

PLAN holds the hyperparameters of torch.optim.AdamW, of the warm-up and cosine, the norm that
gradients are clipped to, and `steps`: the sample indices of each optimizer step. One forward
pass takes a whole step's samples, so that accumulation on the trainer's side is compared too.
"""

from __future__ import annotations

import json
import pathlib
import sys

import torch
from transformers import get_cosine_schedule_with_warmup

from family import Family, read_chats
from reference import Reference, mean_loss


def main() -> None:
    family, model, data = sys.argv[1:4]
    plan = json.loads(pathlib.Path(sys.argv[4]).read_text())
    reference = Reference(Family(family), pathlib.Path(model), torch.float32)
    file = pathlib.Path(data)
    chats = read_chats(file)
    optimizer = make_optimizer(reference.model.train(), plan)
    schedule = get_cosine_schedule_with_warmup(optimizer, plan["warmup_steps"], len(plan["steps"]))
    losses = []
    for samples in plan["steps"]:
        inputs, labels = reference.encode([chats[index] for index in samples], file.parent)
        loss = mean_loss(reference.model(**inputs).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.model.parameters(), plan["max_grad_norm"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    print(json.dumps(losses))


def make_optimizer(model: torch.nn.Module, plan: dict) -> torch.optim.Optimizer:
    """Biases and norms are not decayed, as in transformers' own Trainer."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": plan["weight_decay"]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=plan["learning_rate"], betas=tuple(plan["betas"]), eps=plan["epsilon"]
    )


if __name__ == "__main__":
    main()
