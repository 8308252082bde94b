"""Products of two activations for quantization-aware training, as attention has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import QActivation


class QMatMul(nn.Module):
    r"""`torch.matmul` of two tensors that are quantized first.

    .. math:: y = \delta_a \delta_b \sum (v_a + o_a)(v_b + o_b)

    The sum is one of integers: exact in float32 while it stays below 2^24.

    Parameters
    ----------
    act_bits : int, optional
        1..8, for both.
    act_kind : {"relu", "tanh"}, optional
        `kind` of both quantizers; default ``tanh``, for queries and keys have both signs.
    first, second : QActivation, optional
        Quantizers of the operands, in place of `act_bits` and `act_kind`.

    Raises
    ------
    ValueError
        If an operand has neither bits nor a quantizer, or both.
    """

    def __init__(
        self,
        act_bits: int | None = None,
        act_kind: str | None = None,
        *,
        first: QActivation | None = None,
        second: QActivation | None = None,
    ):
        super().__init__()
        if act_bits is not None and first is None and second is None:
            first, second = (QActivation(act_bits, act_kind or "tanh") for _ in range(2))
        elif act_bits is not None or first is None or second is None:
            raise ValueError("QMatMul: give either act_bits=, or first= and second=.")
        self.first, self.second = first, second

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Float32 (..., N, O) from (..., N, I) and (..., I, O)."""
        sums = torch.matmul(self.first.integers(a), self.second.integers(b))
        return sums * (self.first.half_step * self.second.half_step)
