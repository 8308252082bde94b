"""Output channels that have the same weights, or the same negated, share their sums.

Before::

    out = bitenc.packed_conv2d(planes, w, o, t, d)      # w: 256 channels, 64 of them distinct

After::

    out = bitenc.packed_conv2d(planes, w1, o1, t, d)    # w1: the first 64; copies=4

Channel c has the weights of channel c % 64, as in networks that are made of tiles (Gorbett et al.,
"Tiled Bit Networks", arXiv 2407.12075). Kernels make eight sums at least at a time, so that as many
channels or a multiple are shared. In any other order ``channel_rows=[0, 1, ~0, ...]`` says which
row of w1 each channel has, or which one negated: then sums are kept and read by number, which has
to take less time on the target than it saves.

Weights are found by their values, whoever made them. A sum is made once; what becomes of it,
thresholds or float steps, is each channel's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from ..branches import plane_integers
from ..kernel.nest.geometry import flattened
from ..kernel.nest.tile import divisors
from ..layer import ConvLayer
from ..op.packed import conv_layer_of, packed_conv2d_op, tensor_inputs
from ..op.registration import is_call_to, make_call
from ..schedule import strategy_costs
from ..schedule.parallel import threads_for
from ..target import Target
from .rewrite import Graph, rewrite_calls

OCTET = 8
FIRST = 64  # Weights that tell most rows apart.


@tvm.transform.module_pass(opt_level=0, name="bitenc.ShareChannels")
@dataclass(frozen=True)
class ShareChannels:
    """Keep each row of weights once where output channels share them.

    Parameters
    ----------
    target : Target
        Whose cost model says whether sharing in another order than theirs pays.
    any_order : bool
        Without it only channels that repeat in order share rows: an accelerator takes no others.
    """

    target: Target
    any_order: bool = True

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        return rewrite_calls(mod, self._shared)

    def _shared(self, call: relax.Call, _graph: Graph) -> relax.Expr | None:
        if not is_call_to(call, packed_conv2d_op):
            return None
        layer = conv_layer_of(call)
        if layer.geometry.groups > 1 or layer.is_shared:
            return None
        found = in_order(layer)
        in_any_order = by_row(layer) if self.any_order else None
        if in_any_order is not None and self._cost(in_any_order) < self._cost(found):
            found = in_any_order
        return None if found is layer else _with_rows_of(found, call)

    def _cost(self, layer: ConvLayer) -> float:
        """Cycles of the strategy that takes fewest, on as many threads as the layer keeps busy.

        Channels that read sums by number can't be divided between threads, but rows of images can.
        """
        cycles = min(strategy_costs(layer, self.target).values())
        threads = threads_for(layer.macs, self.target)
        if layer.channel_rows:
            seen = flattened(layer)
            threads = min(threads, seen.input_shape[0] * seen.output_size[0])
        return cycles / threads


def in_order(layer: ConvLayer) -> ConvLayer:
    """Return a layer of as many copies as its weights have, in eights of channels."""
    codes, offset, channels = layer.weight_codes, layer.weight_offset, layer.out_channels

    def begin_again(count: int) -> bool:
        repeats = np.array_equal(codes[:-count], codes[count:])
        return repeats and np.array_equal(offset[:-count], offset[count:])

    octets = (d for d in divisors(channels) if d % OCTET == 0 and d < channels)
    count = next(filter(begin_again, octets), channels)
    return layer if count == channels else replace(_kept(layer, count), copies=channels // count)


def by_row(layer: ConvLayer) -> ConvLayer | None:
    """Return a layer of its distinct rows of weights, None if no two are the same or negated."""
    if _all_differ(_integers(_first_weights(layer))):  # Soon told, where nothing is shared.
        return None
    integers = _integers(layer)
    channels: list[int] = []  # Whose rows are kept.
    numbers: dict[bytes, int] = {}
    found = []
    for channel, weights in enumerate(integers):
        row = weights.tobytes()
        if row not in numbers:
            numbers[(-weights).tobytes()] = ~len(channels)
            numbers[row] = len(channels)  # Behind its negation, for it may be the same: all zeros.
            channels.append(channel)
        found.append(numbers[row])
    if len(channels) == layer.out_channels:
        return None
    return replace(_kept(layer, channels), channel_rows=tuple(found))


def _first_weights(layer: ConvLayer) -> ConvLayer:
    """Return a layer of the first weights of every channel, as many inputs of a pixel."""
    codes = layer.weight_codes.reshape(len(layer.weight_codes), -1, 1, 1)
    return replace(layer, weight_codes=np.ascontiguousarray(codes[:, :FIRST]))


def _all_differ(integers: np.ndarray) -> bool:
    """Whether sums of multiples, quickly made, tell all rows apart from others and the negated."""
    rows = integers.reshape(len(integers), -1)
    factors = np.random.default_rng(0).integers(-(2**15), 2**15, rows.shape[1], dtype=np.int32)
    return len(np.unique(np.abs(rows @ factors))) == len(rows)  # Modulo 2^32.


def _integers(layer: ConvLayer) -> np.ndarray:
    """What sums depend on, negated where they are: integers of each output channel's weights.

    Several codes may have one. With a branch matrix there is one for each plane of activations, and
    one beside them.
    """
    if layer.geometry.is_product:
        return layer.weight_integers
    found = plane_integers(layer.weight_codes, layer.weight_offset, layer.geometry)
    return np.moveaxis(found, 0, 1)


def _kept(layer: ConvLayer, channels: int | list[int]) -> ConvLayer:
    """Return a layer with the weights of some output channels, or of the first ones."""
    chosen = slice(channels) if isinstance(channels, int) else channels
    weight_codes, weight_offset = layer.weight_codes[chosen], layer.weight_offset[chosen]
    return replace(layer, weight_codes=weight_codes, weight_offset=weight_offset)


def _with_rows_of(layer: ConvLayer, call: relax.Call) -> relax.Call:
    """Return a call with the rows of weights of a layer, and whose they are."""
    inputs = tensor_inputs(call)
    weights = [
        relax.const(np.ascontiguousarray(values), str(values.dtype))
        for values in (layer.weight_codes, layer.weight_offset)
    ]
    rest = call.args[len(inputs) + len(weights) :]
    attributes = dict(call.attrs.items())
    if layer.channel_rows:
        attributes["channel_rows"] = list(layer.channel_rows)
    else:
        attributes["copies"] = layer.copies
    return make_call(packed_conv2d_op, [*inputs, *weights, *rest], **attributes)
