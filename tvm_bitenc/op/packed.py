"""Ops on packed planes, uint64 (N, H, W, bits, words): what runs between quantized layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Op

from ..encoding import WORD_BITS
from ..layer import RESIDUAL, STEP_CONSTANTS, ConvLayer, FloatStep, four_sides, height_width
from ..te import pack as te_pack
from ..te import pool as te_pool
from ..te.layer_kernels import Compute, xnor_kernel
from ..te.threshold import reaches
from ..te.threshold import threshold as te_threshold
from .branch import geometry_attributes, geometry_of
from .matmul import branch_matmul_op
from .matmul import compute_of as matmul_compute
from .registration import (
    describe,
    is_call_to,
    make_call,
    register_op,
    required_constant,
    tensor_shape,
)
from .threshold import code_step_names

BYTES = "bytes"  # Value of the attributes `source` and `ending`.


def pack(codes: relax.Expr, bits: int, groups: int = 1) -> relax.Call:
    """Pack uint8 codes NHWC; every group of channels starts a new word."""
    return make_call(pack_op, [codes], bits=bits, groups=groups)


def unpack(planes: relax.Expr, channels: int, groups: int = 1) -> relax.Call:
    """Codes (uint8 NHWC) of packed planes."""
    return make_call(unpack_op, [planes], channels=channels, groups=groups)


def packed_conv2d(planes: relax.Expr, call: relax.Call) -> relax.Call:
    """Return the `branch_conv2d` of `call` on packed planes: int32 accumulators, NHWC."""
    attributes = geometry_attributes(geometry_of(call))
    attributes |= {"layer": str(call.attrs["layer"]), "strategy": ""}
    return make_call(packed_conv2d_op, [planes, *call.args[1:]], **attributes, steps=[])


def with_step(
    call: relax.Call, name: str, constants: Sequence[np.ndarray], residual: relax.Expr | None = None
) -> relax.Call:
    """Return a `packed_conv2d` with one more step of float arithmetic behind its accumulators.

    Parameters
    ----------
    call : relax.Call
        To `packed_conv2d`, without thresholds.
    name : str
        See `te.float_steps`.
    constants : sequence of ndarray of float32, each of shape (out_channels,)
    residual : relax.Expr of float32 NHWC, optional
    """
    arguments = [*call.args, *(relax.const(value, "float32") for value in constants)]
    if residual is not None:
        arguments.insert(1, residual)
    changes = {**dict(call.attrs.items()), "steps": [*map(str, call.attrs["steps"]), name]}
    return make_call(packed_conv2d_op, arguments, **changes)


def takes_codes(call: relax.Call) -> bool:
    """Whether a `packed_conv2d` reads codes (uint8) instead of planes: NCHW, or bytes NHWC."""
    return str(call.args[0].ty.dtype) == "uint8"


def takes_bytes(call: relax.Call) -> bool:
    """Whether a `packed_conv2d` reads codes as bytes NHWC."""
    return str(call.attrs.get("source", "")) == BYTES


def makes_bytes(call: relax.Call) -> bool:
    """Whether a `packed_conv2d` with thresholds ends in bytes (uint8 NHWC) instead of planes."""
    return str(call.attrs.get("ending", "")) == BYTES


def copies_of(call: relax.Call) -> int:
    """How many output channels of a `packed_conv2d` share each row of weights, in order."""
    return int(call.attrs.get("copies", 1))


def channel_rows_of(call: relax.Call) -> tuple[int, ...]:
    """Which row of weights each output channel has, see `ConvLayer.channel_rows`."""
    return tuple(map(int, call.attrs.get("channel_rows", ())))


def _source_shape(call: relax.Call) -> list:
    """Batch, channels or words, height and width of a convolution's input."""
    if takes_bytes(call):
        batch, height, width, channels = tensor_shape(call.args[0], "uint8", describe(call))
        return [batch, channels, height, width]
    if takes_codes(call):
        return tensor_shape(call.args[0], "uint8", describe(call))
    batch, height, width, _, words = tensor_shape(call.args[0], "uint64", describe(call))
    return [batch, words, height, width]


def tensor_inputs(call: relax.Call) -> list[relax.Expr]:
    """Arguments of a call that its kernel takes; constants that it lays out itself aren't."""
    if is_call_to(call, packed_conv2d_op):
        return list(call.args[: 1 + _has_residual(call)])
    if is_call_to(call, packed_threshold_op):
        return list(call.args[:3])  # What thresholds stand for is no input of a search.
    return list(call.args)


def _has_residual(call: relax.Call) -> bool:
    return RESIDUAL in map(str, call.attrs["steps"])


def packed_threshold(acc: relax.Expr, call: relax.Call) -> relax.Call:
    """Return the `threshold` of `call` on NHWC accumulators, packed."""
    return make_call(packed_threshold_op, [acc, *call.args[1:]], **code_step_names(call))


def packed_encode(x: relax.Expr, thresholds: np.ndarray) -> relax.Call:
    """Planes of float32 NHWC: the code is the number of thresholds that a value reaches.

    Parameters
    ----------
    x : relax.Expr of float32 NHWC
    thresholds : ndarray of float32, shape (2^bits - 1,), rising
    """
    return make_call(packed_encode_op, [x, relax.const(thresholds, "float32")])


def packed_max_pool2d(planes: relax.Expr, call: relax.Call) -> relax.Call:
    """Return the `nn.max_pool2d` of `call` on packed planes."""
    attrs, (_, _, height, width) = call.attrs, call.ty.shape
    return make_call(
        packed_max_pool2d_op,
        [planes],
        pool_size=list(attrs.pool_size),
        strides=list(attrs.strides),
        padding=list(attrs.padding),
        dilation=list(attrs.dilation),
        out_size=[int(height), int(width)],
    )


@lru_cache(maxsize=2)  # Each rule asks, one after the other, and what it works out stays with it.
def conv_layer_of(call: relax.Call) -> ConvLayer:
    """Everything static about a call to `packed_conv2d`."""
    batch, _, height, width = _source_shape(call)
    is_fixed = isinstance(batch, tirx.IntImm)
    constants = call.args[1 + _has_residual(call) :]
    weight_codes, weight_offset, *epilogue = map(required_constant, constants)
    names = list(map(str, call.attrs["steps"]))
    thresholds, direction = epilogue[:2] if epilogue and not names else [None, None]
    steps = _steps(names, epilogue)
    code_steps = _steps(code_step_names(call).get("code_steps", []), epilogue[2:])
    geometry = geometry_of(call)
    channels = weight_codes.shape[1] * geometry.groups
    return ConvLayer(
        str(call.attrs["layer"]),
        (int(batch) if is_fixed else 1, int(height), int(width), channels),
        weight_codes,
        weight_offset,
        geometry,
        thresholds,
        direction,
        strategy=str(call.attrs["strategy"]),
        steps=steps,
        code_steps=code_steps,
        has_dynamic_batch=not is_fixed,
        reads_bytes=takes_bytes(call),
        writes_bytes=makes_bytes(call),
        copies=copies_of(call),
        channel_rows=channel_rows_of(call),
    )


def _steps(names: Sequence[str], constants: Sequence[np.ndarray]) -> tuple[FloatStep, ...]:
    left = iter(constants)
    return tuple(FloatStep(n, tuple(next(left) for _ in range(STEP_CONSTANTS[n]))) for n in names)


def unscheduled_compute(call: relax.Call) -> tuple[Compute, Sequence[relax.Expr]]:
    """TE definition of a call to any of `OPS`, and the inputs that it takes."""
    return OPS[call.op.name](call)


def _words(channels: int, groups: int = 1) -> int:
    return groups * -(-(channels // groups) // WORD_BITS)


def _infer_pack(call: relax.Call) -> relax.TensorType:
    *outer, channels = tensor_shape(call.args[0], "uint8", describe(call))
    bits, groups = int(call.attrs["bits"]), int(call.attrs["groups"])
    return relax.TensorType([*outer, bits, _words(int(channels), groups)], "uint64")


def _infer_unpack(call: relax.Call) -> relax.TensorType:
    outer = tensor_shape(call.args[0], "uint64", describe(call))[:3]
    return relax.TensorType([*outer, int(call.attrs["channels"])], "uint8")


def _infer_conv2d(call: relax.Call) -> relax.TensorType:
    batch, _, height, width = _source_shape(call)
    weight, *epilogue = call.args[1 + _has_residual(call) :]
    rows, _, kernel_h, kernel_w = tensor_shape(weight, "uint8", describe(call))
    out_channels = len(call.attrs.get("channel_rows", ())) or int(rows) * copies_of(call)
    geometry = geometry_of(call)
    outer = [
        batch,
        geometry.out_size(height, kernel_h, 0),
        geometry.out_size(width, kernel_w, 1),
    ]
    if len(call.attrs["steps"]):
        return relax.TensorType([*outer, out_channels], "float32")
    if len(epilogue) == 1:
        return relax.TensorType([*outer, out_channels], "int32")
    if makes_bytes(call):
        return relax.TensorType([*outer, out_channels], "uint8")
    bits = int(epilogue[1].ty.shape[0]).bit_length()
    return relax.TensorType([*outer, bits, _words(out_channels)], "uint64")


def _infer_threshold(call: relax.Call) -> relax.TensorType:
    *outer, channels = tensor_shape(call.args[0], "int32", describe(call))
    bits = int(call.args[1].ty.shape[0]).bit_length()
    return relax.TensorType([*outer, bits, _words(int(channels))], "uint64")


def _infer_encode(call: relax.Call) -> relax.TensorType:
    *outer, channels = tensor_shape(call.args[0], "float32", describe(call))
    bits = int(call.args[1].ty.shape[0]).bit_length()
    return relax.TensorType([*outer, bits, _words(int(channels))], "uint64")


def _infer_max_pool2d(call: relax.Call) -> relax.TensorType:
    batch, _, _, bits, words = tensor_shape(call.args[0], "uint64", describe(call))
    return relax.TensorType([batch, *map(int, call.attrs["out_size"]), bits, words], "uint64")


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    compute, inputs = unscheduled_compute(call)
    return builder.call_te(compute, *inputs, primfunc_name_hint=call.op.name.replace(".", "_"))


def _compute_conv2d(call: relax.Call):
    layer = conv_layer_of(call).expanded
    compute, constants = xnor_kernel(layer, lanes=1)
    if takes_bytes(call):
        compute = _from_bytes(compute, layer)
    elif takes_codes(call):
        compute = _from_codes(compute, layer)
    constants = [relax.const(value, str(value.dtype)) for value in constants]
    return compute, [*tensor_inputs(call), *constants]


def _from_codes(packed_compute: Callable, layer: ConvLayer) -> Callable:
    """Let codes (uint8 NCHW) be packed first."""

    def compute(codes: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        batch, channels, height, width = codes.shape
        last = te.compute((batch, height, width, channels), lambda n, y, x, c: codes[n, c, y, x])
        return packed_compute(te_pack.pack(last, layer.act_bits), *tensors)

    return compute


def _from_bytes(packed_compute: Callable, layer: ConvLayer) -> Callable:
    """Let codes (uint8 NHWC) be packed first."""

    def compute(codes: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        planes = te_pack.pack(codes, layer.act_bits, layer.geometry.groups)
        return packed_compute(planes, *tensors)

    return compute


def _compute_threshold(call: relax.Call):
    bits = int(call.ty.shape[3])

    def compute(acc: te.Tensor, thresholds: te.Tensor, direction: te.Tensor) -> te.Tensor:
        return te_pack.pack(te_threshold(acc, thresholds, direction, 3), bits)

    return compute, call.args[:3]


def _compute_encode(call: relax.Call):
    bits, thresholds = int(call.ty.shape[3]), required_constant(call.args[1])

    def compute(x: te.Tensor, _thresholds: te.Tensor) -> te.Tensor:
        def code(*index):
            reached = [reaches(x(*index), t) for t in thresholds]
            return sum(tirx.Cast("uint8", r) for r in reached)

        return te_pack.pack(te.compute(x.shape, code, name="code"), bits)

    return compute, call.args


def _compute_max_pool2d(call: relax.Call):
    pool_size, strides, dilation, out_size = (
        height_width(call.attrs[name]) for name in ("pool_size", "strides", "dilation", "out_size")
    )
    padding = four_sides(call.attrs["padding"])
    return lambda planes: te_pool.max_pool2d(
        planes, pool_size, strides, padding, dilation, out_size
    ), call.args


def _compute_pack(call: relax.Call):
    bits, groups = int(call.attrs["bits"]), int(call.attrs["groups"])
    return lambda codes: te_pack.pack(codes, bits, groups), call.args


def _compute_unpack(call: relax.Call):
    channels, groups = int(call.attrs["channels"]), int(call.attrs["groups"])
    return lambda planes: te_pack.unpack(planes, channels, groups), call.args


# All that schedule rules are asked about. Products of codes made at run time aren't packed.
OPS: dict[str, Callable[[relax.Call], tuple[Compute, Sequence[relax.Expr]]]] = {
    branch_matmul_op.name: lambda call: (matmul_compute(call), call.args)
}


def register_packed(
    name: str,
    arguments: Sequence[str],
    infer_type: Callable[[relax.Call], relax.TensorType],
    compute: Callable[[relax.Call], tuple[Compute, Sequence[relax.Expr]]],
) -> Op:
    """Register an op whose meaning is a TE definition: `compute` returns it and its inputs."""
    OPS[name] = compute
    return register_op(name, arguments, infer_type, _legalize)


pack_op = register_packed("bitenc.pack", ("codes",), _infer_pack, _compute_pack)
unpack_op = register_packed("bitenc.unpack", ("planes",), _infer_unpack, _compute_unpack)
packed_conv2d_op = register_packed(
    "bitenc.packed_conv2d",
    ("planes", "weight_codes", "weight_offset"),
    _infer_conv2d,
    _compute_conv2d,
)
packed_threshold_op = register_packed(
    "bitenc.packed_threshold",
    ("acc", "thresholds", "direction"),
    _infer_threshold,
    _compute_threshold,
)
packed_max_pool2d_op = register_packed(
    "bitenc.packed_max_pool2d", ("planes",), _infer_max_pool2d, _compute_max_pool2d
)
packed_encode_op = register_packed(
    "bitenc.packed_encode", ("x", "thresholds"), _infer_encode, _compute_encode
)
