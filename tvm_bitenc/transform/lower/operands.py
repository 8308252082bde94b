"""Operands of a layer as codes: activations at run time, weights while compiling."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import relax

from ...encoding import Encoding
from ...errors import UnsupportedError
from ...op.quantize import encode, encoding_of, quantize_op
from ...op.registration import describe, is_call_to
from ..analysis.constant_shaping import FUNCTIONS, moves_constants
from ..analysis.dag import in_order, once_per_variable
from ..analysis.float32 import evaluate, op_name
from ..analysis.shaping import CHOOSING, constant_pad, on_sources, sources, unquantized_sources
from ..rewrite import Graph


@once_per_variable(unquantized_sources)
def quantized_sources(expr: relax.Expr, graph: Graph) -> tuple[relax.Call | None, str]:
    """Quantizer that an expression's values come from, through shaping ops alone.

    Returns
    -------
    (quantizer, reason)
        One of several of the same encoding; or None and the reason, to follow "its input".
    """
    expr = graph.definition(expr)
    if is_call_to(expr, quantize_op):
        return expr, ""
    parts = sources(expr, graph)
    if parts is None:
        return None, "isn't quantized"
    found: list[relax.Call] = []
    for part in parts:
        quantizer, reason = quantized_sources(part, graph)
        if quantizer is None:
            return None, reason if len(parts) == 1 else f"joins tensors, one of which {reason}"
        found.append(quantizer)
    encodings = [_per_tensor(encoding_of(quantizer)) for quantizer in found]
    if any(not _same(encoding, encodings[0]) for encoding in encodings[1:]):
        return None, "joins tensors of different encodings"
    value = constant_pad(expr)
    if value is not None and code_of_pad(value, encodings[0]) is None:
        return None, f"is padded with {value:g}, which is no level of its quantizer"
    return found[0], ""


def _same(a: Encoding, b: Encoding) -> bool:
    """Whether equal codes stand for equal values."""
    return (
        a.bits == b.bits
        and a.coefficients == b.coefficients
        and np.array_equal(a.scale, b.scale)
        and np.array_equal(a.zero_point, b.zero_point)
    )


def code_of_pad(value: float, encoding: Encoding) -> int | None:
    """Code of a value that is a level exactly, else None; 0 where scales differ by channel."""
    if encoding.is_per_channel:
        return 0  # No layer takes such activations.
    code = encoding.quantize(np.array([value], np.float32))
    return int(code[0]) if encoding.dequantize(code)[0] == np.float32(value) else None


def activation(expr: relax.Expr, graph: Graph, layer: str) -> tuple[relax.Expr, Encoding]:
    """Codes of a layer's input: quantizers become encoders, shaping ops act on codes."""
    quantizer, reason = quantized_sources(expr, graph)
    if quantizer is None:
        raise UnsupportedError(f"layer {layer!r}", f"its input {reason}", "Quantize it")
    encoding = _per_tensor(encoding_of(quantizer))
    codes: dict[relax.Expr, relax.Expr] = {}

    def codes_of(expr: relax.Expr) -> relax.Expr:
        expr = graph.definition(expr)
        if is_call_to(expr, quantize_op):
            return graph.emit(encoder_of(expr))
        if not encoding.has_rising_codes and op_name(expr) in CHOOSING:
            raise UnsupportedError(
                f"{op_name(expr).split('.')[-1]} before layer {layer!r}",
                "its codes don't rise with their values",
                "Quantize after the pooling",
            )
        value, tensors = constant_pad(expr), sources(expr, graph)
        pad_code = 0 if value is None else code_of_pad(value, encoding)
        assert tensors is not None and pad_code is not None  # Or there were no quantizer.
        parts = [codes[part] for part in tensors]
        return graph.emit(on_sources(expr, parts, pad_code))

    for var in in_order(expr, graph, unquantized_sources, codes):
        codes[var] = codes_of(var)
    return codes[expr], encoding


def encoder_of(quantizer: relax.Call) -> relax.Call:
    """Codes of what a quantizer makes.

    It has no layer's name: all readers of one tensor share its codes, even where each layer has a
    quantizer of its own.
    """
    encoding = _per_tensor(encoding_of(quantizer))
    return encode(quantizer.args[0], encoding, int(quantizer.attrs["axis"]))


def weight_quantizer(call: relax.Call, graph: Graph) -> relax.Call | None:
    """Return the quantizer of a layer's second operand, behind ops that move values."""
    expr = graph.definition(call.args[1])
    while moves_constants(expr):
        expr = graph.definition(expr.args[0])
    return expr if is_call_to(expr, quantize_op) else None


def layer_name(call: relax.Call, graph: Graph) -> str:
    """Name of a layer, which its weight's quantizer carries; else the kind of op."""
    quantizer = weight_quantizer(call, graph)
    name = "" if quantizer is None else str(quantizer.attrs["layer"])
    return name or op_name(call).split(".")[-1]


def weight(call: relax.Call, graph: Graph, out_axis: int) -> tuple[np.ndarray, Encoding]:
    """Weight codes with output channels first, and their encoding.

    Parameters
    ----------
    call : relax.Call
        The layer, whose weight may be moved about behind its quantizer.
    out_axis : int
        Axis of the output channels, as the layer sees its weight.
    """
    where, quantizer = (
        f"{describe(call)} {layer_name(call, graph)!r}",
        weight_quantizer(call, graph),
    )
    if quantizer is None:
        raise UnsupportedError(where, "its weight isn't quantized", "Quantize it")
    values = evaluate(quantizer.args[0], graph)
    if values is None:
        raise UnsupportedError(
            where,
            "its weight isn't constant",
            "Bind the parameters before compiling (keep_params_as_input=False)",
        )
    if not np.isfinite(values).all():
        raise UnsupportedError(where, "its weight has NaN or infinity", "Train it again")
    encoding, axis = _per_tensor(encoding_of(quantizer)), int(quantizer.attrs["axis"])
    codes = _moved(encoding.quantize(values, axis), call, graph)
    codes = np.ascontiguousarray(np.moveaxis(codes, out_axis, 0))
    if not encoding.is_per_channel:
        return codes, encoding
    # Numbers of the scales take the way of the weights, to see where each ends up.
    numbers = np.arange(values.shape[axis]).reshape(
        [-1 if i == axis else 1 for i in range(values.ndim)]
    )
    moved = _moved(np.broadcast_to(numbers, values.shape), call, graph)
    of_channels = np.moveaxis(moved, out_axis, 0).reshape(len(codes), -1)
    if (of_channels != of_channels[:, :1]).any():
        raise UnsupportedError(
            where,
            f"its weight has a scale per entry of axis {axis}, not per output channel "
            "(refused by design)",
            "Use one scale per output channel, or per tensor",
        )
    return codes, _of_channels(encoding, of_channels[:, 0])


def _moved(array: np.ndarray, call: relax.Call, graph: Graph) -> np.ndarray:
    """What becomes of an array behind a weight's quantizer until the layer takes it."""
    moves = []
    expr = graph.definition(call.args[1])
    while not is_call_to(expr, quantize_op):
        moves.append(expr)
        expr = graph.definition(expr.args[0])
    for move in reversed(moves):
        array = FUNCTIONS[op_name(move)](move, array)
    return array


def _of_channels(encoding: Encoding, numbers: np.ndarray) -> Encoding:
    """Let channel c have the scale and zero point number ``numbers[c]``."""
    scale, zero_point = (
        value[numbers] if value.ndim else value for value in (encoding.scale, encoding.zero_point)
    )
    return dataclasses.replace(encoding, scale=scale, zero_point=zero_point)


def _per_tensor(encoding: Encoding) -> Encoding:
    """Spell arrays of one entry as scalars."""
    if encoding.is_per_channel and encoding.scale.size == encoding.zero_point.size == 1:
        scale, zero_point = encoding.scale.reshape(()), encoding.zero_point.reshape(())
        return dataclasses.replace(encoding, scale=scale, zero_point=zero_point)
    return encoding
