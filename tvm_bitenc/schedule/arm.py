"""What the ARM rule sets share: tiles, and what each strategy costs."""

from __future__ import annotations

from ..encoding import WORD_BITS
from ..kernel import lut, xnor
from ..kernel.byte_xnor import AT_ONCE, ByteXnor, byte_counts, counts_by_factor
from ..kernel.counts import Square
from ..kernel.depthwise import Depthwise
from ..kernel.int8 import Int8
from ..kernel.isa import Isa
from ..kernel.lut import Lut
from ..kernel.neon_int8 import NeonInt8
from ..kernel.planar import MAX_CHANNELS
from ..kernel.window import Tile
from ..target import Target
from ..te.conv_layer import ConvLayer
from .vector import OCTET, Family, fewest_tiles

MAX_PIXELS = 4
PRODUCTS = 128  # What the following instructions do, of one branch or of codes.
SINGLE, SQUARE = 3.2, 10.5
LOOKUP, HALVED_LOOKUP = 4.9, 14.0
INT8 = {"matrix": 6.0, "dot": 9.5, "pairs": 20.0}


def _xnor_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    """Sums of every coefficient, pixel and vector in registers, beside planes and weights."""
    factors = counts_by_factor(byte_counts(layer))
    sums = (isa.registers - 12) // (AT_ONCE * len(factors))
    return OCTET // ByteXnor.lanes_of(layer, isa), max(min(sums, MAX_PIXELS), 1)


def _lut_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return 4, 4 if isa.registers >= 32 else 2


def _int8_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    if layer.input_shape[3] <= MAX_CHANNELS:  # `Planar` has many sums of 32 bits.
        return (4, 4) if isa.registers >= 32 else (2, 3)
    product = NeonInt8(layer, isa, Tile(1, 1))
    if product.method == "matrix":
        return 4, 6 if fewest_tiles(layer.output_size[1], 6) % 2 == 0 else 4
    if product.method == "dot":
        return 4, 5
    if isa.registers < 32:
        return 4, 2 if product.keeps_pairs else 1
    return 8, 3 if product.keeps_pairs else 2


def _depthwise_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return 2, 4


SIZES = {
    "xnor": _xnor_sizes,
    "lut": _lut_sizes,
    "int8": _int8_sizes,
    "depthwise": _depthwise_sizes,
}


def costs(layer: ConvLayer, isa: Isa, _target: Target) -> dict[str, float]:
    """Vector instructions of a layer by strategy, loads aside: cores load beside them.

    The constants are those that `benchmarks.arm` counts for 128 products, input channels rounded up
    to what a strategy takes at once.
    """
    if Depthwise.applies(layer):
        return {"int8": 3 * layer.macs / Depthwise.lanes_of(layer, isa)}
    per_group = layer.weight_codes.shape[1]
    of_channel = layer.macs / per_group / PRODUCTS  # For each input channel.
    found = {}
    if ByteXnor.applies(layer, isa):
        counts = xnor.counts_of_layer(layer)
        each = sum(SQUARE if isinstance(count, Square) else SINGLE for count in counts)
        found["xnor"] = of_channel * layer.words * WORD_BITS * each
    if Lut.applies(layer, isa):
        tables = lut.groups_of(layer, isa.vector_bytes // lut.TABLE)
        parts = len(lut.parts_of(layer.geometry.act_coefficients, tables))
        each = (LOOKUP if "lookup" in isa.intrinsics else HALVED_LOOKUP) * parts
        found["lut"] = of_channel * tables * lut.GROUP * layer.weight_bits * each
    if Int8.applies(layer, isa):
        product = NeonInt8(layer, isa, Tile(1, 1))
        found["int8"] = of_channel * product.steps * product.depth * INT8[product.method]
    return found


FAMILY = Family({"xnor": ByteXnor, "lut": Lut, "int8": NeonInt8}, SIZES, costs, fewest_tiles)
