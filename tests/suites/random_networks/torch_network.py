"""A plan as a torch module.

Quantizers are those of layers of `tvm_bitenc.nn`, torch's fake-quantize, arithmetic, and the op
`tvm_bitenc.nn.quantize`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import tvm_bitenc.nn as bnn
from tvm_bitenc.frontend.torch.fake_tensors import tell_shapes

from .plan import Grid, Op, Plan, Weight


class TorchNetwork(nn.Module):
    """The module of a plan, in eval mode; its outputs are a tuple."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.ops, self.names = plan.ops, plan.inputs
        self.outputs = [name for name, _ in plan.outputs]
        self.parts = nn.ModuleList(PARTS[op.kind](op) for op in plan.ops)
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        tensors = dict(zip(self.names, inputs))
        for op, part in zip(self.ops, self.parts):
            tensors[op.output] = part(*(tensors[name] for name in op.inputs))
        return tuple(tensors[name] for name in self.outputs)


def exported(network: TorchNetwork, inputs: list[Tensor]) -> torch.export.ExportedProgram:
    """The program for any batch."""
    tell_shapes()  # Torch itself can't export fake-quantize with a symbolic size.
    batch = torch.export.Dim("batch", min=1, max=64)
    examples = tuple(torch.cat([x, x[:1]]) for x in inputs)  # 1 would be taken as fixed.
    shapes = (tuple({0: batch} for _ in inputs),)
    return torch.export.export(network, examples, dynamic_shapes=shapes)


class _Function(nn.Module):
    """A function as a part."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class _Quantizer(nn.Module):
    """A grid in the spelling of its style."""

    def __init__(self, grid: Grid, axis: int = -1):
        super().__init__()
        self.grid, self.axis = grid, axis if np.size(grid.scale) > 1 else -1
        self.register_buffer("scale", torch.tensor(np.float32(grid.scale)))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, f"_{self.grid.style}")(x)

    def _fake(self, x: Tensor) -> Tensor:
        grid, bounds = self.grid, (self.grid.low, self.grid.high)
        if self.axis < 0:
            scale = float(grid.scale)
            return torch.fake_quantize_per_tensor_affine(x, scale, grid.zero, *bounds)
        scale = self.scale.reshape(-1)
        zero = torch.full(scale.shape, grid.zero, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, scale, zero, self.axis, *bounds)

    def _arithmetic(self, x: Tensor) -> Tensor:
        grid, scale = self.grid, self.scale if self.axis >= 0 else float(self.grid.scale)
        if grid.is_bipolar:
            return torch.where(x >= 0, 1.0, -1.0) * scale
        if not grid.zero:
            return torch.clamp(ROUNDINGS[grid.rounding % 4](x / scale), grid.low, grid.high) * scale
        if grid.rounding % 2:
            codes = (x / scale).round() + grid.zero
        else:
            codes = (x / scale + grid.zero).round()
        return (codes.clamp(grid.low, grid.high) - grid.zero) * scale

    def _op(self, x: Tensor) -> Tensor:
        """Codes of the op begin at 0 and have no narrow range."""
        grid, scale = self.grid, self.scale.reshape(-1) if self.axis >= 0 else self.scale
        if grid.is_bipolar:
            return bnn.quantize(x, 2 * scale, 0.5, 1, self.axis, "sign")
        lowest = grid.low - (grid.narrow and grid.signed)
        return bnn.quantize(x, scale, float(grid.zero - lowest), grid.bits, self.axis)


ROUNDINGS = (torch.round, torch.floor, torch.ceil, torch.trunc)


class _Product(nn.Module):
    """A layer whose input is quantized in front of it."""

    def __init__(self, op: Op, function: Callable[..., Tensor], weight: np.ndarray, axis: int):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.bias = None if op.bias is None else nn.Parameter(torch.tensor(op.bias))
        self.quantizer, self.function = _Quantizer(op.weight.grid, axis), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.quantizer(self.weight), self.bias)


def _activation(grid: Grid) -> bnn.QActivation:
    """The grid's step between levels; their zero point follows from the kind."""
    half_steps = 1 if grid.signed else 2
    top = (2**grid.bits - 1) * half_steps
    kind = "tanh" if grid.signed else "relu"
    return bnn.QActivation(grid.bits, kind, input_range=top * grid.scale / 2)


def _with_weight(layer: bnn.QConv2d | bnn.QLinear, op: Op, weight: Weight, transpose: bool):
    """Let a layer of `tvm_bitenc.nn` have odd integers times half steps that are powers of two."""
    grid = weight.grid
    if grid.is_bipolar:
        odd, half_step = weight.codes, np.float32(grid.scale)
    else:
        odd = 2 * (weight.codes - grid.low) - (2**grid.bits - 1)
        half_step = np.float32(grid.scale) / 2
    values = np.float32(odd * half_step)
    layer.eval()  # Which computes scales.
    layer.weight = nn.Parameter(torch.tensor(values.T.copy() if transpose else values))
    if op.bias is not None:
        layer.bias = nn.Parameter(torch.tensor(op.bias))
    channels = len(layer.weight_scale)
    flat = torch.tensor(np.broadcast_to(half_step.reshape(-1), [channels]).copy())
    layer.weight_scale = flat
    layer.out_scale = (flat * layer.act.half_step).reshape(layer.out_scale.shape)
    return layer


def _spatial(op: Op) -> nn.Module:
    """A convolution, transposed or not."""
    axes, step, transposed = len(op.shape) - 2, op.step, op.kind == "transposed"
    window = dict(stride=step.stride, padding=step.padding, dilation=step.dilation)
    window["groups"] = op.numbers["groups"]
    if transposed:
        window["output_padding"] = op.numbers["output_padding"]
    if op.grids:
        name = f"QConv{'Transpose' if transposed else ''}{axes}d"
        layer = getattr(bnn, name)(
            op.in_shape[1], op.shape[1], step.kernel, **window, bias=op.bias is not None,
            weight_bits=step.weight_bits, act=_activation(op.grids[0]),
        )  # fmt: skip
        return _with_weight(layer, op, op.weight, transpose=False)
    convolve = getattr(functional, f"conv{'_transpose' if transposed else ''}{axes}d")
    weight = op.weight
    return _Product(op, lambda x, w, b: convolve(x, w, b, **window), weight.values, weight.axis)


def _dense(op: Op) -> nn.Module:
    weight = op.weight
    if op.grids:
        layer = bnn.QLinear(
            *weight.codes.shape, bias=op.bias is not None, weight_bits=op.step.weight_bits,
            act=_activation(op.grids[0]),
        )  # fmt: skip
        return _with_weight(layer, op, weight, transpose=True)
    if op.step.seed % 4 < 2 or weight.is_per_channel:
        return _Product(op, _matmul, weight.values, weight.axis)
    return _Product(op, functional.linear, weight.values.T.copy(), 0)


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product = x @ weight
    return product if bias is None else product + bias


def _attend(op: Op) -> nn.Module:
    if not op.grids:
        return _Function(lambda a, b: torch.matmul(a, b.transpose(-1, -2)))
    product = bnn.QMatMul(first=_activation(op.grids[0]), second=_activation(op.grids[1]))
    return _TransposedSecond(product)


class _TransposedSecond(nn.Module):
    def __init__(self, product: nn.Module):
        super().__init__()
        self.product = product

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.product(a, b.transpose(-1, -2))


def _quantize(op: Op) -> nn.Module:
    grid = op.grids[0]
    return _activation(grid) if grid.style == "layer" else _Quantizer(grid)


def _norm(op: Op) -> nn.Module:
    axes, gamma = len(op.shape) - 2, op.numbers["gamma"]
    kinds = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
    norm = kinds[axes](len(gamma), eps=0.0)
    norm.weight = nn.Parameter(torch.tensor(gamma))
    norm.bias = nn.Parameter(torch.tensor(op.numbers["beta"]))
    return norm


def _pool(op: Op) -> nn.Module:
    axes = len(op.shape) - 2
    kind = {"average": "AvgPool", "max_pool": "MaxPool"}[op.kind]
    return getattr(nn, f"{kind}{axes}d")(op.numbers["kernel"], op.step.stride)


def _split(op: Op) -> nn.Module:
    start, end = op.numbers["start"], op.numbers["end"]
    return _Function(lambda x: x[:, start:end])


def _pad(op: Op) -> nn.Module:
    pads = [op.step.back, 0] * (len(op.shape) - 2)
    return _Function(lambda x: functional.pad(x, pads))


def _clip(op: Op) -> nn.Module:
    return nn.Hardtanh(-float(op.step.back), float(op.step.channels))


def _scale(op: Op) -> nn.Module:
    factor = float(op.numbers["factor"])
    return _Function(lambda x: x * factor)


def _reshape(op: Op) -> nn.Module:
    sizes = op.shape[1:]
    return _Function(lambda x: x.reshape(x.shape[0], *sizes))


PARTS: dict[str, Callable[[Op], nn.Module]] = {
    "quantize": _quantize,
    "conv": _spatial,
    "transposed": _spatial,
    "dense": _dense,
    "attend": _attend,
    "relu": lambda op: nn.ReLU(),
    "leaky": lambda op: nn.LeakyReLU(0.25),
    "clip": _clip,
    "norm": _norm,
    "scale": _scale,
    "add": lambda op: _Function(torch.add),
    "concat": lambda op: _Function(lambda *parts: torch.cat(parts, 1)),
    "split": _split,
    "max_pool": _pool,
    "average": _pool,
    "upsample": lambda op: nn.Upsample(scale_factor=2, mode="nearest"),
    "pad": _pad,
    "swap": lambda op: _Function(lambda x: x.transpose(2, 3)),
    "flatten": lambda op: nn.Flatten(),
    "reshape": _reshape,
}
