"""Convolutions of an image's bit planes, each with weights of its own, become one sum of branches.

Before::

    p0 = remainder(floor(x / 1), 2); p1 = remainder(floor(x / 2), 2)
    y0 = R.nn.conv2d(p0, w0); y1 = R.nn.conv2d(p1, w1)   # weights of one bit
    y = R.add(R.multiply(y0, 1), R.multiply(y1, 2))

After::

    codes = floor(x) modulo 4                                        # uint8
    acc = bitenc.branch_conv2d(codes, weight_codes, weight_offset)   # branches=[[1, 0], [0, 2]]
    y = R.multiply(R.astype(acc, "float32"), 1/2)

Bit m of a weight's code is the sign of its m-th convolution. Where all of these are equal, the sum
is the convolution of the codes themselves: W1A8 of eight planes. Coefficients may be any integers
times one number, or one number of each output channel.

The codes are those of any finite x, but negative ones next to 0 (above -2^-118): their quotients
round to 0. NaN has code 0, as everywhere. Whether a sum of 0 is -0, as negative factors alone make
it, isn't kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from ...bounds import accumulator_bound, check_accumulator
from ...encoding import Encoding, along
from ...layer import four_sides, height_width
from ...op.branch import branch_conv2d
from ...op.quantize import encoding_of, quantize_op
from ...op.registration import is_call_to
from ..analysis.bits import MAX_BITS, Bits
from ..analysis.float32 import op_name
from ..analysis.readers import readers_of
from ..lower.operands import encoder_of, layer_name
from ..rewrite import Graph, rewrite_calls
from ..visit import visit_calls
from .terms import CONV2D, SCALED, Term, parts_of, terms_of_call

MAX_DIVISOR = 16  # Of the least coefficient: 2, 2 and 3 are integers times 1.
MAX_SUM = 1 << 16  # Of coefficients.
ZERO = relax.const(np.float32(0))


@tvm.transform.module_pass(opt_level=0, name="bitenc.BitPlanes")
class BitPlanes:
    """Let each sum of bit planes' convolutions be one layer."""

    def transform_module(self, mod: tvm.IRModule, _ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite the module."""
        layers = _layers(mod)

        def rewrite(_call: relax.Call, graph: Graph) -> relax.Expr | None:
            return layers[graph.var].emitted(graph) if graph.var in layers else None

        return rewrite_calls(mod, rewrite) if layers else mod


def _layers(mod: tvm.IRModule) -> dict[relax.Var, _Layer]:
    """Layers by the sums that they are, but for sums that only make part of another one.

    What scales a whole sum stays float arithmetic.
    """
    layers: dict[relax.Var, _Layer] = {}
    parts: set[relax.Var] = set()

    def note(call: relax.Call, graph: Graph) -> None:
        if op_name(call) in SCALED or graph.var is None:
            return
        layer = _layer(terms_of_call(call, graph), graph)
        if layer is not None:
            layers[graph.var] = layer
            if op_name(call) != CONV2D:
                parts.update((graph.var, *parts_of(call, graph)))

    visit_calls(mod, note)
    wanted: dict[relax.Var, _Layer] = {}
    for function in mod.functions.values():
        if layers and isinstance(function, relax.Function):
            readers = readers_of(function)
            ends = (var for var in layers if not parts.issuperset(readers.get(var, [])))
            wanted |= {var: layers[var] for var in ends}
    return wanted


def _layer(found: Sequence[Term], graph: Graph) -> _Layer | None:
    """Return a sum as a layer, None where its coefficients are no integers of few branches."""
    terms = sorted(found, key=lambda term: term.plane.low)
    if not 0 < len(terms) <= MAX_BITS:
        return None
    codes, factors = map(np.stack, zip(*(term.weights(graph) for term in terms)))
    coefficients = _coefficients(factors)
    if coefficients is None:
        return None
    bits = np.where(factors[..., None, None, None] < 0, 1 - codes, codes).astype(np.uint8)
    return _Layer(layer_name(terms[0].convolution, graph), terms, bits, *coefficients)


def _coefficients(factors: np.ndarray) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Integers that every channel's factors are, times a number of the channel, whatever the sign.

    Parameters
    ----------
    factors : ndarray of float64, shape (terms, out_channels)
    """
    magnitude = np.abs(factors)
    least = magnitude.min(axis=0)
    for divisor in range(1, MAX_DIVISOR + 1):
        multiples = magnitude * divisor / least
        integers = np.rint(multiples[:, :1])
        if np.array_equal(multiples, np.broadcast_to(integers, multiples.shape)):
            coefficients = tuple(map(int, integers[:, 0]))
            return (coefficients, least / divisor) if sum(coefficients) <= MAX_SUM else None
    return None


@dataclass(frozen=True, eq=False)
class _Layer:
    """A sum of convolutions, as branches.

    Parameters
    ----------
    name : str
    terms : sequence of Term
        By rising planes.
    bits : ndarray of uint8, shape (terms, out_channels, in_channels / groups, height, width)
    coefficients : tuple of int
    scale : ndarray of float64, shape (out_channels,)
    """

    name: str
    terms: Sequence[Term]
    bits: np.ndarray
    coefficients: tuple[int, ...]
    scale: np.ndarray

    def emitted(self, graph: Graph) -> relax.Call:
        """The sum: half of the accumulators, scaled."""
        attrs, act_bits = self.terms[0].convolution.attrs, self.terms[-1].plane.low + 1
        weight_codes, weight_encoding, act, branches = self._operands(act_bits)
        bound = accumulator_bound(weight_codes, weight_encoding, act, branches)
        check_accumulator(bound, f"conv2d of layer {self.name!r}")
        acc = branch_conv2d(
            _codes(self.terms[0].plane, act_bits, graph),
            act,
            weight_codes,
            weight_encoding,
            strides=height_width(attrs.strides),
            padding=four_sides(attrs.padding),
            dilation=height_width(attrs.dilation),
            groups=self.terms[0].groups,
            layer=self.name,
            branches=branches,
        )
        real = graph.emit(relax.op.astype(graph.emit(acc), "float32"))
        scale = (self.scale / 2).astype(np.float32)
        scale = scale[0] if np.all(scale == scale[0]) else along(scale, 4, 1)
        return relax.op.multiply(real, relax.const(scale, "float32"))

    def _operands(self, act_bits: int) -> tuple[np.ndarray, Encoding, Encoding, np.ndarray | None]:
        """Weight codes and their encoding, that of the activations, and the branch matrix."""
        lows, count = [term.plane.low for term in self.terms], len(self.terms)
        is_code = lows == [*range(act_bits)] and self.coefficients == tuple(2**k for k in lows)
        if is_code and np.all(self.bits == self.bits[0]):
            return self.bits[0], Encoding.symmetric(1), Encoding.unsigned(act_bits), None
        codes = np.sum([bit << m for m, bit in enumerate(self.bits)], axis=0).astype(np.uint8)
        half = sum(self.coefficients) / 2
        matrix = np.zeros((count, act_bits), np.int64)
        matrix[range(count), lows] = self.coefficients
        # Each plane counts as 0 and 1: c + 1 is twice that, which makes an offset of 1.
        act = Encoding(act_bits, 1.0, 2 ** (act_bits - 1) - 1)
        return codes, Encoding(count, 1.0, half, self.coefficients), act, matrix


def _codes(plane: Bits, bits: int, graph: Graph) -> relax.Expr:
    """The lowest bits of an image's integers, uint8."""
    source, dtype = plane.source, plane.cast or str(plane.source.ty.dtype)
    if dtype != "float32":
        whole = graph.emit(relax.op.astype(source, dtype)) if plane.cast else source
        mask = relax.const(2**bits - 1, dtype)
        if bits < MAX_BITS or dtype != "uint8":
            whole = graph.emit(relax.op.bitwise_and(whole, mask))
        return whole if dtype == "uint8" else graph.emit(relax.op.astype(whole, "uint8"))
    image = graph.definition(source)
    if is_call_to(image, quantize_op) and _is_code(encoding_of(image), bits):
        return graph.emit(encoder_of(image))
    whole, size = graph.emit(relax.op.floor(source)), np.float32(2**bits)
    parts = graph.emit(relax.op.multiply(whole, relax.const(1 / size)))
    above = graph.emit(relax.op.multiply(graph.emit(relax.op.floor(parts)), relax.const(size)))
    rest = graph.emit(relax.op.subtract(whole, above))
    # Of infinity and NaN, NaN is left, which no integer type has.
    known = graph.emit(relax.op.where(graph.emit(relax.op.isnan(rest)), ZERO, rest))
    return graph.emit(relax.op.astype(known, "uint8"))


def _is_code(encoding: Encoding, bits: int) -> bool:
    """Whether levels are their own codes, of no more bits."""
    is_plain = encoding.is_positional and not encoding.is_per_channel and encoding.bits == bits
    return bool(is_plain and encoding.scale == 1 and encoding.zero_point == 0)
