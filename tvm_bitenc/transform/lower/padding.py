"""Padding ops in front of a convolution as part of the convolution's own padding."""

from __future__ import annotations

from tvm import relax

from ..analysis.float32 import op_name
from ..analysis.shaping import constant_pad, pad_widths
from ..rewrite import Graph

CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d")


def split_padding(call: relax.Call, graph: Graph) -> tuple[relax.Expr, list[int]]:
    """Input of a layer without zeros around it, and the padding that it then needs.

    A convolution adds the real 0 whether or not a code stands for it, so this also serves encodings
    that couldn't pad by themselves. Layers other than `CONVOLUTIONS` keep their input.

    Returns
    -------
    (input, padding)
        The padding as the op's attribute has it: before every axis, then after every axis.
    """
    image = call.args[0]
    if op_name(call) not in CONVOLUTIONS:
        return image, []
    padding = [int(pad) for pad in call.attrs.padding]
    spatial = len(padding) // 2
    while constant_pad(pad := graph.definition(image)) == 0:
        outer, inner = pad_widths(pad)[:2], pad_widths(pad)[2:]
        if any(map(any, outer)) or min(map(min, inner)) < 0:
            break
        for axis, (before, after) in enumerate(inner):
            padding[axis] += before
            padding[axis + spatial] += after
        image = pad.args[0]
    return image, padding
