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
round to 0. NaN has code 0, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from ..encoding import Encoding, accumulator_bound, along, check_accumulator
from ..layer import four_sides, height_width
from ..op.branch import branch_conv2d
from ..op.quantize import encoding_of, quantize_op
from ..op.registration import is_call_to
from .analysis.bits import MAX_BITS, Bits, bits_of
from .analysis.dag import once_per_variable
from .analysis.float32 import evaluate, op_name
from .analysis.readers import readers_of
from .lower.operands import encoder_of, layer_name, weight, weight_quantizer
from .lower.reasons import LAYOUTS
from .rewrite import Graph, rewrite_calls
from .visit import visit_calls

ADD, CONV2D = "relax.add", "relax.nn.conv2d"
MAX_DIVISOR = 16  # Of the least coefficient: 2, 2 and 3 are integers times 1.
MAX_SUM = 1 << 16  # Of coefficients.
ZERO = relax.const(np.float32(0))
SCALED: dict[str, Callable] = {"relax.multiply": np.multiply, "relax.divide": np.divide}


@dataclass(frozen=True, eq=False)
class Term:
    """One convolution of a sum.

    Parameters
    ----------
    plane : Bits
    convolution : relax.Call
    factor : ndarray of float64, shape () or (out_channels,)
    """

    plane: Bits
    convolution: relax.Call
    factor: np.ndarray


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
    ends: dict[relax.Var, tuple[relax.Call, Graph]] = {}
    parts: set[relax.Var] = set()

    def note(call: relax.Call, graph: Graph) -> None:
        if op_name(call) not in SCALED and graph.var is not None and _terms(call, graph):
            ends[graph.var] = call, graph
            if op_name(call) == ADD:
                parts.update((graph.var, *_summed(call, graph)))

    visit_calls(mod, note)
    found: dict[relax.Var, _Layer] = {}
    for function in mod.functions.values():
        if ends and isinstance(function, relax.Function):
            readers = readers_of(function)
            wanted = [var for var in ends if not parts.issuperset(readers.get(var, []))]
            layers = ((var, _layer(*ends[var])) for var in wanted)
            found |= {var: layer for var, layer in layers if layer is not None}
    return found


def _summed(call: relax.Call, graph: Graph) -> Iterator[relax.Var]:
    """Variables that a sum is made of, down to its convolutions."""
    for argument in call.args:
        definition = graph.definition(argument)
        if isinstance(argument, relax.Var) and op_name(definition) in (ADD, CONV2D, *SCALED):
            yield argument
            yield from () if op_name(definition) == CONV2D else _summed(definition, graph)


def _operands(expr: relax.Expr, graph: Graph) -> Sequence[relax.Expr]:
    call = graph.definition(expr)
    return list(call.args) if op_name(call) in (ADD, *SCALED) else ()


@once_per_variable(_operands)
def terms_of(expr: relax.Expr, graph: Graph) -> tuple[Term, ...]:
    """Convolutions of bit planes whose sum an expression is; empty if it is none."""
    call = graph.definition(expr)
    return _terms(call, graph) if isinstance(call, relax.Call) else ()


def _terms(call: relax.Call, graph: Graph) -> tuple[Term, ...]:
    if op_name(call) == CONV2D:
        return _of_convolution(call, graph)
    if op_name(call) in SCALED:
        value = evaluate(call.args[1], graph)
        terms = terms_of(call.args[0], graph) if value is not None else ()
        factor = None if value is None else _factor(value, call)
        if factor is None or not np.all(np.isfinite(factor) & (factor != 0)):
            return ()
        scaled = SCALED[op_name(call)]
        return tuple(replace(term, factor=scaled(term.factor, factor)) for term in terms)
    if op_name(call) != ADD:
        return ()
    left, right = (terms_of(argument, graph) for argument in call.args)
    if left and right:
        return (*left, *right) if _same_layer(left[0], right[0]) else ()
    zero = evaluate(call.args[1 if left else 0], graph)
    return (left or right) if zero is not None and zero.ndim == 0 and zero == 0 else ()


def _factor(value: np.ndarray, call: relax.Call) -> np.ndarray | None:
    """A constant as a number, or as one number of each output channel, float64."""
    channels = int(call.ty.shape[1]) if len(call.ty.shape) == 4 else 0
    if value.size == 1:
        return value.reshape(()).astype(np.float64)
    is_by_channel = value.shape[-3:] == (channels, 1, 1) and value.size == channels
    return value.reshape(-1).astype(np.float64) if is_by_channel else None


def _of_convolution(call: relax.Call, graph: Graph) -> tuple[Term, ...]:
    layouts = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    quantizer = weight_quantizer(call, graph)
    if layouts != LAYOUTS[CONV2D] or quantizer is None:
        return ()
    encoding = encoding_of(quantizer)
    if encoding.bits != 1 or np.any(encoding.offset):
        return ()
    image, factor = graph.definition(call.args[0]), np.ones(())
    expr = call.args[0]
    if op_name(image) == "relax.multiply" and (value := evaluate(image.args[1], graph)) is not None:
        expr, factor = image.args[0], value.astype(np.float64)
    plane = bits_of(expr, graph)
    if plane is None or not plane.is_plane or plane.low >= MAX_BITS or factor.size != 1:
        return ()
    return (Term(plane, call, factor.reshape(())),) if factor != 0 else ()


def _same_layer(a: Term, b: Term) -> bool:
    """Whether convolutions are of planes of one image, under one window."""
    sources = [(term.plane.source, term.plane.cast) for term in (a, b)]
    windows = [
        [str(term.convolution.attrs[name]) for name in ("strides", "padding", "dilation", "groups")]
        + [str(term.convolution.args[1].ty.shape)]
        for term in (a, b)
    ]
    return (
        sources[0][0].same_as(sources[1][0])
        and sources[0][1] == sources[1][1]
        and (windows[0] == windows[1])
    )


def _layer(call: relax.Call, graph: Graph) -> _Layer | None:
    """Return a sum as a layer, None where its coefficients are no integers of few branches."""
    terms = sorted(_terms(call, graph), key=lambda term: term.plane.low)
    if len(terms) > MAX_BITS:
        return None
    codes, factors = map(np.stack, zip(*(_weight(term, graph) for term in terms)))
    found = _coefficients(factors)
    if found is None:
        return None
    bits = np.where(factors[..., None, None, None] < 0, 1 - codes, codes).astype(np.uint8)
    return _Layer(layer_name(terms[0].convolution, graph), terms, bits, *found)


def _weight(term: Term, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Codes of one bit, and the factor of each output channel's sum of signs, float64."""
    codes, encoding = weight(term.convolution, graph, out_axis=0)
    factor = term.factor * encoding.scale.astype(np.float64) / 2
    return codes, np.broadcast_to(factor, len(codes))


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
            groups=int(attrs.groups),
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
