"""Which products the x86 rule sets have, and how much each does at once."""

from __future__ import annotations

from ..kernel.accumulator import MAX_COMPARED
from ..kernel.isa import Isa
from ..kernel.nest.geometry import blocks_at_once
from ..kernel.nest.tile import Tile
from ..kernel.product import codebook, wide_plan, xnor
from ..kernel.product.codebook import Codebook
from ..kernel.product.depthwise import Depthwise
from ..kernel.product.dot_depthwise import DotDepthwise
from ..kernel.product.int8 import Int8
from ..kernel.product.lut import Lut
from ..kernel.product.wide_lut import WideLut
from ..kernel.product.xnor import Xnor
from ..layer import ConvLayer
from .vector import PREPARED_BYTES, WORD

CLASSES = {
    "xnor": (Xnor,),
    "lut": (WideLut, Lut),
    "int8": (Int8,),
    "codebook": (Codebook,),
}
DEPTHWISE_CLASSES = (DotDepthwise, Depthwise)
FAR_BYTES = 640 << 10  # Wide tables in the second-level cache: few CPUs with them have less.
# Pixels of a tile with wide tables: short sums leave little to hide its end behind, and without a
# window tables of few pixels stay near.
FEW_TABLES, WIDE_PIXELS, WIDE_PIXELS_OF_FEW = 66, 7, 4
CODEBOOK_SUMS = 8  # Vectors of bytes that registers hold.
DOT_PIXELS = 2  # The end of a larger tile overlaps less with the next one.


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


def _wide_lut_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    has_window = layer.kernel_size != (1, 1)
    is_long = has_window and wide_plan.tables_of(layer) * layer.kernel_size[1] > FEW_TABLES
    pixels = WIDE_PIXELS if is_long and layer.weight_bits <= 2 else WIDE_PIXELS_OF_FEW
    return 1, pixels * wide_plan.TABLE // WideLut.lanes_of(layer.distinct, isa)


def _codebook_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    vectors = WORD // isa.vector_bytes
    blocks = blocks_at_once(layer.distinct, WORD, codebook.MAX_VECTORS // vectors)
    return vectors, max(CODEBOOK_SUMS // (vectors * blocks), 1)


def _int8_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    if isa.registers < 32:
        return 2, 4
    return (2, 7) if layer.output_size[1] == 7 else (4, 5)


def _depthwise_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    # Several comparisons of every vector fill the end of a tile: small tiles overlap better.
    compares = layer.thresholds is not None and 1 < len(layer.thresholds) <= MAX_COMPARED
    return (1 if compares and isa.registers >= 32 else 2), 4


def _dot_depthwise_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return 1, DOT_PIXELS


SIZES = {
    "xnor": _xnor_sizes,
    "lut": _lut_sizes,
    "wide_lut": _wide_lut_sizes,
    "codebook": _codebook_sizes,
    "int8": _int8_sizes,
    "depthwise": _depthwise_sizes,
    "dot_depthwise": _dot_depthwise_sizes,
}


def prepared_bytes(layer: ConvLayer, product: str) -> int:
    """Wide tables that windows share are best made once; others are looked into while near."""
    if product != WideLut.name:
        return PREPARED_BYTES
    is_near = layer.kernel_size[0] == 1 and not wide_plan.has_far_tables(layer)
    return wide_plan.NEAR_BYTES if is_near else FAR_BYTES


def weights_per_byte(layer: ConvLayer, isa: Isa) -> int:
    """How many weights share a byte under ``int8``."""
    return Int8(layer, isa, Tile(1, 1)).per_byte if Int8.applies(layer, isa) else 1
