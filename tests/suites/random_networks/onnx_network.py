"""A recipe as an ONNX model of float ops and QONNX quantizers, and what the model computes.

Every scale is a power of two and every sum is below 2^24, so float32 rounds nowhere within a
convolution: onnx's reference evaluator and a compiled model must agree bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from .recipe import Recipe, Step

DOMAIN = "qonnx.custom_op.general"
MAX_VALUES = 1 << 13  # Of a tensor: the evaluator is slow.
OPSET = 15  # Below 14, the evaluator takes batch-norm for that of training.


class Quant(OpRun):
    """The quantizer of QONNX, for onnx's reference evaluator."""

    op_domain = DOMAIN

    def _run(self, x, scale, zero_point, bits, signed=1, narrow=0, rounding_mode="ROUND"):
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        codes = np.clip(np.rint(x / scale + zero_point), low, high)
        return (((codes - zero_point) * scale).astype(np.float32),)


class Network:
    """A model being written; `shape` is that of the tensor at hand."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.nodes, self.constants = recipe, [], []
        self.inputs = [f"x{i}" for i in range(recipe.inputs)]
        self.input_shape = (recipe.batch, recipe.channels, *[recipe.size] * recipe.axes)
        self.earlier = [(name, self.input_shape) for name in self.inputs]
        for step in recipe.steps:
            getattr(self, f"_{step.kind}")(step)

    @property
    def name(self) -> str:
        return self.earlier[-1][0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.earlier[-1][1]

    def model(self) -> onnx.ModelProto:
        """The model, whose last tensors are its outputs."""
        made = [entry for entry in self.earlier if entry[0] not in self.inputs]
        outputs = made[-self.recipe.outputs :]
        batch = "n" if self.recipe.dynamic else self.recipe.batch
        graph = helper.make_graph(
            self.nodes,
            "random",
            [_value(name, (batch, *self.input_shape[1:])) for name in self.inputs],
            [_value(name, (batch, *shape[1:])) for name, shape in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def emit(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> None:
        name, domain = f"{op.lower()}{len(self.nodes)}", DOMAIN if op == "Quant" else ""
        self.nodes.append(
            helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes)
        )
        self.earlier.append((name, tuple(int(size) for size in shape)))

    def constant(self, value) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def quantized(self, step: Step) -> None:
        """Quantize the tensor at hand, for a layer behind it."""
        signed = step.signed and step.act_bits > 1
        span = 2.0 ** math.ceil(math.log2(4 / 2**step.act_bits))
        zero = 0.0 if signed or step.seed % 3 else float(step.seed % 2**step.act_bits)
        inputs = [self.name, *map(self.constant, np.float32([span, zero, step.act_bits]))]
        self.emit("Quant", inputs, self.shape, signed=int(signed), narrow=0, rounding_mode="ROUND")

    def weight(self, step: Step, shape: tuple[int, ...], axis: int) -> str:
        """A quantized weight; its name."""
        source = np.random.default_rng(step.seed)
        bits, signed = step.weight_bits, step.weight_bits > 1
        scales = np.float32(0.125)
        if step.per_channel:
            sizes = [shape[axis] if i == axis else 1 for i in range(len(shape))]
            scales = np.float32(2.0) ** source.integers(-4, 1, sizes)
        low = -(2 ** (bits - 1)) if signed else 0
        codes = source.integers(low, low + 2**bits, shape)
        name, before = self.constant(np.float32(codes * scales)), list(self.earlier)
        inputs = [
            name,
            self.constant(np.float32(scales)),
            *map(self.constant, np.float32([0, bits])),
        ]
        self.emit("Quant", inputs, shape, signed=int(signed), narrow=0, rounding_mode="ROUND")
        name, self.earlier = self.name, before
        return name

    def _conv(self, step: Step, groups: int | None = None, channels: int | None = None) -> None:
        axes = len(self.shape) - 2
        if axes < 1:
            return
        groups, channels = groups or step.groups, channels or step.channels
        if self.shape[1] % groups or channels % groups:
            groups = 1
        reach = step.dilation * (step.kernel - 1)
        sizes = [(n + 2 * step.padding - reach - 1) // step.stride + 1 for n in self.shape[2:]]
        shape = (self.shape[0], channels, *sizes)
        taps = self.shape[1] // groups * step.kernel**axes
        if min(sizes) < 1 or math.prod(shape) > MAX_VALUES or not _fits(step, taps):
            return
        self.quantized(step)
        weight = self.weight(step, (channels, self.shape[1] // groups, *[step.kernel] * axes), 0)
        inputs = [self.name, weight]
        if step.seed % 2:
            bias = np.random.default_rng(step.seed).integers(-8, 9, channels)
            inputs.append(self.constant(np.float32(bias / 4)))
        self.emit(
            "Conv",
            inputs,
            shape,
            strides=[step.stride] * axes,
            pads=[step.padding] * 2 * axes,
            dilations=[step.dilation] * axes,
            group=groups,
        )

    def _depthwise(self, step: Step) -> None:
        self._conv(step, self.shape[1], self.shape[1])

    def _transposed(self, step: Step) -> None:
        axes = len(self.shape) - 2
        if axes < 1:
            return
        reach = step.dilation * (step.kernel - 1)
        sizes = [(n - 1) * step.stride - 2 * step.padding + reach + 1 for n in self.shape[2:]]
        shape = (self.shape[0], step.channels, *sizes)
        taps = self.shape[1] * step.kernel**axes
        if min(sizes) < 1 or math.prod(shape) > MAX_VALUES or not _fits(step, taps):
            return
        self.quantized(step)
        weight = self.weight(step, (self.shape[1], step.channels, *[step.kernel] * axes), 1)
        self.emit(
            "ConvTranspose",
            [self.name, weight],
            shape,
            strides=[step.stride] * axes,
            pads=[step.padding] * 2 * axes,
            dilations=[step.dilation] * axes,
        )

    def _dense(self, step: Step) -> None:
        if not _fits(step, self.shape[-1]):
            return
        self.quantized(step)
        weight = self.weight(step, (self.shape[-1], step.channels), 1)
        self.emit("MatMul", [self.name, weight], (*self.shape[:-1], step.channels))

    def _quantize(self, step: Step) -> None:
        self.quantized(step)

    def _relu(self, _step: Step) -> None:
        self.emit("Relu", [self.name], self.shape)

    def _leaky(self, _step: Step) -> None:
        self.emit("LeakyRelu", [self.name], self.shape, alpha=0.25)

    def _clip(self, step: Step) -> None:
        low, high = map(self.constant, np.float32([-step.back, step.channels]))
        self.emit("Clip", [self.name, low, high], self.shape)

    def _norm(self, step: Step) -> None:
        source, channels = np.random.default_rng(step.seed), self.shape[1]
        gamma = 2.0 ** source.integers(-2, 2, channels) * source.choice([1, 1, -1], channels)
        values = [
            gamma,
            source.integers(-4, 5, channels) / 4,
            np.zeros(channels),
            np.ones(channels),
        ]
        self.emit(
            "BatchNormalization",
            [self.name, *(self.constant(np.float32(value)) for value in values)],
            self.shape,
            epsilon=0.0,
        )

    def _scale(self, step: Step) -> None:
        factor = np.float32(2.0 ** (step.back - 3) * (-1 if step.signed else 1))
        self.emit("Mul", [self.name, self.constant(factor)], self.shape)

    def _back_to(self, step: Step, suits) -> str | None:
        found = [name for name, shape in self.earlier[:-1] if suits(shape)]
        return found[-min(step.back, len(found))] if found else None

    def _add(self, step: Step) -> None:
        other = self._back_to(step, lambda shape: shape == self.shape)
        if other is not None:
            self.emit("Add", [self.name, other], self.shape)

    def _concat(self, step: Step) -> None:
        other = self._back_to(step, lambda shape: shape == self.shape)
        if other is not None and 2 * math.prod(self.shape) <= MAX_VALUES:
            shape = (self.shape[0], 2 * self.shape[1], *self.shape[2:])
            self.emit("Concat", [self.name, other], shape, axis=1)

    def _split(self, step: Step) -> None:
        first = self.shape[1] // 2
        if not first:
            return
        start, end = (0, first) if step.signed else (first, self.shape[1])
        inputs = [self.name, *(self.constant(np.int64([n])) for n in (start, end, 1))]
        self.emit("Slice", inputs, (self.shape[0], end - start, *self.shape[2:]))

    def _pool(self, op: str, kernel: int, stride: int) -> None:
        axes = len(self.shape) - 2
        sizes = [(n - kernel) // stride + 1 for n in self.shape[2:]]
        if axes and min(sizes) > 0:
            size, strides = [kernel] * axes, [stride] * axes
            shape = (*self.shape[:2], *sizes)
            self.emit(op, [self.name], shape, kernel_shape=size, strides=strides)

    def _max_pool(self, step: Step) -> None:
        self._pool("MaxPool", step.kernel, step.stride)

    def _average(self, step: Step) -> None:
        if len(self.shape) > 2 and min(self.shape[2:]) > 1:
            self.quantized(step)
            self._pool("AveragePool", 2, step.stride)

    def _upsample(self, _step: Step) -> None:
        axes = len(self.shape) - 2
        shape = (*self.shape[:2], *(2 * n for n in self.shape[2:]))
        if axes != 2 or math.prod(shape) > MAX_VALUES:
            return
        scales = self.constant(np.float32([1, 1, 2, 2]))
        self.emit(
            "Resize",
            [self.name, "", scales],
            shape,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def _pad(self, step: Step) -> None:
        axes = len(self.shape) - 2
        shape = (*self.shape[:2], *(n + step.back for n in self.shape[2:]))
        if axes and math.prod(shape) <= MAX_VALUES:
            pads = self.constant(np.int64([0, 0, *[step.back] * axes, 0, 0, *[0] * axes]))
            self.emit("Pad", [self.name, pads], shape)

    def _swap(self, _step: Step) -> None:
        if len(self.shape) == 4:
            shape = [self.shape[i] for i in (0, 1, 3, 2)]
            self.emit("Transpose", [self.name], shape, perm=[0, 1, 3, 2])

    def _flatten(self, _step: Step) -> None:
        if len(self.shape) > 2:
            self.emit("Flatten", [self.name], (self.shape[0], math.prod(self.shape[1:])), axis=1)


def _fits(step: Step, taps: int) -> bool:
    """Whether a layer's sums are below 2^24, so that float32 holds them."""
    return taps * 2 ** (step.act_bits + step.weight_bits) < 1 << 24


def _value(name: str, shape: tuple) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def inputs_of(recipe: Recipe, names: list[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What a model is fed: multiples of 1/64, in and beyond the range of most quantizers."""
    source = np.random.default_rng(recipe.seed)
    batch = 2 if recipe.dynamic else shape[0]
    return {
        name: np.float32(source.integers(-384, 385, (batch, *shape[1:])) / 64) for name in names
    }


def expected(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnx's reference evaluator makes of a model."""
    return ReferenceEvaluator(model, new_ops=[Quant]).run(None, inputs)
