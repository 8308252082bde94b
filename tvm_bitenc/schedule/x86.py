"""What the x86 rule sets share: the work of each strategy, over the sizes of `x86_tiles.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..branches import outer
from ..kernel.accumulator import MAX_COMPARED
from ..kernel.contract import Product
from ..kernel.isa import Isa
from ..kernel.nest.channel_sums import MAX_TABLES, MAX_WORD, block_of
from ..kernel.nest.geometry import blocks_at_once, padded_blocks
from ..kernel.nest.tile import Tile, divisors
from ..kernel.product import codebook, lut, lut_plan, wide_lut, wide_plan, xnor
from ..kernel.product.branch_cover import Single, Square, cover
from ..kernel.product.depthwise import Depthwise
from ..kernel.product.dot_depthwise import BLOCK, byte_parts
from ..kernel.product.int8 import QUAD, Int8
from ..kernel.product.lut import Lut
from ..kernel.product.wide_lut import WideLut
from ..kernel.product.xnor import Xnor
from ..layer import ConvLayer
from .vector import WORD, Family, first_that_applies, shared, whole_tiles
from .work import Work
from .x86_tiles import (
    CLASSES,
    DEPTHWISE_CLASSES,
    DOT_PIXELS,
    SIZES,
    prepared_bytes,
    weights_per_byte,
)

# Of as many products as a vector has bits; `tests/schedule/test_x86.py` holds what layers take to
# the assembly of their loops.
PRODUCTS = {
    "dot": Work(product=8),
    "bytes": Work(vector=8, product=8),
    "words": Work(vector=20, product=16),  # Weights are widened first.
}
WIDENED = Work(vector=8, product=8)  # Shared by products that 16 bits sum.
SELECTED = Work(product=9)  # By the pipes that multiply, a little more than one to a product.
INT8_LOADS = {"dot": Work(other=4.2), "bytes": Work(other=6.5), "words": Work(other=9.5)}
XNOR_LOADS = 20  # For each count, by registers.
SUMMED = Work(vector=3)  # Of counts in bytes, for each coefficient.
LUT_LOADS = 1.5
FLUSHED = Work(vector=8)  # Of a vector of channels, from pairs of bytes to int32.
# Of wide tables: a look-up and its sum; two planes of the weight or one that become pairs of bytes,
# less the first sums; the tables of a word of input channels, whose stores take as long as vectors.
WIDE_LOOKUP = Work(vector=1, lookup=1)
# Beyond what counts say, measured on Zen 4: a look-up and its sum take 1.24 cycles for 1, the
# three counts of a square 4.9 for 4.5.
WAITED, SQUARE_WAITED = Work(vector=0.5), Work(vector=0.8)
WIDENED_PLANES, WIDENED_PLANE = Work(product=2), Work(vector=2, other=2)
WIDENED_LAST = Work(vector=1, product=2)  # Of planes odd in number.
MADE_WIDE, MADE_WIDE_PLANE = Work(vector=40, lookup=11, other=26), Work(vector=9, count=3)
MADE_FAR = Work(vector=30)  # Stores to the second-level cache.
# Of codewords: a row of a part of the window, from the second-level cache as well; bytes of a
# vector that become pairs; what is made before, a row of a table, a vector of indices, of patches.
FOUND_ROW, FAR_ROW = Work(vector=1, other=4), Work(vector=0.3)
NEAR_TABLES = 32 << 10
WIDENED_HALVES = Work(vector=6, other=4)
MADE_ROW, UNPACKED_INDEX, MADE_PATCH = Work(vector=1, other=2), Work(vector=3, other=1), Work(31)
UNPACKED = Work(vector=3, other=1)  # Codes of a vector of channels, for each bit.
DEPTHWISE = Work(vector=2, product=1, other=1)  # Of a vector of products.
INTERLEAVED = Work(vector=8, other=4)  # Codes of four rows.
COMPARED, COMPARISON = Work(vector=2, other=1), Work(vector=1, other=1)  # A vector with thresholds.
ROUNDED, ROUNDED_VECTOR = Work(vector=16, other=8), Work(vector=2)  # Many thresholds: a function.
# Sums that channels read by number: of each output; or of a vector of them in each table, and of a
# pixel's table. Of each sum that is kept for them.
READ, KEPT = Work(vector=2, other=2), Work(vector=0.1, other=0.1)
READ_WORDS, READ_TABLE = Work(vector=2, lookup=1, other=2), Work(other=2)
FLOAT_STEPS = 3  # As many comparisons take as long as a float.
TABLES = 64  # Of a layer for which `best` is told.


def works(layer: ConvLayer, isa: Isa) -> dict[str, Work]:
    """Work of a layer by strategy, from planes to planes."""
    depthwise = first_that_applies(DEPTHWISE_CLASSES, layer, isa)
    if depthwise is not None:
        return {"int8": WORKS[depthwise.name](layer, isa)}
    chosen = {strategy: shared(layer, classes, isa) for strategy, classes in CLASSES.items()}
    return {
        strategy: WORKS[product.name](seen, isa) + _reading_work(seen, isa)
        for strategy, (seen, product) in chosen.items()
        if product is not None
    }


def best(weight_bits: int, act_bits: int, isa: Isa) -> dict[str, Work]:
    """Work of as many products as a vector has bits, were there no loads and no loops."""
    acts, weights = ([2**bit for bit in range(bits)] for bits in (act_bits, weight_bits))
    return {
        "xnor": branch_work(cover(outer(weights, acts)), isa),
        "lut": _best_lookups(acts, weight_bits, isa),
        "int8": PRODUCTS["dot" if isa.has_dot else "bytes"],
    }


def _best_lookups(acts: Sequence[int], weight_bits: int, isa: Isa) -> Work:
    """Work of look-ups in the largest tables that `best` may assume."""
    per_widening = lut_plan.MAX_ENTRY_SUM // (wide_plan.GROUP * sum(acts))
    if isa.has_wide_lookup and weight_bits <= wide_lut.MAX_WEIGHT_BITS and per_widening > 1:
        widened = _widened(weight_bits).times(1 / per_widening)
        each = Work(vector=weight_bits, lookup=weight_bits) + replace(widened, other=0)
        return each.times(8 / wide_plan.GROUP)
    parts = lut_plan.parts_of(acts, TABLES)
    return table_lookups([part.limit for part in parts]).times(weight_bits)


def _widened(planes: int) -> Work:
    """Work of bytes of all planes that become pairs of bytes: two planes at a time."""
    pairs, single = divmod(planes, 2)
    return WIDENED_PLANES.times(pairs) + (WIDENED_LAST if pairs else WIDENED_PLANE).times(single)


def branch_work(counts: Sequence[Single | Square], isa: Isa) -> Work:
    """Work of all counts of a vector: logic, counts of bits, sums."""
    squares = sum(isinstance(count, Square) for count in counts)
    counted = sum(len(count.factors) for count in counts)
    logic = len(counts) - squares + squares * (3 if "ternary" in isa.intrinsics else 5)
    if isa.has_popcount:
        return Work(vector=logic + counted, count=counted)
    # Halves of bytes are split by two masks and a shift, looked up and added.
    return Work(vector=logic + 5 * counted, lookup=2 * counted)


def table_lookups(in_bytes: Sequence[int]) -> Work:
    """Work of one weight plane: look-ups, sums, and widening these.

    Parameters
    ----------
    in_bytes : sequence of int
        Look-ups that are summed before they are widened, for each part of the tables.
    """
    widened = sum(1 / count for count in in_bytes)
    return Work(vector=2 * len(in_bytes) + 6 * widened, lookup=2 * len(in_bytes))


def _xnor_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `Xnor`; without an instruction for it, counts in bytes are summed late."""
    counts = xnor.cover_of(layer)
    loads = Work(vector=0.1, other=XNOR_LOADS / isa.registers)
    each = branch_work(counts, isa) + loads.times(sum(len(c.factors) for c in counts))
    if not isa.has_popcount:
        shared = xnor.counts_per_factor(layer)
        late = max(d for d in divisors(layer.words) if d * shared <= xnor.MAX_BYTE_COUNTS)
        each = each + SUMMED.times(len({f for c in counts for f in c.factors}) / late)
    each = each + SQUARE_WAITED.times(sum(isinstance(c, Square) for c in counts))
    vectors, _ = SIZES["xnor"](layer, isa)
    ending = _ending(layer, vectors, vectors * isa.vector_bytes // 8)
    return each.times(_taps(layer, Xnor, isa) * layer.words) + ending


def _lut_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `Lut`: its tables are made, looked into, and sums of their slots added up."""
    n, (vectors, pixels) = isa.vector_bytes, SIZES["lut"](layer, isa)
    slots, block = n // lut.TABLE, vectors * lut.TABLE
    tables = lut.groups_of(layer, slots)
    found = lut_plan.tables_of(layer.geometry, tables)
    is_narrow = layer.geometry.is_product and len(found) == 1 and _fits_pairs(layer)
    steps, window = tables // slots, layer.kernel_size
    plans = [lut_plan.loop_plan(t.part, steps, slots, window, is_narrow, 0) for t in found]
    in_bytes = [  # Of each weight plane in each part.
        plan.in_bytes(steps, window) for t, plan in zip(found, plans) for _ in t.weight_planes
    ]
    # Pixels of a tile share indices, of which a byte holds two.
    loads = Work(vector=3 / pixels, other=LUT_LOADS).times(len(in_bytes))
    each = table_lookups(in_bytes) + loads
    vectors_of_bits = _taps(layer, Lut, isa) * steps / 2
    counting = Work(count=1) if isa.has_popcount else Work(vector=4, lookup=2)
    planes = sum(factor != 0 for t in found for factor in t.part.coefficients)
    making = (Work(vector=4, lookup=1, other=1) + counting).times(planes)
    made = math.prod(layer.input_shape) / lut_plan.GROUP / slots
    levels = math.log2(slots)
    added = Work(vector=3 + 2 * levels, lookup=4 * levels)  # By shuffles, which look up as well.
    if not is_narrow:
        flushes = sum(plan.flushes(window) * len(t.weight_planes) for t, plan in zip(found, plans))
        added = (added + Work(vector=6, lookup=2)).times(flushes)
    return (
        each.times(vectors_of_bits)
        + making.times(made)
        + added.times(_sums(layer) / block)
        + _ending(layer, block * 2 / n, block)
    )


def wide_loop(layer: ConvLayer, isa: Isa) -> Work:
    """Work of the loop of `WideLut`: tables are looked into, and bytes of planes added up."""
    bits, (vectors, pixels) = layer.weight_bits, SIZES["wide_lut"](layer, isa)
    plan = wide_plan.wide_plan(layer, _fits_pairs(layer), Tile(pixels, vectors))
    found = _wide_lookups(layer, isa)  # Of a table.
    # Of indices, and of tables that several look-ups share.
    each = WIDE_LOOKUP.times(found) + Work(other=found / pixels + (found > 1))
    ends = _widened(bits).times(plan.widenings) + FLUSHED.times(plan.flushes)
    tables = _taps(layer, WideLut, isa) * wide_plan.tables_of(layer)
    return each.times(tables) + ends.times(_sums(layer) / wide_plan.TABLE)


def _wide_lookups(layer: ConvLayer, isa: Isa) -> float:
    """Look-ups of a vector of output channels in one table, all planes of the weight."""
    return layer.weight_bits * WideLut.lanes_of(layer.distinct, isa) / wide_plan.TABLE


def _wide_lut_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `WideLut`: its loop, and the tables, which are made before."""
    made = MADE_WIDE + MADE_WIDE_PLANE.times(layer.act_bits)
    if layer.kernel_size[0] > 1:
        made = made + MADE_FAR
    batch, _, width, _ = layer.input_shape
    rows = layer.output_size[0] * min(layer.kernel_size[0], layer.geometry.strides[0])
    words = layer.geometry.groups * wide_plan.tables_of(layer) / wide_plan.TABLES_PER_WORD
    vectors, _ = SIZES["wide_lut"](layer, isa)
    tables = _taps(layer, WideLut, isa) * wide_plan.tables_of(layer)
    return (
        wide_loop(layer, isa)
        + WAITED.times(tables * _wide_lookups(layer, isa))
        + made.times(batch * rows * width * words)
        + _ending(layer, 2 * vectors, vectors * wide_plan.TABLE)
    )


def _reading_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of channels that read sums in another order than theirs."""
    if not layer.channel_rows:
        return Work()
    outputs, kept = _outputs(layer), KEPT.times(_sums(layer))
    words, tables = isa.vector_bytes // 2, -(-len(layer.weight_codes) // isa.vector_bytes)
    fits = layer.taps * layer.geometry.branch_sum < MAX_WORD and tables <= MAX_TABLES
    if not isa.has_word_lookup or not fits or block_of(layer.out_channels) % words:
        return READ.times(outputs) + kept
    pixels = outputs / layer.out_channels
    return READ_WORDS.times(tables * outputs / words) + READ_TABLE.times(tables * pixels) + kept


def _codebook_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `Codebook`: rows are found, and looked into by vectors of channels.

    Before, tables are made, indices unpacked, and patches of all windows.
    """
    vectors, pixels = SIZES["codebook"](layer, isa)
    blocks = padded_blocks(layer.distinct, WORD)
    at_once = blocks_at_once(layer.distinct, WORD, codebook.MAX_VECTORS // vectors)
    entries = codebook.entries_of(layer)
    parts = codebook.parts_of(layer, entries)
    rows = sum(1 << len(part) for part in parts)
    chunk = lut_plan.MAX_ENTRY_SUM // codebook.largest_entry(layer)
    each = WIDE_LOOKUP + WAITED + Work(other=1 / pixels) + WIDENED_HALVES.times(1 / chunk)
    row = FOUND_ROW + FAR_ROW.times(entries * rows > NEAR_TABLES)
    of_window = each.times(vectors * blocks) + row.times(len(parts) * blocks / at_once)
    seen = _outputs(layer) / layer.out_channels  # Pixels.
    words = -(-layer.input_shape[3] // WORD) * WORD / isa.vector_bytes
    index = layer.weight_codes.shape[1] * len(layer.weight_codes) / isa.vector_bytes
    return (
        of_window.times(seen * layer.input_shape[3])
        + MADE_ROW.times(rows)
        + UNPACKED_INDEX.times(index)
        + MADE_PATCH.times(seen * words * len(parts))
        + _ending(layer, 2 * vectors, WORD)
    )


def _int8_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `Int8`; where 16 bits sum pairs, they are widened late."""
    product = Int8(layer, isa, Tile(1, 1))
    each = PRODUCTS[product.method] + INT8_LOADS[product.method]
    if product.per_byte > 1:  # Weights are taken from their bytes for few pixels each.
        each = each + SELECTED
    if product.method == "bytes":
        each = each + WIDENED.times(1 / product.late)
    vectors, _ = SIZES["int8"](layer, isa)
    vectors_of_bits = _taps(layer, Int8, isa) * product.steps * product.depth / (8 * QUAD)
    codes = math.prod(layer.input_shape) / isa.vector_bytes * layer.act_bits
    ending = _ending(layer, vectors, vectors * isa.vector_bytes // QUAD)
    return each.times(vectors_of_bits) + UNPACKED.times(codes) + ending


def _depthwise_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `Depthwise`."""
    return DEPTHWISE.times(layer.macs / Depthwise.lanes_of(layer, isa))


def _dot_depthwise_work(layer: ConvLayer, isa: Isa) -> Work:
    """Work of `DotDepthwise`: columns of a tile are interleaved, and multiplied for each pixel."""
    kernel_h, kernel_w = layer.kernel_size
    columns = (DOT_PIXELS + kernel_w - 1) / DOT_PIXELS
    products = Work(product=QUAD * len(byte_parts(layer)[1])).times(kernel_w)
    each = (INTERLEAVED.times(columns) + products).times(-(-kernel_h // QUAD))
    return each.times(_outputs(layer) / BLOCK)


def _outputs(layer: ConvLayer) -> float:
    return layer.macs / layer.taps


def _sums(layer: ConvLayer) -> float:
    """Outputs that aren't copies of a sum."""
    return _outputs(layer.distinct)


def _taps(layer: ConvLayer, product: type[Product], isa: Isa) -> float:
    """Taps under all pixels, for every vector of output channels."""
    groups, pixels = layer.geometry.groups, _outputs(layer) / layer.out_channels
    vectors = groups * -(
        -len(layer.weight_codes) // groups // product.lanes_of(layer.distinct, isa)
    )
    return pixels * layer.kernel_size[0] * layer.kernel_size[1] * vectors


def _fits_pairs(layer: ConvLayer) -> bool:
    """Whether 16 bits count in how many a window and weights may differ, weighted."""
    return layer.taps * layer.geometry.branch_sum < lut_plan.MAX_PAIR_SUM


def _ending(layer: ConvLayer, vectors: float, block: int) -> Work:
    """Work of the epilogue, which finishes so many vectors of sums at a time."""
    steps = FLOAT_STEPS if layer.thresholds is None else len(layer.thresholds)
    each = COMPARED + COMPARISON.times(steps)
    work = each.times(vectors) if steps <= MAX_COMPARED else ROUNDED + ROUNDED_VECTOR.times(vectors)
    return work.times(_outputs(layer) / block)


WORKS = {
    "xnor": _xnor_work,
    "lut": _lut_work,
    "wide_lut": _wide_lut_work,
    "codebook": _codebook_work,
    "int8": _int8_work,
    "depthwise": _depthwise_work,
    "dot_depthwise": _dot_depthwise_work,
}


FAMILY = Family(
    CLASSES,
    SIZES,
    works,
    best,
    whole_tiles,
    prepared_bytes,
    weights_per_byte,
    depthwise=DEPTHWISE_CLASSES,
    has_bytes=True,
)
