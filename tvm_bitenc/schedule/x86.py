"""What the x86 rule sets share: tiles, and what each strategy costs."""

from __future__ import annotations

import math

from ..kernel.accumulator import MAX_COMPARED
from ..kernel.isa import Isa
from ..kernel.nest.tile import Tile
from ..kernel.product import lut, lut_plan, xnor
from ..kernel.product.branch_cover import operations
from ..kernel.product.depthwise import Depthwise
from ..kernel.product.int8 import Int8
from ..kernel.product.lut import Lut
from ..kernel.product.xnor import Xnor
from ..layer import ConvLayer
from ..target import Target
from .vector import Family, whole_tiles

WEIGHT_BYTE = 0.16  # Instructions that could start while a byte of weights comes from a far cache.
BYTE_COUNT = 7  # Instructions that count bits by two look-ups.


def _xnor_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    factors = {factor for count in xnor.cover_of(layer) for factor in count.factors}
    if len(factors) == 1 and isa.has_popcount:
        return 2, 4
    # Short sums leave little to hide the end of a tile behind: small tiles overlap better.
    most = 2 if layer.words == 1 else 4
    vectors = 1 if isa.has_popcount else 2
    return vectors, max(min((isa.registers - layer.weight_bits - 4) // len(factors), most), 1)


def _lut_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return (2, 4) if isa.registers >= 32 else (2, 3)


def _int8_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    if isa.registers < 32:
        return 2, 4
    return (2, 7) if layer.output_size[1] == 7 else (4, 5)


def _depthwise_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    # Several comparisons of every vector fill the end of a tile: small tiles overlap better.
    compares = layer.thresholds is not None and 1 < len(layer.thresholds) <= MAX_COMPARED
    return (1 if compares and isa.registers >= 32 else 2), 4


SIZES = {
    "xnor": _xnor_sizes,
    "lut": _lut_sizes,
    "int8": _int8_sizes,
    "depthwise": _depthwise_sizes,
}


def costs(layer: ConvLayer, isa: Isa, _target: Target) -> dict[str, float]:
    """Vector instructions of a layer by strategy, those that prepare its input included.

    Per vector: `xnor` takes what `branch_cover.operations` says for 64 products a 64-bit lane;
    `lut` a shuffle and a sum for 4 products a byte lane and weight plane, where shuffles are twice
    as scarce as sums, and three for each widening; `int8` a product, two of which start per cycle
    where four others do, for all bits at once. And every weight is loaded once: with few pixels
    that takes longest, and favours few bits.
    """
    n, pixels = isa.vector_bytes, layer.macs / layer.taps / layer.out_channels
    window = layer.kernel_size[0] * layer.kernel_size[1]
    groups = layer.geometry.groups
    inputs = math.prod(layer.input_shape)
    found = {}
    if Depthwise.applies(layer, isa):
        return {"int8": 3 * layer.macs / Depthwise.lanes_of(layer, isa)}
    if Xnor.applies(layer, isa):
        blocks = groups * -(-layer.out_channels // groups // (n // 8))
        each = operations(xnor.cover_of(layer), 1 if isa.has_popcount else BYTE_COUNT)
        found["xnor"] = pixels * blocks * window * layer.words * each
    if Lut.applies(layer, isa):
        slots = n // lut.TABLE
        tables = lut.groups_of(layer, slots)
        blocks = groups * -(-layer.out_channels // groups // lut.TABLE)
        looked_up = pixels * blocks * window * tables / slots * layer.weight_bits
        parts = lut_plan.parts_of(layer.geometry.act_coefficients, tables)
        lookup = sum(3.3 + 3 * part.most / lut_plan.MAX_ENTRY_SUM for part in parts)
        found["lut"] = looked_up * lookup + inputs / lut_plan.GROUP / slots * 6 * layer.act_bits
    if Int8.applies(layer, isa):
        product = Int8(layer, isa, Tile(1, 1))
        blocks = groups * -(-layer.out_channels // groups // (n // 4))
        step = {"dot": 2.0, "bytes": 3.0 if product.widens_seldom else 5.0, "words": 3.0}
        steps = pixels * blocks * window * product.steps * step[product.method]
        found["int8"] = steps + inputs / n * 3 * layer.act_bits
    planes = WEIGHT_BYTE * layer.weight_codes.size * layer.weight_bits / 8
    loading = {"xnor": planes, "lut": planes, "int8": WEIGHT_BYTE * layer.weight_codes.size}
    return {strategy: cost + loading[strategy] for strategy, cost in found.items()}


FAMILY = Family({"xnor": Xnor, "lut": Lut, "int8": Int8}, SIZES, costs, whole_tiles)
