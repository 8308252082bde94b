"""A recipe as operations with shapes and constants, which each framework then spells in its way.

Every scale is a power of two and every sum is below 2^24, so float32 rounds nowhere within a
layer: a framework and a compiled model must agree bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .recipe import Recipe, Step

MAX_VALUES = 1 << 13  # Of a tensor: onnx's evaluator is slow.
# How the quantizers of a layer are spelt.
STYLES = {
    "onnx": ("quant", "quant", "qdq", "int8"),
    "torch": ("layer", "layer", "fake", "arithmetic", "op"),
}
INSIDE = ("int8", "layer")  # Styles of layers that quantize their own inputs.
BIPOLAR = ("quant", "layer", "arithmetic", "op")  # Styles that have levels of -1 and 1.
SPATIAL = ("conv", "depthwise", "transposed")


@dataclass(frozen=True)
class Grid:
    """``(q - zero) * scale`` for the integers q from `low` to `high`; bipolar: of -1 and 1."""

    bits: int
    signed: bool
    narrow: bool
    scale: float | np.ndarray
    zero: int
    style: str
    rounding: int = 0

    @property
    def low(self) -> int:
        return -(2 ** (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def high(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1 - self.narrow

    @property
    def is_bipolar(self) -> bool:
        return self.signed and self.bits == 1


@dataclass(frozen=True)
class Weight:
    """Integers on a grid; `axis` is that of the output channels, and of several scales."""

    codes: np.ndarray
    grid: Grid
    axis: int

    @property
    def values(self) -> np.ndarray:
        return np.float32((self.codes - self.grid.zero) * self.grid.scale)

    @property
    def is_per_channel(self) -> bool:
        return np.size(self.grid.scale) > 1


@dataclass(frozen=True)
class Op:
    """One operation. `grids` quantize its inputs, where nothing in front of it does."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    in_shape: tuple[int, ...]
    shape: tuple[int, ...]
    step: Step
    numbers: dict
    style: str
    grids: tuple[Grid, ...] = ()
    weight: Weight | None = None
    bias: np.ndarray | None = None


class Plan:
    """The operations of a recipe; while it is made, `shape` is that of the tensor at hand."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.ops = recipe, []
        self.inputs = [f"x{i}" for i in range(recipe.inputs)]
        self.input_shape = (recipe.batch, recipe.channels, *[recipe.size] * recipe.axes)
        self.earlier = [(name, self.input_shape) for name in self.inputs]
        for step in recipe.steps:
            styles = STYLES[recipe.framework]
            self.style = styles[step.style % len(styles)]
            PLANNERS[step.kind](self, step)

    @property
    def name(self) -> str:
        return self.earlier[-1][0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.earlier[-1][1]

    @property
    def axes(self) -> int:
        """How many axes lie behind the channels."""
        return len(self.shape) - 2

    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...]]]:
        made = [entry for entry in self.earlier if entry[0] not in self.inputs]
        return made[-self.recipe.outputs :]

    def emit(self, kind: str, step: Step, shape, inputs=None, **numbers) -> None:
        """Let an operation give the next tensor."""
        fields = {
            name: numbers.pop(name) for name in ("grids", "weight", "bias") if name in numbers
        }
        inputs, shape = inputs or (self.name,), tuple(int(size) for size in shape)
        output = f"{kind}{len(self.ops)}"
        op = Op(kind, tuple(inputs), output, self.shape, shape, step, numbers, self.style, **fields)
        self.ops.append(op)
        self.earlier.append((output, shape))

    def quantized(self, step: Step, name: str | None = None) -> None:
        """Quantize a tensor: that at hand, or an earlier one of its shape."""
        self.emit("quantize", step, self.shape, (name or self.name,), grids=(self.grid(step),))

    def grid(self, step: Step) -> Grid:
        """What a layer quantizes its input to."""
        signed = step.signed and (step.act_bits > 1 or self.style in BIPOLAR)
        span = 2.0 ** math.ceil(math.log2(4 / 2**step.act_bits))
        narrow = step.narrow and step.act_bits > 1
        grid = Grid(step.act_bits, signed, narrow, span, 0, self.style, step.rounding)
        if grid.is_bipolar or step.seed % 3 or self.style == "layer":
            return grid
        return replace(grid, zero=grid.low + step.seed % (grid.high - grid.low + 1))

    @property
    def is_torch(self) -> bool:
        return self.recipe.framework == "torch"

    def weight(self, step: Step, shape: tuple[int, ...], axis: int, groups: int = 1) -> Weight:
        source = np.random.default_rng(step.seed)
        bits, scale = step.weight_bits, np.float32(0.125)
        signed = bits > 1 or (step.signed and self.style in BIPOLAR)
        # Onnx's evaluator of QLinearConv takes several scales for those of an image.
        has_several = self.style != "int8" or self.axes in (0, 2)
        has_several = has_several and shape[axis] > 1 and (axis == 0 or groups == 1)
        if step.per_channel and has_several:
            sizes = [size if i == axis else 1 for i, size in enumerate(shape)]
            scale = np.float32(2.0) ** source.integers(-4, 1, sizes)
        grid = Grid(bits, signed, False, scale, 0, self.style)
        if grid.is_bipolar:
            return Weight(source.choice([-1, 1], shape), grid, axis)
        if self.style != "layer" and not step.seed % 4:
            grid = replace(grid, zero=int(source.integers(grid.low, grid.high + 1)))
        return Weight(source.integers(grid.low, grid.high + 1, shape), grid, axis)

    def layer(self, kind: str, step: Step, shape, weight: Weight, **numbers) -> None:
        """A layer with weights, and the quantizer of its input in front or inside."""
        bias = None
        if step.seed % 2 and (kind != "dense" or self.is_torch):  # MatMul has none.
            channels = shape[-1] if kind == "dense" else shape[1]
            bias = np.float32(np.random.default_rng(step.seed).integers(-8, 9, channels) / 4)
        grids = (self.grid(step),) if self.style in INSIDE else ()
        if not grids:
            self.quantized(step)
        self.emit(kind, step, shape, weight=weight, bias=bias, grids=grids, **numbers)

    def read_by_layer(self, step: Step) -> Step:
        """The step with the bits that a layer of the style at hand reads."""
        return replace(step, act_bits=8, narrow=False) if self.style == "int8" else step

    def back_to(self, step: Step) -> str | None:
        """An earlier tensor of the shape of that at hand."""
        found = [name for name, shape in self.earlier[:-1] if shape == self.shape]
        return found[-min(step.back, len(found))] if found else None


def _conv(plan: Plan, step: Step, kind: str = "conv") -> None:
    if plan.axes < 1:
        return
    step, inside = plan.read_by_layer(step), plan.shape[1]
    groups, channels = (inside, inside) if kind == "depthwise" else (step.groups, step.channels)
    if inside % groups or channels % groups:
        groups = 1
    reach = step.dilation * (step.kernel - 1)
    sizes = [(n + 2 * step.padding - reach - 1) // step.stride + 1 for n in plan.shape[2:]]
    shape = (plan.shape[0], channels, *sizes)
    taps = inside // groups * step.kernel**plan.axes
    if min(sizes) >= 1 and math.prod(shape) <= MAX_VALUES and _fits(step, taps):
        weight = plan.weight(step, (channels, inside // groups, *[step.kernel] * plan.axes), 0)
        plan.layer("conv", step, shape, weight, groups=groups, output_padding=0)


def _depthwise(plan: Plan, step: Step) -> None:
    _conv(plan, step, "depthwise")


def _transposed(plan: Plan, step: Step) -> None:
    if plan.axes < 1:
        return
    if plan.style == "int8":
        plan.style = "qdq"  # There is no such operator on int8.
    inside, groups = plan.shape[1], step.groups if plan.is_torch else 1
    if inside % groups or step.channels % groups:
        groups = 1
    extra = int(step.stride > 1 and step.back > 2)
    reach = step.dilation * (step.kernel - 1)
    sizes = [(n - 1) * step.stride - 2 * step.padding + reach + 1 + extra for n in plan.shape[2:]]
    shape, taps = (plan.shape[0], step.channels, *sizes), inside // groups * step.kernel**plan.axes
    if min(sizes) >= 1 and math.prod(shape) <= MAX_VALUES and _fits(step, taps):
        taps = (inside, step.channels // groups, *[step.kernel] * plan.axes)
        weight = plan.weight(step, taps, 1, groups)
        plan.layer("transposed", step, shape, weight, groups=groups, output_padding=extra)


def _dense(plan: Plan, step: Step) -> None:
    step = plan.read_by_layer(step)
    if _fits(step, plan.shape[-1]):
        weight = plan.weight(step, (plan.shape[-1], step.channels), 1)
        plan.layer("dense", step, (*plan.shape[:-1], step.channels), weight)


def _attend(plan: Plan, step: Step) -> None:
    """The product of two activations, x and the transpose of an earlier one or of x."""
    step = plan.read_by_layer(step)
    step = replace(step, weight_bits=step.act_bits)
    shape = (*plan.shape[:-1], plan.shape[-2])
    if plan.axes < 1 or math.prod(shape) > MAX_VALUES or not _fits(step, plan.shape[-1]):
        return
    first, second = plan.name, plan.back_to(step) or plan.name
    other = replace(step, signed=not step.signed, seed=step.seed + 1)
    if plan.style in INSIDE:
        plan.emit("attend", step, shape, (first, second), grids=(plan.grid(step), plan.grid(other)))
        return
    plan.quantized(step, first)
    first = plan.name
    plan.quantized(other, second)
    plan.emit("attend", step, shape, (first, plan.name))


def _norm(plan: Plan, step: Step) -> None:
    source, channels = np.random.default_rng(step.seed), plan.shape[1]
    gamma = 2.0 ** source.integers(-2, 2, channels) * source.choice([1, 1, -1], channels)
    beta = source.integers(-4, 5, channels) / 4
    plan.emit("norm", step, plan.shape, gamma=np.float32(gamma), beta=np.float32(beta))


def _scale(plan: Plan, step: Step) -> None:
    factor = np.float32(2.0 ** (step.back - 3) * (-1 if step.signed else 1))
    plan.emit("scale", step, plan.shape, factor=factor)


def _add(plan: Plan, step: Step) -> None:
    other = plan.back_to(step)
    if other is not None:
        plan.emit("add", step, plan.shape, (plan.name, other))


def _concat(plan: Plan, step: Step) -> None:
    other = plan.back_to(step)
    if other is not None and 2 * math.prod(plan.shape) <= MAX_VALUES:
        shape = (plan.shape[0], 2 * plan.shape[1], *plan.shape[2:])
        plan.emit("concat", step, shape, (plan.name, other))


def _split(plan: Plan, step: Step) -> None:
    count = plan.shape[1]
    if count > 1:
        start, end = (0, count // 2) if step.signed else (count // 2, count)
        shape = (plan.shape[0], end - start, *plan.shape[2:])
        plan.emit("split", step, shape, start=start, end=end)


def _pool(plan: Plan, step: Step, kind: str, kernel: int) -> None:
    sizes = [(n - kernel) // step.stride + 1 for n in plan.shape[2:]]
    if plan.axes and min(sizes) > 0:
        plan.emit(kind, step, (*plan.shape[:2], *sizes), kernel=kernel)


def _max_pool(plan: Plan, step: Step) -> None:
    _pool(plan, step, "max_pool", step.kernel)


def _average(plan: Plan, step: Step) -> None:
    if plan.axes and min(plan.shape[2:]) > 1:
        plan.quantized(step)
        _pool(plan, step, "average", 2)


def _upsample(plan: Plan, step: Step) -> None:
    shape = (*plan.shape[:2], *(2 * n for n in plan.shape[2:]))
    if plan.axes == 2 and math.prod(shape) <= MAX_VALUES:
        plan.emit("upsample", step, shape)


def _pad(plan: Plan, step: Step) -> None:
    shape = (*plan.shape[:2], *(n + step.back for n in plan.shape[2:]))
    if plan.axes and math.prod(shape) <= MAX_VALUES:
        plan.emit("pad", step, shape)


def _swap(plan: Plan, step: Step) -> None:
    if plan.axes == 2:
        plan.emit("swap", step, [plan.shape[i] for i in (0, 1, 3, 2)])


def _flatten(plan: Plan, step: Step) -> None:
    if plan.axes:
        plan.emit("flatten", step, (plan.shape[0], math.prod(plan.shape[1:])))


def _reshape(plan: Plan, step: Step) -> None:
    """To fewer axes or, from a matrix, to an image of 2 x 2."""
    batch, *sizes = plan.shape
    if plan.axes == 2:
        sizes = [sizes[0], sizes[1] * sizes[2]] if step.signed else [sizes[0] * sizes[1], sizes[2]]
    elif not plan.axes and sizes[0] % 4 == 0:
        sizes = [sizes[0] // 4, 2, 2]
    else:
        return
    plan.emit("reshape", step, (batch, *sizes))


def _same(kind: str) -> Callable[[Plan, Step], None]:
    return lambda plan, step: plan.emit(kind, step, plan.shape)


def _fits(step: Step, taps: int) -> bool:
    """Whether a layer's sums are below 2^24, so that float32 holds them, in half steps as well."""
    return taps * 2 ** (step.act_bits + step.weight_bits) < 1 << 23


PLANNERS: dict[str, Callable[[Plan, Step], None]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "transposed": _transposed,
    "dense": _dense,
    "attend": _attend,
    "quantize": Plan.quantized,
    "relu": _same("relu"),
    "leaky": _same("leaky"),
    "clip": _same("clip"),
    "norm": _norm,
    "scale": _scale,
    "add": _add,
    "concat": _concat,
    "split": _split,
    "max_pool": _max_pool,
    "average": _average,
    "upsample": _upsample,
    "pad": _pad,
    "swap": _swap,
    "flatten": _flatten,
    "reshape": _reshape,
}


def inputs_of(plan: Plan) -> list[np.ndarray]:
    """What a network is fed: multiples of 1/64, in and beyond the range of most quantizers."""
    source, (batch, *sizes) = np.random.default_rng(plan.recipe.seed), plan.input_shape
    shape = (2 if plan.recipe.dynamic else batch, *sizes)
    return [np.float32(source.integers(-384, 385, shape) / 64) for _ in plan.inputs]
