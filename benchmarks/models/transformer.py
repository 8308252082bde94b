"""One block of a vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tvm_bitenc.nn import QActivation, QMatMul

from .parts import RANGE, Bits, linear, pair


class TransformerBlock(nn.Module):
    """Attention and a perceptron behind layer-norms, each with a shortcut (Vaswani et al., 2017).

    All products have the bits asked for, those of attention too.
    """

    def __init__(
        self,
        weight_bits: int | None,
        act_bits: int | None,
        *,
        width: int = 384,
        heads: int = 6,
    ):
        super().__init__()
        bits = pair(weight_bits, act_bits)
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query_key_value = linear(bits, width, 3 * width, signed=True)
        self.scores = _product(bits)
        self.mix = _product(bits, first_is_a_share=True)
        self.out = linear(bits, width, width, signed=True)
        self.norm2 = nn.LayerNorm(width)
        self.up = linear(bits, width, 4 * width, signed=True)
        self.act = nn.GELU()
        self.down = linear(bits, 4 * width, width, signed=True)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, tokens, width) from the same shape."""
        x = x + self.out(self._attention(self.norm1(x)))
        return x + self.down(self.act(self.up(self.norm2(x))))

    def _attention(self, x: Tensor) -> Tensor:
        query, key, value = (self._by_head(y) for y in self.query_key_value(x).chunk(3, -1))
        scores = self.scores(query, key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        mixed = self.mix(torch.softmax(scores, -1), value)
        return mixed.transpose(1, 2).reshape(x.shape)

    def _by_head(self, x: Tensor) -> Tensor:
        """(N, heads, tokens, width / heads) from (N, tokens, width)."""
        batch, tokens, _ = x.shape
        return x.reshape(batch, tokens, self.heads, -1).transpose(1, 2)


def _product(bits: Bits | None, first_is_a_share: bool = False) -> nn.Module:
    if bits is None:
        return _MatMul()
    first, second = (QActivation(bits[1], "tanh", input_range=RANGE) for _ in range(2))
    if first_is_a_share:  # Of softmax: between 0 and 1.
        first = QActivation(bits[1], "relu")
    return QMatMul(first=first, second=second)


class _MatMul(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)
