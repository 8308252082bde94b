"""A plan as an ONNX model, and what onnx's reference evaluator makes of it.

Quantizers are those of QONNX, QuantizeLinear with DequantizeLinear (with a Clip of the integers
where 4 or 8 bits are too many), or part of QLinearConv and QLinearMatMul.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from qonnx.custom_op.general.bipolar_quant import binary_quant
from qonnx.custom_op.general.quant import quant

from .plan import SPATIAL, Grid, Op, Plan

DOMAIN = "qonnx.custom_op.general"
OPSET = 15  # Below 14, the evaluator takes batch-norm for that of training.
INTEGER_OPSET = 21  # The evaluator's QuantizeLinear begins at 19, with 4 bits at 21.
ROUNDINGS = ("ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")


class Quant(OpRun):
    """The quantizer of QONNX, by QONNX' own function."""

    op_domain = DOMAIN

    def _run(self, x, scale, zero_point, bits, signed=1, narrow=0, rounding_mode="ROUND"):
        return (np.float32(quant(x, scale, zero_point, bits, signed, narrow, rounding_mode)),)


class BipolarQuant(OpRun):
    """The sign times a scale, by QONNX' own function."""

    op_domain = DOMAIN

    def _run(self, x, scale):
        return (np.float32(binary_quant(x, scale)),)


class OnnxNetwork:
    """The model of a plan."""

    def __init__(self, plan: Plan):
        self.plan, self.nodes, self.constants = plan, [], []
        has_integers = any(op.style != "quant" for op in plan.ops)
        self.opset = INTEGER_OPSET if has_integers else OPSET
        for op in plan.ops:
            WRITERS[op.kind](self, op)

    def model(self) -> onnx.ModelProto:
        """The model, whose last tensors are its outputs."""
        recipe = self.plan.recipe
        batch = "n" if recipe.dynamic else recipe.batch
        graph = helper.make_graph(
            self.nodes,
            "random",
            [_value(name, (batch, *self.plan.input_shape[1:])) for name in self.plan.inputs],
            [_value(name, (batch, *shape[1:])) for name, shape in self.plan.outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def node(self, op_type: str, inputs: Sequence, output: str | None = None, **attributes) -> str:
        """Add a node, of tensors by their names and of constants; the name of its output."""
        name = output or f"{op_type.lower()}_{len(self.nodes)}"
        domain = DOMAIN if op_type in ("Quant", "BipolarQuant") else ""
        inputs = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(
            helper.make_node(op_type, inputs, [name], name=name, domain=domain, **attributes)
        )
        return name

    def constant(self, value) -> str:
        name = f"c{len(self.constants)}"
        is_proto = isinstance(value, onnx.TensorProto)
        tensor = value if is_proto else numpy_helper.from_array(np.asarray(value))
        tensor.name = name
        self.constants.append(tensor)
        return name

    def quantized(self, name: str, grid: Grid, output: str) -> None:
        """Quantize a tensor of the graph."""
        if grid.style == "quant":
            self._quant(name, grid, output)
            return
        codes, dtype = self.codes(name, grid)
        self._dequantized(codes, grid, dtype, output=output)

    def _quant(self, value, grid: Grid, output: str | None = None) -> str:
        scale = np.float32(grid.scale)
        if grid.is_bipolar:
            return self.node("BipolarQuant", [value, scale], output)
        inputs = [value, scale, np.float32(grid.zero), np.float32(grid.bits)]
        mode, signed, narrow = ROUNDINGS[grid.rounding], int(grid.signed), int(grid.narrow)
        return self.node("Quant", inputs, output, signed=signed, narrow=narrow, rounding_mode=mode)

    def codes(self, name: str, grid: Grid) -> tuple[str, int]:
        """Integers of a tensor, clipped where their type holds more, and the type."""
        dtype, is_full = self._dtype(grid)
        zero = helper.make_tensor("", dtype, [], [grid.zero])
        codes = self.node("QuantizeLinear", [name, np.float32(grid.scale), zero])
        if not is_full:
            bounds = [helper.make_tensor("", dtype, [], [n]) for n in (grid.low, grid.high)]
            codes = self.node("Clip", [codes, *bounds])
        return codes, dtype

    def _dtype(self, grid: Grid) -> tuple[int, bool]:
        """Type of a grid's integers, and whether it holds no others."""
        if grid.bits == 4 and not grid.narrow:
            return TensorProto.INT4 if grid.signed else TensorProto.UINT4, True
        is_full = grid.bits == 8 and not grid.narrow
        return TensorProto.INT8 if grid.signed else TensorProto.UINT8, is_full

    def _dequantized(self, codes, grid: Grid, dtype: int, axis: int = 0, output=None) -> str:
        scale, attributes = np.float32(grid.scale), {}
        if scale.size > 1:
            scale, attributes = scale.reshape(-1), {"axis": axis}
        zero = helper.make_tensor("", dtype, scale.shape, [grid.zero] * scale.size)
        return self.node("DequantizeLinear", [codes, scale, zero], output, **attributes)

    def weight(self, op: Op) -> str:
        """The weight of a layer, quantized."""
        weight = op.weight
        if weight.grid.style == "quant":
            return self._quant(weight.values, weight.grid)
        dtype, _ = self._dtype(weight.grid)
        codes = helper.make_tensor("", dtype, weight.codes.shape, weight.codes.ravel().tolist())
        return self._dequantized(codes, weight.grid, dtype, weight.axis)


def _layer(op_type: str) -> Callable[[OnnxNetwork, Op], None]:
    def write(network: OnnxNetwork, op: Op) -> None:
        inputs = [op.inputs[0], network.weight(op), *([] if op.bias is None else [op.bias])]
        network.node(op_type, inputs, op.output, **_window(op))

    return write


def _window(op: Op) -> dict:
    """Attributes of a convolution."""
    if op.kind not in SPATIAL:
        return {}
    axes, step = len(op.shape) - 2, op.step
    window = {
        "strides": [step.stride] * axes,
        "pads": [step.padding] * 2 * axes,
        "dilations": [step.dilation] * axes,
        "group": op.numbers["groups"],
    }
    if op.numbers["output_padding"]:
        window["output_padding"] = [op.numbers["output_padding"]] * axes
    return window


def _conv(network: OnnxNetwork, op: Op) -> None:
    if not op.grids:
        return _layer("Conv")(network, op)
    grid, weight = op.grids[0], op.weight
    codes, dtype = network.codes(op.inputs[0], grid)
    stored = helper.make_tensor("", *_int8(weight.codes))
    scale = np.float32(weight.grid.scale)
    scales = scale.reshape(-1) if weight.is_per_channel else scale.reshape(())
    inputs = [codes, *_scale_and_zero(grid, dtype), stored, scales]
    inputs += [np.int8(weight.grid.zero), *_out_grid(op, dtype)]
    if op.bias is not None:
        inputs.append(np.int32(op.bias / (grid.scale * scales)))
    result = network.node("QLinearConv", inputs, **_window(op))
    network.node("DequantizeLinear", [result, *_out_grid(op, dtype)], op.output)


def _dense(network: OnnxNetwork, op: Op) -> None:
    if not op.grids:
        return _layer("MatMul")(network, op)
    codes, dtype = network.codes(op.inputs[0], op.grids[0])
    stored = helper.make_tensor("", *_int8(op.weight.codes))
    scale = np.float32(op.weight.grid.scale)
    scale = scale.reshape(-1) if op.weight.is_per_channel else scale.reshape(())
    zero = np.full(scale.shape, op.weight.grid.zero, np.int8)
    inputs = [codes, *_scale_and_zero(op.grids[0], dtype), stored, scale, zero]
    result = network.node("QLinearMatMul", [*inputs, *_out_grid(op, dtype)])
    network.node("DequantizeLinear", [result, *_out_grid(op, dtype)], op.output)


def _attend(network: OnnxNetwork, op: Op) -> None:
    first, second = op.inputs
    rank = len(op.shape)
    perm = [*range(rank - 2), rank - 1, rank - 2]
    if not op.grids:
        second = network.node("Transpose", [second], perm=perm)
        network.node("MatMul", [first, second], op.output)
        return
    inputs, dtypes = [], []
    for i, (name, grid) in enumerate(zip(op.inputs, op.grids)):
        codes, dtype = network.codes(name, grid)
        codes = network.node("Transpose", [codes], perm=perm) if i else codes
        inputs += [codes, *_scale_and_zero(grid, dtype)]
        dtypes.append(dtype)
    result = network.node("QLinearMatMul", [*inputs, *_out_grid(op, dtypes[0])])
    network.node("DequantizeLinear", [result, *_out_grid(op, dtypes[0])], op.output)


def _scale_and_zero(grid: Grid, dtype: int) -> list:
    return [np.float32(grid.scale), helper.make_tensor("", dtype, [], [grid.zero])]


def _out_grid(op: Op, dtype: int) -> list:
    """Scale and zero point of an operator on int8.

    The zero point is even: the evaluator adds it before rounding, and ONNX Runtime behind.
    """
    zero = 2 * (op.step.seed % 50)
    scale = np.float32(2.0 ** (op.step.back - 5))
    return [scale, helper.make_tensor("", dtype, [], [zero])]


def _int8(codes: np.ndarray) -> tuple[int, tuple[int, ...], list[int]]:
    return TensorProto.INT8, codes.shape, codes.ravel().tolist()


def _plain(op_type: str, **attributes) -> Callable[[OnnxNetwork, Op], None]:
    return lambda network, op: network.node(op_type, op.inputs, op.output, **attributes)


def _quantize(network: OnnxNetwork, op: Op) -> None:
    network.quantized(op.inputs[0], op.grids[0], op.output)


def _clip(network: OnnxNetwork, op: Op) -> None:
    bounds = np.float32([-op.step.back, op.step.channels])
    network.node("Clip", [*op.inputs, *bounds], op.output)


def _norm(network: OnnxNetwork, op: Op) -> None:
    gamma, beta = op.numbers["gamma"], op.numbers["beta"]
    inputs = [*op.inputs, gamma, beta, np.zeros_like(beta), np.ones_like(beta)]
    network.node("BatchNormalization", inputs, op.output, epsilon=0.0)


def _scale(network: OnnxNetwork, op: Op) -> None:
    network.node("Mul", [*op.inputs, op.numbers["factor"]], op.output)


def _split(network: OnnxNetwork, op: Op) -> None:
    bounds = [np.int64([n]) for n in (op.numbers["start"], op.numbers["end"], 1)]
    network.node("Slice", [*op.inputs, *bounds], op.output)


def _pool(op_type: str) -> Callable[[OnnxNetwork, Op], None]:
    def write(network: OnnxNetwork, op: Op) -> None:
        axes = len(op.shape) - 2
        window = {"kernel_shape": [op.numbers["kernel"]] * axes, "strides": [op.step.stride] * axes}
        if network.opset > OPSET:  # By default, the evaluator takes two axes for granted.
            window["dilations"] = [1] * axes
        network.node(op_type, op.inputs, op.output, **window)

    return write


def _upsample(network: OnnxNetwork, op: Op) -> None:
    network.node(
        "Resize",
        [*op.inputs, "", np.float32([1, 1, 2, 2])],
        op.output,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _pad(network: OnnxNetwork, op: Op) -> None:
    axes = len(op.shape) - 2
    pads = np.int64([0, 0, *[op.step.back] * axes, 0, 0, *[0] * axes])
    network.node("Pad", [*op.inputs, pads], op.output)


def _reshape(network: OnnxNetwork, op: Op) -> None:
    network.node("Reshape", [*op.inputs, np.int64([-1, *op.shape[1:]])], op.output)


WRITERS: dict[str, Callable[[OnnxNetwork, Op], None]] = {
    "quantize": _quantize,
    "conv": _conv,
    "transposed": _layer("ConvTranspose"),
    "dense": _dense,
    "attend": _attend,
    "relu": _plain("Relu"),
    "leaky": _plain("LeakyRelu", alpha=0.25),
    "clip": _clip,
    "norm": _norm,
    "scale": _scale,
    "add": _plain("Add"),
    "concat": _plain("Concat", axis=1),
    "split": _split,
    "max_pool": _pool("MaxPool"),
    "average": _pool("AveragePool"),
    "upsample": _upsample,
    "pad": _pad,
    "swap": _plain("Transpose", perm=[0, 1, 3, 2]),
    "flatten": _plain("Flatten", axis=1),
    "reshape": _reshape,
}


def _value(name: str, shape: tuple) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def expected(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnx's reference evaluator makes of a model."""
    return ReferenceEvaluator(model, new_ops=[Quant, BipolarQuant]).run(None, inputs)
