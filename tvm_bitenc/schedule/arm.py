"""What the ARM rule sets share: tiles, and the work of each strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..branches import outer
from ..encoding import WORD_BITS
from ..kernel.contract import ProductClass
from ..kernel.neon import Neon
from ..kernel.nest.geometry import padded_blocks
from ..kernel.nest.tile import Tile
from ..kernel.product import codebook, lut, lut_plan, xnor
from ..kernel.product.branch_cover import Single, Square, cover
from ..kernel.product.byte_xnor import AT_ONCE, ByteXnor, byte_cover, counts_by_factor
from ..kernel.product.codebook import Codebook
from ..kernel.product.depthwise import Depthwise
from ..kernel.product.lut import Lut
from ..kernel.product.lut_plan import Part
from ..kernel.product.nchw import MAX_CHANNELS
from ..kernel.product.neon_int8 import NeonInt8
from ..layer import ConvLayer
from .vector import OCTET, Family, fewest_tiles, shared
from .work import Work

MAX_PIXELS = 4
PRODUCTS = 128  # What the works below do, of one branch or of codes.

# Counted under QEMU for 128 products; `tests/schedule/test_arm.py` holds them to it.
AARCH64 = {
    "single": Work(vector=2.0, count=1.0, other=0.25),
    "square": Work(vector=6.2, count=3.0, other=1.1),
    "spilled": Work(vector=1.0, other=1.0),  # More for each square where there are several.
    "lookup": Work(vector=2.5, lookup=2, other=0.8),
    "widening": Work(vector=1.6, other=0.8),  # More where table entries fill a quarter of a byte.
    "matrix": Work(vector=0.6, product=4.0, other=1.8),
    "dot": Work(vector=0.1, product=8.0, other=2.1),
    "pairs": Work(vector=2.1, product=16.0, other=2.3),
    "sum of pairs": Work(vector=16.0, other=2.0),  # Shared by products that 16 bits sum.
}
ARMV7 = {
    "single": Work(vector=2.0, count=1.0, other=2.3),
    "square": Work(vector=6.2, count=3.0, other=8.4),
    "spilled": Work(other=2.0),
    "lookup": Work(vector=3.2, lookup=4, other=4.9),
    "widening": Work(vector=1.6, other=1.6),
    "pairs": Work(vector=4.2, product=16.0, other=6.0),
    "sum of pairs": Work(vector=16.0, other=6.0),
}
OUTPUT_BIT = Work(vector=1.5, other=2.0)  # For each bit of each output: thresholds.
READ = Work(vector=1.0, other=3.0)  # Of each output whose channel reads a sum by number.
FLOAT_BITS = 4  # As many of them take as long as a float.
ENTRY = 60  # Largest entry of a table of four bits.
TABLES = 64  # Of a layer for which `best` is told.


def _xnor_sizes(layer: ConvLayer, isa: Neon) -> tuple[int, int]:
    """Sums of every coefficient, pixel and vector in registers, beside planes and weights."""
    factors = counts_by_factor(byte_cover(layer))
    sums = (isa.registers - 12) // (AT_ONCE * len(factors))
    return OCTET // ByteXnor.lanes_of(layer, isa), max(min(sums, MAX_PIXELS), 1)


def _lookup_sizes(layer: ConvLayer, isa: Neon) -> tuple[int, int]:
    return 4, 4 if isa.registers >= 32 else 2


def _int8_sizes(layer: ConvLayer, isa: Neon) -> tuple[int, int]:
    if layer.input_shape[3] <= MAX_CHANNELS:  # `Nchw` has many sums of 32 bits.
        return (4, 4) if isa.registers >= 32 else (2, 3)
    product = NeonInt8(layer, isa, Tile(1, 1))
    if product.method == "matrix":
        return 4, 6 if fewest_tiles(layer.output_size[1], 6) % 2 == 0 else 4
    if product.method == "dot":
        return 4, 5
    if isa.registers < 32:
        return 4, 2 if product.keeps_pairs else 1
    return 8, 3 if product.keeps_pairs else 2


def _depthwise_sizes(layer: ConvLayer, isa: Neon) -> tuple[int, int]:
    return 2, 4


SIZES = {
    "xnor": _xnor_sizes,
    "lut": _lookup_sizes,
    "int8": _int8_sizes,
    "codebook": _lookup_sizes,
    "depthwise": _depthwise_sizes,
}


def works(layer: ConvLayer, isa: Neon) -> dict[str, Work]:
    """Work of a layer by strategy, input channels rounded up to what each takes at once."""
    if Depthwise.applies(layer, isa):
        vectors = layer.macs / Depthwise.lanes_of(layer, isa)
        return {"int8": Work(vector=vectors, product=vectors, other=vectors)}
    chosen = {strategy: shared(layer, classes, isa) for strategy, classes in CLASSES.items()}
    bits = FLOAT_BITS if layer.thresholds is None else layer.out_bits
    outputs = OUTPUT_BIT.times(layer.macs / layer.taps * bits)
    reading = READ.times(layer.macs / layer.taps)
    return {
        strategy: WORKS[strategy](seen, isa) + (outputs + reading if seen.channel_rows else outputs)
        for strategy, (seen, product) in chosen.items()
        if product is not None
    }


def _xnor_work(layer: ConvLayer, isa: Neon) -> Work:
    each = branch_work(xnor.cover_of(layer), table_of(isa))
    return each.times(_products_of_channel(layer) * layer.words * WORD_BITS)


def _lut_work(layer: ConvLayer, isa: Neon) -> Work:
    tables = lut.groups_of(layer, isa.vector_bytes // lut.TABLE)
    made = lut_plan.tables_of(layer.geometry, tables)
    each = [plane_work([t.part], table_of(isa)).times(len(t.weight_planes)) for t in made]
    planes = sum(factor != 0 for t in made for factor in t.part.coefficients)
    making = Work(vector=4, lookup=1, other=1)
    making = making.times(_inputs(layer, isa) * lut_plan.GROUP * planes)
    looked_up = _products_of_channel(layer) * tables * lut_plan.GROUP
    return sum((work.times(looked_up) for work in each), making)


def _int8_work(layer: ConvLayer, isa: Neon) -> Work:
    product = NeonInt8(layer, isa, Tile(1, 1))
    each = table_of(isa)[product.method]
    if product.method == "pairs":
        each = each + table_of(isa)["sum of pairs"].times(1 / product.late)
    each = each.times(_products_of_channel(layer) * product.steps * product.depth)
    return each + Work(vector=3, other=1).times(_inputs(layer, isa) * layer.act_bits)


def _codebook_work(layer: ConvLayer, isa: Neon) -> Work:
    """Work of `Codebook`: rows are found for every window, and looked into by every vector."""
    vectors, pixels = _lookup_sizes(layer, isa)
    blocks = padded_blocks(layer.distinct, vectors * isa.vector_bytes)
    entries = codebook.entries_of(layer)
    parts = codebook.parts_of(layer, entries)
    chunk = lut_plan.MAX_ENTRY_SUM // codebook.largest_entry(layer)
    tables = entries / isa.vector_bytes  # Vectors, each of which takes as long to look into.
    row = Work(vector=len(parts) - 1, other=3 * len(parts)).times(tables)
    each = Work(vector=1 + 3 / chunk, lookup=tables, other=1 / pixels)
    windows = layer.macs / layer.taps / layer.out_channels * layer.input_shape[3]
    making = Work(vector=30, other=10).times(windows * len(parts) / isa.vector_bytes)
    return (each.times(vectors) + row).times(blocks * windows) + making


def _products_of_channel(layer: ConvLayer) -> float:
    """Vectors of products for each input channel, of sums that aren't copies."""
    return layer.distinct.macs / layer.weight_codes.shape[1] / PRODUCTS


def _inputs(layer: ConvLayer, isa: Neon) -> float:
    return math.prod(layer.input_shape) / isa.vector_bytes


def best(weight_bits: int, act_bits: int, isa: Neon) -> dict[str, Work]:
    """Work of as many products as a vector has bits, were there no loads and no loops."""
    acts, weights = ([2**bit for bit in range(bits)] for bits in (act_bits, weight_bits))
    table = table_of(isa)
    found = {
        "xnor": branch_work(cover(outer(weights, acts)), table),
        "lut": plane_work(lut_plan.parts_of(acts, TABLES), table).times(weight_bits),
        "int8": table["matrix" if isa.has_matrix else "dot" if isa.has_dot else "pairs"],
    }
    return {name: replace(work, other=0.0) for name, work in found.items()}


def table_of(isa: Neon) -> dict[str, Work]:
    """Works on 64-bit or 32-bit ARM."""
    return AARCH64 if "lookup" in isa.intrinsics else ARMV7


def branch_work(counts: Sequence[Single | Square], table: dict[str, Work]) -> Work:
    """Work of all branches: squares keep so many sums that several of them leave registers."""
    squares = sum(isinstance(count, Square) for count in counts)
    work = table["single"].times(len(counts) - squares) + table["square"].times(squares)
    return work + table["spilled"].times(squares) if squares > 1 else work


def plane_work(parts: Sequence[Part], table: dict[str, Work]) -> Work:
    """Work of a weight plane: the larger the entries of tables, the more often bytes are full."""
    widening = sum(part.most for part in parts) / ENTRY
    return table["lookup"].times(len(parts)) + table["widening"].times(widening)


CLASSES: dict[str, tuple[ProductClass[Neon], ...]] = {
    "xnor": (ByteXnor,),
    "lut": (Lut,),
    "int8": (NeonInt8,),
    "codebook": (Codebook,),
}
WORKS = {
    "xnor": _xnor_work,
    "lut": _lut_work,
    "int8": _int8_work,
    "codebook": _codebook_work,
}
FAMILY = Family(CLASSES, SIZES, works, best, fewest_tiles)
