"""Output channels that have the same weights share their sums.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)      # w: 256 channels, 64 of them distinct

After::

    out = bitenc.packed_conv2d(planes, w1, o1, t, d)    # w1: the first 64; copies=4

Channel c has the weights of channel c % 64, as in networks that are made of tiles (Gorbett et al.,
"Tiled Bit Networks", arXiv 2407.12075). They are found by their values, whoever made them. A sum is
made once; what becomes of it, thresholds or float steps, is each channel's own. Kernels make eight
sums at least at a time, so that as many channels or a multiple are shared.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from ..kernel.nest.tile import divisors
from ..layer import ConvLayer
from ..op.packed import conv_layer_of, packed_conv2d_op, tensor_inputs
from ..op.registration import is_call_to, make_call
from .rewrite import Graph, rewrite_calls

OCTET = 8


@tvm.transform.module_pass(opt_level=0, name="bitenc.ShareChannels")
class ShareChannels:
    """Keep each set of weights once where output channels repeat them in order."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return rewrite_calls(mod, _shared)


def _shared(call: relax.Call, _graph: Graph) -> relax.Expr | None:
    if not is_call_to(call, packed_conv2d_op):
        return None
    layer = conv_layer_of(call)
    distinct = distinct_channels(layer)
    if distinct == layer.out_channels:
        return None
    inputs = tensor_inputs(call)
    weights = [
        relax.const(np.ascontiguousarray(values[:distinct]), str(values.dtype))
        for values in (layer.weight_codes, layer.weight_offset)
    ]
    rest = call.args[len(inputs) + len(weights) :]
    copies = layer.out_channels // distinct
    attributes = {**dict(call.attrs.items()), "copies": copies}
    return make_call(packed_conv2d_op, [*inputs, *weights, *rest], **attributes)


def distinct_channels(layer: ConvLayer) -> int:
    """After how many output channels, in eights, weights begin again; all if they don't."""
    codes, offset, channels = layer.weight_codes, layer.weight_offset, layer.out_channels
    if layer.geometry.groups > 1 or layer.copies > 1:
        return channels

    def begin_again(count: int) -> bool:
        repeats = np.array_equal(codes[:-count], codes[count:])
        return repeats and np.array_equal(offset[:-count], offset[count:])

    octets = [d for d in divisors(channels) if d % OCTET == 0 and d < channels]
    return next((d for d in octets if begin_again(d)), channels)
