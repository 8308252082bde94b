"""Channels of packed planes, joined and cut out: words are shifted, no bit is looked at alone."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx

from ..encoding import WORD_BITS


def _const(value: int) -> tirx.Expr:
    return tirx.const(value, "uint64")


def _word(planes: te.Tensor, index: Sequence[tirx.Var], word: tirx.Expr) -> tirx.Expr:
    """One word of planes, 0 outside of them."""
    words = int(planes.shape[-1])
    inside = tirx.all(word >= 0, word < words)
    return tirx.if_then_else(inside, planes(*index, word), _const(0))


def concat_channels(parts: Sequence[te.Tensor], channels: Sequence[int]) -> te.Tensor:
    """Join images along channels.

    Parameters
    ----------
    parts : sequence of te.Tensor of uint64, shape (N, H, W, bits, words)
    channels : sequence of int
        Of each part.
    """
    words = -(-sum(channels) // WORD_BITS)

    def joined(*index):
        *outer, word = index
        value, start = _const(0), 0
        for part, count in zip(parts, channels):
            first, shift = divmod(start, WORD_BITS)
            value = value | (_word(part, outer, word - first) << _const(shift))
            if shift:
                before = _word(part, outer, word - first - 1)
                value = value | (before >> _const(WORD_BITS - shift))
            start += count
        return value

    return te.compute((*parts[0].shape[:-1], words), joined, name="concat_channels")


def slice_channels(planes: te.Tensor, begin: int, end: int) -> te.Tensor:
    """Channels begin ... end - 1 of planes, uint64 (N, H, W, bits, words)."""
    words, rest = -(-(end - begin) // WORD_BITS), (end - begin) % WORD_BITS
    first, shift = divmod(begin, WORD_BITS)

    def cut(*index):
        *outer, word = index
        value = _word(planes, outer, word + first) >> _const(shift)
        if shift:
            after = _word(planes, outer, word + first + 1)
            value = value | (after << _const(WORD_BITS - shift))
        if rest:  # Bits above the last channel are 0.
            mask = _const((1 << rest) - 1)
            value = tirx.if_then_else(word == words - 1, value & mask, value)
        return value

    return te.compute((*planes.shape[:-1], words), cut, name="slice_channels")
