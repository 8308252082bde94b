"""`bitenc.quantize` (float to the grid) and `bitenc.encode` (float to codes)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax, te, tirx
from tvm.ir import Op

from ..encoding import Encoding
from ..errors import UnsupportedError
from ..te.limited import limited
from ..te.rounded import rounded
from ..te.threshold import reaches
from .registration import constant_value, describe, make_call, register_op, tensor_shape


def quantize(x: relax.Expr, encoding: Encoding, axis: int = -1, layer: str = "") -> relax.Call:
    """Round float32 to the nearest level of `encoding`; float32 in, float32 out, same shape.

    ``y = (clip(round(x / scale + zero_point), 0, max_code) - zero_point) * scale``, computed in
    float32 in this order. Like the `Quant` node of QONNX, so an imported module runs as it is. NaN
    becomes the smallest level, that of code 0: codes can't hold it. Bounds of the encoding's own
    take the place of the rounding: the level is the one whose bounds x lies between.

    Parameters
    ----------
    x : relax.Expr
    encoding : Encoding
    axis : int
        Where per-channel scales and zero points lie; -1 where there is one for all.
    layer : str
        Name for reports and messages.
    """
    return call_with_encoding(quantize_op, x, encoding, axis, layer)


def encode(x: relax.Expr, encoding: Encoding, axis: int = -1, layer: str = "") -> relax.Call:
    """Codes (uint8) of the levels that `quantize` would round to."""
    return call_with_encoding(encode_op, x, encoding, axis, layer)


def encoding_of(call: relax.Call) -> Encoding:
    """Return the encoding of a call to `quantize` or `encode`.

    Raises
    ------
    UnsupportedError
        If its scale or zero point isn't constant, or isn't valid.
    """
    scale, zero_point = (constant_value(argument) for argument in call.args[1:])
    if scale is None or zero_point is None:
        raise UnsupportedError(
            describe(call), "its scale or zero point isn't constant", "Bind it before compiling"
        )
    try:
        return Encoding(
            int(call.attrs["bits"]),
            scale,
            zero_point,
            tuple(_plain(c) for c in call.attrs["coefficients"]),
            str(call.attrs["rounding"]),
            int(call.attrs["max_code"]),
            int(call.attrs["late_zero_point"]),
            tuple(map(int, call.attrs.get("codes", ()))),
            tuple(map(float, call.attrs.get("bounds", ()))),
        )
    except UnsupportedError as error:
        raise type(error)(describe(call), error.cause, error.cure) from None


def _plain(number: float) -> float:
    """A Python int where the number is integral, else a float."""
    return int(number) if int(number) == number else float(number)


def call_with_encoding(
    op: Op, x: relax.Expr, encoding: Encoding, axis: int = -1, layer: str = ""
) -> relax.Call:
    """Call an op whose attributes `encoding_of` reads."""
    constants = [relax.const(value, "float32") for value in (encoding.scale, encoding.zero_point)]
    levels = {"codes": list(encoding.codes), "bounds": list(encoding.bounds)}
    return make_call(
        op,
        [x, *constants],
        bits=encoding.bits,
        coefficients=list(encoding.coefficients),
        rounding=encoding.rounding,
        max_code=encoding.max_code,
        late_zero_point=encoding.late_zero_point,
        axis=axis,
        layer=layer,
        **(levels if encoding.bounds else {}),
    )


def _infer_type(dtype: str) -> Callable[[relax.Call], relax.TensorType]:
    def infer(call: relax.Call) -> relax.TensorType:
        shape = tensor_shape(call.args[0], "float32", describe(call))
        channels = {size for size in map(_constant_size, call.args[1:]) if size > 1}
        axis = int(call.attrs["axis"])
        if channels and (axis < 0 or axis >= len(shape) or channels != {int(shape[axis])}):
            raise UnsupportedError(
                describe(call),
                f"its scales or zero points ({channels}) don't match axis {axis} of {shape}",
                "Give one number, or one per channel with the axis of the channels",
            )
        return relax.TensorType(shape, dtype)

    return infer


def _constant_size(expr: relax.Expr) -> int:
    return int(np.prod([int(size) for size in expr.ty.shape], dtype=int))


def _legalize(
    body: Callable[..., tirx.Expr],
) -> Callable[[relax.BlockBuilder, relax.Call], relax.Expr]:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        encoding, axis = encoding_of(call), int(call.attrs["axis"])

        def compute(x: te.Tensor, *per_channel: te.Tensor) -> te.Tensor:
            def element(*index) -> tirx.Expr:
                parameters = [tirx.const(v, "float32") for v in (0.0, 0.0)]
                tensors = iter(per_channel)
                for i, value in enumerate((encoding.scale, encoding.zero_point)):
                    if value.size > 1:
                        parameters[i] = next(tensors)[index[axis]]
                    else:
                        parameters[i] = tirx.const(float(value.reshape(-1)[0]), "float32")
                return body(x(*index), *parameters, encoding)

            return te.compute(x.shape, element, name=call.op.name.split(".")[-1])

        arrays = [c for c in call.args[1:] if _constant_size(c) > 1]
        return builder.call_te(compute, call.args[0], *arrays, primfunc_name_hint=_hint(call))

    return legalize


def _hint(call: relax.Call) -> str:
    return call.op.name.replace(".", "_")


def _step(x: tirx.Expr, position: tirx.Expr, encoding: Encoding, of_codes: bool) -> tirx.Expr:
    """Code or level of x whose bounds it lies between, or else of the level closest to a position.

    The first one for NaN, which reaches nothing.
    """
    levels, codes, midpoints = encoding.distinct_levels
    values, dtype = (codes, "int32") if of_codes else (levels, "float32")
    chosen = tirx.const(values[0].item(), dtype)
    for bound, value in zip(encoding.bounds or midpoints, values[1:]):
        is_own = bool(encoding.bounds)
        reached = reaches(x, bound) if is_own else position > tirx.const(float(bound), "float32")
        chosen = tirx.Select(reached, tirx.const(value.item(), dtype), chosen)
    return chosen


Rounding = Callable[[tirx.Expr], tirx.Expr]


def _by_sign(negative: Rounding, other: Rounding) -> Rounding:
    zero = tirx.const(0, "float32")
    return lambda x: tirx.Select(x < zero, negative(x), other(x))


_HALF = tirx.const(0.5, "float32")
# The same functions as `rounding.ROUND`, in TIR.
_ROUND = {
    "half_even": te.nearbyint,
    "floor": te.floor,
    "ceil": te.ceil,
    "toward_zero": te.trunc,
    "away_from_zero": _by_sign(te.floor, te.ceil),
    "half_away_from_zero": _by_sign(lambda x: te.ceil(x - _HALF), lambda x: te.floor(x + _HALF)),
    "half_toward_zero": _by_sign(lambda x: te.floor(x + _HALF), lambda x: te.ceil(x - _HALF)),
}


def code_of(x: tirx.Expr, scale: tirx.Expr, zero_point: tirx.Expr, encoding: Encoding) -> tirx.Expr:
    """Code of one float32 value as a TIR expression (float32, or int32 for unusual planes)."""
    if encoding.rounding == "sign":
        one, zero = (tirx.const(v, "float32") for v in (1, 0))
        return tirx.Select(x >= tirx.const(0, "float32"), one, zero)
    late = tirx.const(encoding.late_zero_point, "float32")
    position = x / scale + (zero_point - late)
    if encoding.has_arithmetic_codes:
        code = _ROUND[encoding.rounding](position) + late
        return limited(code, *(tirx.const(v, "float32") for v in (0, encoding.max_code)))
    return _step(x, position, encoding, of_codes=True)


def _quantized(
    x: tirx.Expr, scale: tirx.Expr, zero_point: tirx.Expr, encoding: Encoding
) -> tirx.Expr:
    if encoding.has_arithmetic_codes:
        return rounded((code_of(x, scale, zero_point, encoding) - zero_point) * scale)
    level = _step(x, x / scale + zero_point, encoding, of_codes=False)
    return rounded((level - zero_point) * scale)


def _encoded(
    x: tirx.Expr, scale: tirx.Expr, zero_point: tirx.Expr, encoding: Encoding
) -> tirx.Expr:
    return tvm.tirx.Cast("uint8", code_of(x, scale, zero_point, encoding))


_ARGUMENTS = ("x", "scale", "zero_point")
quantize_op = register_op(
    "bitenc.quantize", _ARGUMENTS, _infer_type("float32"), _legalize(_quantized)
)
encode_op = register_op("bitenc.encode", _ARGUMENTS, _infer_type("uint8"), _legalize(_encoded))
