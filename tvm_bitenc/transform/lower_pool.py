"""Average pooling of a quantized tensor becomes a sum of its codes, where that is exact.

Before::

    q = bitenc.quantize(x, scale, zero_point)
    y = R.nn.avg_pool2d(q, (2, 2), (2, 2))

After::

    codes = bitenc.encode(x, scale, zero_point)                            # uint8
    acc = bitenc.branch_conv2d(codes, ones, ...)                           # depthwise, int32
    y = R.divide(R.multiply(R.astype(acc, "float32"), scale / 2), 4)

The float32 pooling adds in some order and rounds every sum. It is the integer sum, whatever the
order, where every sum is a multiple of scale / 2 with a mantissa of 24 bits: for scales that are
powers of two, or have few bits. For other scales the pooling stays float, as the graph has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from ..encoding import Encoding
from ..layer import four_sides, height_width
from ..op.branch import branch_conv2d
from ..op.quantize import encoding_of, quantize_op
from ..op.registration import is_call_to
from .analysis.float32 import op_name
from .lower import encoder_of
from .rewrite import Graph, rewrite_calls

MANTISSA = 1 << 24  # Integers up to it are float32 numbers.
ONE = Encoding.symmetric(1, 2.0)  # Code 1 is the integer 1.


@tvm.transform.module_pass(opt_level=0, name="bitenc.LowerPool")
class LowerPool:
    """Lower average pooling over windows, and over whole images."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return rewrite_calls(mod, _lower_pool)


@dataclass(frozen=True)
class Window:
    """Windows over which every output is the average.

    Parameters
    ----------
    size, strides : (height, width)
    padding : (top, left, bottom, right)
        Of zeros, which count like other values.
    """

    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def count(self) -> int:
        """Values to an average."""
        return self.size[0] * self.size[1]


def _lower_pool(call: relax.Call, graph: Graph) -> relax.Expr | None:
    window = window_of(call)
    if window is None:
        return None
    quantizer = graph.definition(call.args[0])
    if not is_call_to(quantizer, quantize_op):
        return None
    encoder = encoder_of(quantizer)
    encoding = encoding_of(encoder)
    if not sums_exactly(encoding, window.count):
        return None
    channels = int(call.args[0].ty.shape[1])
    acc = branch_conv2d(
        graph.emit(encoder),
        encoding,
        np.ones((channels, 1, *window.size), np.uint8),
        ONE,
        strides=window.strides,
        padding=window.padding,
        groups=channels,
        layer=f"{quantizer.attrs['layer']!s}.avg_pool".lstrip("."),
    )
    real = graph.emit(relax.op.astype(graph.emit(acc), "float32"))
    half = relax.const(np.float32(encoding.scale / 2))
    total = graph.emit(relax.op.multiply(real, half))
    average = relax.op.divide(total, relax.const(np.float32(window.count)))
    if len(call.ty.shape) == 4:
        return average
    return relax.op.reshape(graph.emit(average), call.ty.shape)


def sums_exactly(encoding: Encoding, count: int) -> bool:
    """Whether float32 sums of `count` levels are exact in any order.

    Levels are ``scale / 2`` times an integer ``v + o``. With ``scale = m 2^e``, m odd, a sum is
    ``2^(e-1) m`` times an integer; m times that integer must be a float32 number.
    """
    if encoding.is_per_channel or any(int(c) != c for c in encoding.coefficients):
        return False
    mantissa = int(np.frexp(encoding.scale)[0] * MANTISSA)
    odd = mantissa // (mantissa & -mantissa)
    widest = 2 * np.abs(encoding.levels - encoding.zero_point).max()
    in_range = 2.0**-100 < encoding.scale < 2.0**100
    return bool(in_range and odd * int(widest) * count < MANTISSA)


def window_of(call: relax.Call) -> Window | None:
    """Return the windows of an average pooling of NCHW images, None for anything else."""
    name = op_name(call)
    if not name or len(getattr(call.args[0].ty, "shape", None) or ()) != 4:
        return None
    if name == "relax.nn.avg_pool2d":
        return _pooling(call)
    image = [int(size) for size in list(call.args[0].ty.shape)[2:]]
    if name == "relax.mean":
        axes = sorted(int(axis) % 4 for axis in call.attrs.axis or ())
        return Window(height_width(image)) if axes == [2, 3] else None
    if name == "relax.nn.adaptive_avg_pool2d" and call.attrs.layout == "NCHW":
        out = [int(size) for size in list(call.ty.shape)[2:]]
        if all(size % parts == 0 for size, parts in zip(image, out)):
            size = height_width(size // parts for size, parts in zip(image, out))
            return Window(size, size)
    return None


def _pooling(call: relax.Call) -> Window | None:
    attrs = call.attrs
    padding = four_sides(attrs.padding)
    counts_all = attrs.count_include_pad or not any(padding)
    if attrs.layout != "NCHW" or not counts_all or any(int(v) != 1 for v in attrs.dilation):
        return None
    size, strides = height_width(attrs.pool_size), height_width(attrs.strides)
    image, out = ([int(n) for n in list(x.ty.shape)[2:]] for x in (call.args[0], call))
    for i in (0, 1):  # With `ceil_mode` the last window may hang over, and counts less.
        if (out[i] - 1) * strides[i] + size[i] > image[i] + padding[i] + padding[i + 2]:
            return None
    return Window(size, strides, padding)
