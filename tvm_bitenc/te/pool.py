"""Max pooling on packed planes, 64 channels at a time."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx


def _greater(a: Sequence[tirx.Expr], b: Sequence[tirx.Expr]) -> tuple:
    """Take the larger of two codes, bit position by bit position, from the highest plane down."""
    (a_top, b_top), *lower = zip(reversed(a), reversed(b))
    a_smaller, equal = ~a_top & b_top, ~(a_top ^ b_top)
    for a_plane, b_plane in lower:
        a_smaller = a_smaller | (equal & (~a_plane & b_plane))
        equal = equal & ~(a_plane ^ b_plane)
    return tuple((ap & ~a_smaller) | (bp & a_smaller) for ap, bp in zip(a, b))


def max_pool2d(
    planes: te.Tensor,
    pool_size: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    out_size: tuple[int, int],
) -> te.Tensor:
    """Largest code under each window; padding never wins, for it holds code 0.

    Parameters
    ----------
    planes : te.Tensor of uint64, shape (N, H, W, bits, words)

    Returns
    -------
    te.Tensor of uint64, shape (N, OH, OW, bits, words)
    """
    batch, height, width, bits, words = planes.shape
    bits = int(bits)
    top, left, _, _ = padding
    i, j = te.reduce_axis((0, pool_size[0]), "i"), te.reduce_axis((0, pool_size[1]), "j")
    maximum = te.comm_reducer(
        lambda a, b: _greater(a, b) if bits > 1 else a | b,
        lambda *dtypes: (
            tuple(tirx.const(0, d) for d in dtypes) if bits > 1 else tirx.const(0, dtypes[0])
        ),
        name="maximum",
    )

    def window(n: tirx.Var, y: tirx.Var, x: tirx.Var, word: tirx.Var) -> tirx.Expr:
        row = y * strides[0] + i * dilation[0] - top
        column = x * strides[1] + j * dilation[1] - left
        inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
        taps = [
            tirx.if_then_else(inside, planes[n, row, column, k, word], tirx.const(0, "uint64"))
            for k in range(bits)
        ]
        return maximum(tuple(taps) if bits > 1 else taps[0], axis=[i, j])

    pooled = te.compute((batch, *out_size, words), window, name="pooled")
    pooled = [pooled] if bits == 1 else list(pooled)

    def stack(n: tirx.Var, y: tirx.Var, x: tirx.Var, k: tirx.Var, word: tirx.Var) -> tirx.Expr:
        value = pooled[-1][n, y, x, word]
        for plane in range(bits - 2, -1, -1):
            value = tirx.Select(k == plane, pooled[plane][n, y, x, word], value)
        return value

    return te.compute((batch, *out_size, bits, words), stack, name="max_pool2d")
