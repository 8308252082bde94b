"""Shapes of torch's fake-quantize ops where a size is symbolic, which torch can't tell alone.

`torch.export` with dynamic shapes refuses such an op otherwise, and `torch.compile` cuts a model
apart there once it has seen two batch sizes.
"""

from __future__ import annotations

from functools import cache

import torch

FAKE_QUANTIZE = (
    "fake_quantize_per_tensor_affine_cachemask",
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    "fake_quantize_per_channel_affine_cachemask",
)


@cache
def tell_shapes() -> None:
    """Tell torch that result and mask of these ops are as large as the input."""
    for name in FAKE_QUANTIZE:
        torch.library.register_fake(f"aten::{name}")(_like_input)


def _like_input(x: torch.Tensor, *_arguments) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)
