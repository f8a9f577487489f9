"""Runs a model in double precision throughout.

transformers casts down to float32 inside norms and attention whatever the model's kind, which
would bound any comparison at 1e-7. Inside `kept_double()` a cast from float64 to float32 does
nothing. Rotary tables stay float32, as every implementation computes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def kept_double(model: torch.nn.Module) -> Iterator[None]:
    inside_rotary = 0

    def enter(*_) -> None:
        nonlocal inside_rotary
        inside_rotary += 1

    def leave(*_) -> None:
        nonlocal inside_rotary
        inside_rotary -= 1

    handles = []
    for module in model.modules():
        if "Rotary" in type(module).__name__:
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    class KeepDouble(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if not inside_rotary and is_downcast(function, args, kwargs):
                return args[0]
            if kwargs.get("dtype") is torch.float32 and function is torch.nn.functional.softmax:
                kwargs = {**kwargs, "dtype": None}
            return function(*args, **kwargs)

    try:
        with KeepDouble():
            yield
    finally:
        for handle in handles:
            handle.remove()


def is_downcast(function, args, kwargs) -> bool:
    if not (args and isinstance(args[0], torch.Tensor) and args[0].dtype is torch.float64):
        return False
    if function is torch.Tensor.float:
        return True
    return function is torch.Tensor.to and torch.float32 in (*args[1:], kwargs.get("dtype"))
