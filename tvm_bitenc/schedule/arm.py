"""What the ARM rule sets share: tiles, and what each strategy costs."""

from __future__ import annotations

import math

from ..kernel import lut, xnor
from ..kernel.byte_xnor import AT_ONCE, ByteXnor
from ..kernel.counts import operations
from ..kernel.depthwise import Depthwise
from ..kernel.int8 import Int8
from ..kernel.isa import Isa
from ..kernel.lut import Lut
from ..kernel.window import Tile
from ..target import Target
from ..te.conv_layer import ConvLayer
from .vector import OCTET, Family, fewest_tiles

MAX_PIXELS = 4


def _xnor_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    """Sums of every coefficient, pixel and vector in registers, beside planes and weights."""
    factors = {factor for count in xnor.counts_of_layer(layer) for factor in count.factors}
    sums = (isa.registers - 12) // (AT_ONCE * len(factors))
    return OCTET // ByteXnor.lanes_of(layer, isa), max(min(sums, MAX_PIXELS), 1)


def _lut_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return 4, 4 if isa.registers >= 32 else 2


def _int8_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return (4, 4) if isa.registers >= 32 else (2, 3)


def _depthwise_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    return 2, 4


SIZES = {
    "xnor": _xnor_sizes,
    "lut": _lut_sizes,
    "int8": _int8_sizes,
    "depthwise": _depthwise_sizes,
}


def costs(layer: ConvLayer, isa: Isa, target: Target) -> dict[str, float]:
    """Vector instructions of a layer by strategy."""
    return {"xnor": 1.0}


FAMILY = Family({"xnor": ByteXnor, "lut": Lut, "int8": Int8}, SIZES, costs, fewest_tiles)
