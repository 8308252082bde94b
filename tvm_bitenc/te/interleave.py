"""Small images woven into a large one."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import te, tirx


def interleave(
    parts: Sequence[te.Tensor], strides: tuple[int, int], size: tuple[int, int], axis: int
) -> te.Tensor:
    """Take row i, column j from row i // s_h, column j // s_w of part s_w (i % s_h) + j % s_w.

    Parameters
    ----------
    parts : sequence of s_h * s_w te.Tensor of one shape and dtype
    strides : (s_h, s_w)
    size : (height, width)
        Of the result.
    axis : int
        Of the rows; columns are on the next one.
    """
    (stride_h, stride_w), shape = strides, parts[0].shape

    def element(*index):
        row, column = index[axis : axis + 2]
        source = (*index[:axis], row // stride_h, column // stride_w, *index[axis + 2 :])
        value = parts[-1](*source)
        for phase, part in reversed(list(enumerate(parts[:-1]))):
            i, j = divmod(phase, stride_w)
            is_here = tirx.all(row % stride_h == i, column % stride_w == j)
            value = tirx.if_then_else(is_here, part(*source), value)
        return value

    return te.compute((*shape[:axis], *size, *shape[axis + 2 :]), element, name="interleave")
