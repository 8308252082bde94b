"""The layers that are measured, and modules of one of them, from packed planes to packed planes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_bitenc import encoding
from tvm_bitenc.codewords import any_codes
from tvm_bitenc.compiled import CompiledModel
from tvm_bitenc.encoding import WORD_BITS, Encoding
from tvm_bitenc.op import branch_conv2d, pack, threshold, unpack
from tvm_bitenc.op.packed import pack_op, unpack_op
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.records.file import Records
from tvm_bitenc.target import Target
from tvm_bitenc.transform.fuse_epilogue import FuseEpilogue
from tvm_bitenc.transform.layout import NCHW, NHWC, Layout
from tvm_bitenc.transform.pipeline import Pipeline
from tvm_bitenc.transform.rewrite import Graph, rewrite_calls
from tvm_bitenc.transform.schedule import Schedule
from tvm_bitenc.transform.share_channels import ShareChannels
from tvm_bitenc.transform.strategy import Strategy

CORES = os.sched_getaffinity(0)


@dataclass(frozen=True)
class Workload:
    """One convolution; a dense layer is one of a 1x1 image.

    Parameters
    ----------
    name : str
    kind : {"3x3", "1x1", "dense", "depthwise"}
    in_channels, out_channels : int
    size : int
        Height and width of the input.
    kernel, stride, padding, groups, batch : int
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    size: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    batch: int = 1

    @property
    def out_size(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape OIHW of the weight."""
        return self.out_channels, self.in_channels // self.groups, self.kernel, self.kernel

    @property
    def taps(self) -> int:
        """Products per output value."""
        return int(np.prod(self.weight_shape[1:]))

    @property
    def macs(self) -> int:
        """Multiply-accumulates per run."""
        return self.batch * self.out_size**2 * self.out_channels * self.taps


def _conv3x3(in_channels: int, out_channels: int, size: int, stride: int = 1) -> Workload:
    change = f"{in_channels}->{out_channels}/{stride}" if stride > 1 else f"{in_channels}"
    name = f"3x3 {change} @{size // stride}"
    return Workload(name, "3x3", in_channels, out_channels, size, 3, stride, 1)


def conv1x1(in_channels: int, out_channels: int, size: int, stride: int = 1) -> Workload:
    """Return a convolution of single pixels."""
    name = (
        f"1x1 {in_channels}->{out_channels}{f'/{stride}' if stride > 1 else ''} @{size // stride}"
    )
    return Workload(name, "1x1", in_channels, out_channels, size, stride=stride)


def _dense(in_channels: int, out_channels: int, batch: int) -> Workload:
    name = f"dense {in_channels}->{out_channels} x{batch}"
    return Workload(name, "dense", in_channels, out_channels, batch=batch)


def _depthwise(channels: int, size: int) -> Workload:
    name = f"depthwise 3x3 {channels} @{size}"
    return Workload(name, "depthwise", channels, channels, size, 3, 1, 1, groups=channels)


# Sizes behind @ are those of the output.
WORKLOADS = [
    _conv3x3(64, 64, 56),
    _conv3x3(64, 128, 56, 2),
    _conv3x3(128, 128, 28),
    _conv3x3(128, 256, 28, 2),
    _conv3x3(256, 256, 14),
    _conv3x3(256, 512, 14, 2),
    _conv3x3(512, 512, 7),
    conv1x1(256, 512, 14, 2),
    conv1x1(256, 256, 14),
    _dense(512, 1000, 1),
    _dense(512, 1000, 64),
    _dense(4096, 4096, 1),
    _depthwise(64, 56),
    _depthwise(256, 14),
]


def activation_encoding(bits: int) -> Encoding:
    """Encoding that `tvm_bitenc.nn.QActivation` has by default: signs, or levels from 0 up."""
    return Encoding.symmetric(1) if bits == 1 else Encoding.unsigned(bits)


def random_planes(workload: Workload, bits: int, seed: int = 0) -> np.ndarray:
    """Random input, packed: uint64 (batch, size, size, bits, words)."""
    shape = (workload.batch, workload.size, workload.size, workload.in_channels)
    codes = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=np.uint8)
    return encoding.pack(codes, bits)


WeightCodes = Callable[[np.random.Generator, tuple[int, int, int, int], int], np.ndarray]


def random_codes(
    rng: np.random.Generator, shape: tuple[int, int, int, int], bits: int
) -> np.ndarray:
    """Weight codes of a layer, uint8 of shape OIHW."""
    return any_codes(shape, bits, rng=rng)


def tiled_codes(tiles: int, shuffled: bool = False) -> WeightCodes:
    """Weight codes of which output channels have the same ones, so many times; or in any order."""

    def codes(rng: np.random.Generator, shape: tuple[int, int, int, int], bits: int) -> np.ndarray:
        tile = random_codes(rng, (shape[0] // tiles, *shape[1:]), bits)
        found = np.concatenate([tile] * tiles)
        return rng.permutation(found) if shuffled else found

    return codes


def codeword_codes(codewords: int) -> WeightCodes:
    """Weight codes of which each kernel is one of so many."""
    return lambda rng, shape, bits: any_codes(shape, bits, codewords, rng)


def layer_module(
    workload: Workload,
    weight_bits: int,
    act_bits: int,
    seed: int = 0,
    codes_of: WeightCodes = random_codes,
) -> tvm.IRModule:
    """Make a module whose `main` takes planes through the layer and its thresholds, to planes.

    The weights are random, and symmetric as those of `tvm_bitenc.nn` are; the output has as many
    bits as the input. `planes_pipeline` compiles it.
    """
    planes = planes_variable(workload, act_bits)
    builder = relax.BlockBuilder()
    with builder.function("main", [planes]):
        with builder.dataflow():
            rng = np.random.default_rng(seed)
            output = emit_layer(builder, planes, workload, weight_bits, act_bits, rng, codes_of)
            output = builder.emit_output(output)
        builder.emit_func_output(output)
    return builder.get()


def planes_variable(workload: Workload, bits: int, name: str = "planes") -> relax.Var:
    """Return a variable of a layer's packed input."""
    words = -(-workload.in_channels // WORD_BITS)
    shape = (workload.batch, workload.size, workload.size, bits, words)
    return relax.Var(name, relax.TensorType(shape, "uint64"))


def emit_layer(
    builder: relax.BlockBuilder,
    planes: relax.Var,
    workload: Workload,
    weight_bits: int,
    act_bits: int,
    rng: np.random.Generator,
    codes_of: WeightCodes = random_codes,
) -> relax.Expr:
    """Return a layer with random weights and thresholds on planes, packed again."""
    act, weight = activation_encoding(act_bits), Encoding.symmetric(weight_bits)
    weight_codes = codes_of(rng, workload.weight_shape, weight_bits)
    channels_last = builder.emit(unpack(planes, workload.in_channels))
    acc = branch_conv2d(
        builder.emit(relax.op.permute_dims(channels_last, NCHW)),
        act,
        weight_codes,
        weight,
        strides=(workload.stride, workload.stride),
        padding=(workload.padding,) * 4,
        groups=workload.groups,
        layer=workload.name,
    )
    units = random_thresholds(weight.integers(weight_codes), act, rng)
    codes = builder.emit(threshold(builder.emit(acc), *units))
    return pack(builder.emit(relax.op.permute_dims(codes, NHWC)), act_bits)


def random_thresholds(
    weight: np.ndarray, act: Encoding, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds and directions as of a batch-norm and a quantizer with even steps.

    Its range is two standard deviations to each side of the mean, so all codes occur.

    Parameters
    ----------
    weight : ndarray of int, shape (out_channels, ...)
        Integers of the weight.
    act : Encoding
        The input's codes are taken as uniform, and the output's encoding as the same.
    rng : numpy.random.Generator

    Returns
    -------
    thresholds : ndarray of int32, shape (2^bits - 1, out_channels)
    direction : ndarray of int32, shape (out_channels,)
    """
    weight = weight.reshape(len(weight), -1).astype(np.float64)
    values = act.integers(np.arange(2**act.bits, dtype=np.uint8))
    mean, deviation = weight.sum(1) * values.mean(), np.sqrt((weight**2).sum(1)) * values.std()
    direction = rng.choice([-1, 1], len(weight))
    count = 2**act.bits
    steps = 4 * (np.arange(1, count)[:, None] / count - 0.5)
    thresholds = direction * mean + steps * deviation
    return np.rint(thresholds).astype(np.int32), direction.astype(np.int32)


def library_run(library: CompiledModel, value: np.ndarray) -> Callable[[], object]:
    """Return one run, as a user calls it."""
    library(value)  # Sets up TVM's threads, which binds this one to a single core.
    os.sched_setaffinity(0, CORES)  # Or the threads that peers start would all inherit that core.
    return lambda: library(value)


def planes_pipeline(target: Target, strategy: str, records: Records | None = None) -> Pipeline:
    """Return the compiler's passes from `bitenc.Layout` on, for modules of `layer_module`."""
    chosen = Strategy(strategy, target, records or Records())
    packed = (Layout(), EndPacked(), FuseEpilogue())
    return Pipeline([*packed, ShareChannels(target), chosen, Schedule(target)])


@tvm.transform.module_pass(opt_level=0, name="benchmarks.EndPacked")
class EndPacked:
    """Return planes as they are, where a module would unpack and pack them again at its end."""

    def transform_module(self, mod: tvm.IRModule, _ctx) -> tvm.IRModule:
        """Rewrite the module."""
        return rewrite_calls(mod, _planes_as_they_are)


def _planes_as_they_are(call: relax.Call, graph: Graph) -> relax.Expr | None:
    if not is_call_to(call, pack_op) or int(call.attrs["groups"]) > 1:
        return None
    expr = call
    for op in ("relax.permute_dims", "relax.permute_dims", unpack_op):
        expr = graph.definition(expr.args[0])
        if not is_call_to(expr, op):
            return None
    return expr.args[0]
