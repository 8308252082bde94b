"""Codes to packed planes and back."""

from __future__ import annotations

from tvm import te, tirx

from ..encoding import WORD_BITS


def pack(codes: te.Tensor, bits: int, groups: int = 1) -> te.Tensor:
    """Pack codes (uint8 NHWC) into planes: uint64 (N, H, W, bits, groups * words)."""
    batch, height, width, channels = codes.shape
    per_group = int(channels) // groups
    words = -(-per_group // WORD_BITS)
    bit = te.reduce_axis((0, WORD_BITS), "bit")

    def word(n: tirx.Var, y: tirx.Var, x: tirx.Var, k: tirx.Var, w: tirx.Var) -> tirx.Expr:
        group, channel = w // words, (w % words) * WORD_BITS + bit
        code = codes[n, y, x, group * per_group + channel]
        if per_group % WORD_BITS:
            code = tirx.if_then_else(channel < per_group, code, tirx.const(0, "uint8"))
        plane = (code >> tirx.Cast("uint8", k)) & tirx.const(1, "uint8")
        return te.sum(tirx.Cast("uint64", plane) << tirx.Cast("uint64", bit), axis=bit)

    return te.compute((batch, height, width, bits, groups * words), word, name="packed")


def unpack(planes: te.Tensor, channels: int, groups: int = 1) -> te.Tensor:
    """Inverse of `pack`: codes (uint8 NHWC)."""
    batch, height, width, bits, all_words = planes.shape
    per_group, words = channels // groups, int(all_words) // groups

    def code(n: tirx.Var, y: tirx.Var, x: tirx.Var, c: tirx.Var) -> tirx.Expr:
        group, channel = c // per_group, c % per_group
        word, bit = group * words + channel // WORD_BITS, channel % WORD_BITS
        value = sum(
            tirx.Cast("int32", (planes[n, y, x, k, word] >> tirx.Cast("uint64", bit)) & 1) << k
            for k in range(int(bits))
        )
        return tirx.Cast("uint8", value)

    return te.compute((batch, height, width, channels), code, name="unpacked")
