"""Modules in eval mode, with fake-quantize modules that torch.export can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase

from ...errors import UnsupportedError


@contextmanager
def exportable(module: nn.Module) -> Iterator[nn.Module]:
    """Within the context, a module is in eval mode and its fake-quantizers are plain functions.

    A `torch.ao.quantization.FakeQuantize` asks its buffers whether it observes and quantizes, which
    no export or `torch.compile` can follow. All is as before behind the context.

    Raises
    ------
    UnsupportedError
        If an observer is at work: it would change the scales with every run.
    """
    modes = [(part, part.training) for part in module.modules()]
    with ExitStack() as stack:
        for part, training in modes:
            stack.callback(setattr, part, "training", training)
        _eval(module)
        for name, part in module.named_modules():
            if isinstance(part, FakeQuantizeBase):
                vars(part)["forward"] = _frozen(name, part)
                stack.callback(delattr, part, "forward")
        yield module


def _eval(module: nn.Module) -> None:
    try:
        module.eval()
    except NotImplementedError:  # A graph that was exported before has its mode inside.
        for part in module.modules():
            part.training = False


class _Observer(Protocol):
    quant_min: int
    quant_max: int


class _Buffers(Protocol):
    """Attributes of a fake-quantize module, whose types torch doesn't declare."""

    observer_enabled: Tensor
    fake_quant_enabled: Tensor
    activation_post_process: _Observer
    is_per_channel: bool
    scale: Tensor
    zero_point: Tensor
    ch_axis: int


def _frozen(name: str, module: FakeQuantizeBase) -> Callable[[Tensor], Tensor]:
    """Return what a fake-quantize module computes with its present buffers."""
    part = cast("_Buffers", module)
    if part.observer_enabled[0]:
        raise UnsupportedError(
            f"fake-quantize {name!r}",
            "observes its input, so its scale changes with every run",
            "Call model.apply(torch.ao.quantization.disable_observer)",
        )
    if not part.fake_quant_enabled[0]:
        return lambda x: x
    observer = part.activation_post_process
    low, high = int(observer.quant_min), int(observer.quant_max)
    if part.is_per_channel:

        def forward(x: Tensor) -> Tensor:
            return torch.fake_quantize_per_channel_affine(
                x, part.scale, part.zero_point, part.ch_axis, low, high
            )
    else:

        def forward(x: Tensor) -> Tensor:
            return torch.fake_quantize_per_tensor_affine(x, part.scale, part.zero_point, low, high)

    return forward
