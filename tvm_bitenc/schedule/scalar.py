"""Rules for CPUs without vectors, whose registers are words: microcontrollers, RISC-V."""

from __future__ import annotations

import math

from tvm import relax

from ..kernel.kernel import Kernel
from ..kernel.product.bit_sliced import BitSliced
from ..kernel.product.scalar_int8 import ScalarInt8
from ..kernel.scalar import Scalar
from ..layer import ConvLayer
from ..target import Target
from .rule import RuleSet
from .vector import OCTET, Family, conv2d, costs, shared, whole_tiles
from .work import Work

WIDE = ("riscv64", "x86_64", "aarch64")  # Architectures whose words have 64 bits.
PAIRS = {"multiply_add_halves": "llvm.arm.smlad", "halves_of_bytes": "llvm.arm.sxtb16"}
PREPARED_BYTES = 4 << 10  # Memory is scarce.
PIXELS = 4

# Counted under QEMU; `tests/schedule/test_scalar.py` holds them to it.
ADDED = 6.0  # For each word of a branch: where bits differ, and a sum bit by bit.
LOADED = 1.0  # For each word of a plane.
PLAIN, ALONE = 4.6, 1.5  # Where an instruction counts its bits; less where it is the first.
COUNTED = 8.0  # For each slice, at the end, less what it saved in sums.
SETTLED = 1.0  # For each slice, where words stop being written out.
SPILLED, MOST_SPILLED = 5.0, 3.0  # For each word of a branch, as far as registers don't suffice.
PRODUCT = {"pairs": 1.25, "32 bits": 2.3, "64 bits": 1.9}  # For each product, with loads.
LOOKUP, LOOKUP_BIT = 1.5, 0.5  # For each product and bit of the weights: `generic` does it.
UNPACKED, UNPACKED_BIT = 4.0, 3.0  # For each code.
OUTPUT, OUTPUT_BIT = 3.0, 6.0
READ = 4.0  # For each output whose channel reads a sum by number.


def isa_of(target: Target) -> Scalar:
    """What a target offers: words, as vectors of one lane."""
    if target.architecture in WIDE:
        has_popcount = target.architecture == "riscv64" and "zbb" in target.features
        return Scalar("scalar", 8, 20, {}, has_popcount, has_floats=False)
    has_pairs = target.architecture.startswith("thumb") and "dsp" in target.features
    return Scalar("scalar", 4, 12, PAIRS if has_pairs else {}, has_floats=False)


def works(layer: ConvLayer, isa: Scalar) -> dict[str, Work]:
    """Work of a layer by strategy."""
    outputs = _outputs(layer)
    bits = 0 if layer.thresholds is None else layer.out_bits
    ending = (OUTPUT + OUTPUT_BIT * bits) * outputs
    lookup = LOOKUP + LOOKUP_BIT * layer.act_bits
    found = {"lut": lookup * layer.weight_bits * layer.macs}
    seen, product = shared(layer, (BitSliced,), isa)
    if product is not None:
        found["xnor"] = _xnor_work(seen, isa) * _outputs(seen.distinct) + ending + _reading(seen)
    seen, product = shared(layer, (ScalarInt8,), isa)
    if product is not None:
        found["int8"] = _int8_work(seen, isa) + ending + _reading(seen)
    return {strategy: Work(other=count) for strategy, count in found.items()}


def _outputs(layer: ConvLayer) -> float:
    return layer.macs / layer.taps


def _reading(layer: ConvLayer) -> float:
    return READ * _outputs(layer) if layer.channel_rows else 0.0


def _xnor_work(layer: ConvLayer, isa: Scalar) -> float:
    """Instructions for each output: words are added up, then bits of the slices counted."""
    geometry, (kernel_h, kernel_w) = layer.geometry, layer.kernel_size
    words = kernel_h * kernel_w * -(-layer.weight_codes.shape[1] // (8 * isa.vector_bytes))
    if isa.has_popcount:
        return _plain_work(layer, words)
    planes, branches = layer.act_bits + layer.weight_bits, geometry.branch_count
    slices = math.ceil(math.log2(geometry.branch_sum * words + 1))
    needed = slices + planes + 4
    spilled = min(SPILLED * max(1 - isa.registers / needed, 0), MOST_SPILLED)
    each = (ADDED + spilled) * branches + LOADED * planes
    return each * words + (COUNTED + SETTLED * kernel_h) * slices


def _plain_work(layer: ConvLayer, words: int) -> float:
    """Instructions for each output where one counts the bits of a word."""
    planes, branches = layer.act_bits + layer.weight_bits, layer.geometry.branch_count
    return (PLAIN * branches - ALONE + LOADED * planes) * words


def _int8_work(layer: ConvLayer, isa: Scalar) -> float:
    """Instructions of all products, and of codes that are unpacked under every row of windows."""
    kind = "pairs" if isa.has_pairs else f"{8 * isa.vector_bytes} bits"
    codes = math.prod(layer.input_shape) * layer.kernel_size[0] / layer.geometry.strides[0]
    unpacked = (UNPACKED + UNPACKED_BIT * layer.act_bits) * codes
    return PRODUCT[kind] * layer.distinct.macs + unpacked


FAMILY = Family(
    products={"xnor": (BitSliced,), "int8": (ScalarInt8,)},
    sizes={"xnor": lambda *_: (OCTET, 1), "int8": lambda *_: (OCTET, PIXELS)},
    works=works,
    best=lambda *_: {},
    pixels=whole_tiles,
    prepared_bytes=lambda *_: PREPARED_BYTES,
    of_codes=(),
    depthwise=(),
)


def packed_conv2d(call: relax.Call, target: Target) -> Kernel | None:
    """Return the kernel of a packed convolution, None where it takes a more general rule."""
    return conv2d(call, target, isa_of(target), FAMILY)


def layer_costs(layer: ConvLayer, target: Target) -> dict[str, float]:
    """Cycles of a layer by strategy."""
    return costs(works(layer, isa_of(target)), layer, target)


RULES = RuleSet("scalar", (packed_conv2d,), costs=layer_costs, features=frozenset({"dsp"}))
