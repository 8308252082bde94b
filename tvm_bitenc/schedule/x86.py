"""What the x86 rule sets share: which kernel, and how large its tiles are."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from tvm import relax, tirx

from ..kernel import depthwise, int8, lut, xnor
from ..kernel.conv2d import conv2d_kernel
from ..kernel.counts import operations
from ..kernel.depthwise import Depthwise, is_depthwise, seen_as_one_group
from ..kernel.encode import encode_kernel
from ..kernel.epilogue import (
    MAX_COMPARED,
    MAX_COMPARED_AT_ALL,
    ComparedPlanes,
    Floats,
    Integers,
)
from ..kernel.int8 import Int8
from ..kernel.isa import Isa
from ..kernel.lines import AffinePlanes, SearchedPlanes
from ..kernel.lut import Lut
from ..kernel.pack import pack_kernel
from ..kernel.planar import Planar
from ..kernel.window import Tile, flattened, padded_blocks, rows_at_once
from ..kernel.xnor import Xnor
from ..op.packed import conv_layer_of, pack_op, packed_conv2d_op, packed_encode_op, takes_codes
from ..op.registration import constant_value, is_call_to
from ..target import Target
from ..te.conv_layer import ConvLayer
from .rule import Kernel, cost_model, schedule_rule, sizes_of

PRODUCTS = {"xnor": Xnor, "lut": Lut, "int8": Int8}
ROW_BYTES = {
    "xnor": xnor.row_bytes,
    "lut": lut.row_bytes,
    "int8": int8.row_bytes,
    "depthwise": depthwise.row_bytes,
}
PREPARED_BYTES = 192 << 10  # What prepared rows may take of the second-level cache.
TASKS_PER_THREAD = 2
MIN_PARALLEL_MACS = 1 << 22
MIN_PARALLEL_VALUES = 1 << 16
WEIGHT_BYTE = 0.16  # Instructions that could start while a byte of weights comes from a far cache.
BYTE_COUNT = 7  # Instructions that count bits by two look-ups.
WORD = 64
OCTET = 8  # Fewest channels whose bits fill an integer.


def register(rule_set: str, isa_of: Callable[[Target], Isa | None]) -> None:
    """Register the rules and the cost model of an instruction set.

    Parameters
    ----------
    rule_set : str
    isa_of : callable
        What a target offers of the instruction set, None if it lacks it: then the rules decline.
    """
    for kernel_of in (conv2d, packed_encode, pack):
        schedule_rule(rule_set)(partial(_if_offered, isa_of, kernel_of))

    @cost_model(rule_set)
    def costs_of(layer: ConvLayer, target: Target) -> dict[str, float] | None:
        isa = isa_of(target)
        return None if isa is None else costs(layer, isa)


def _if_offered(isa_of, kernel_of, call: relax.Call, target: Target) -> Kernel | None:
    isa = isa_of(target)
    return None if isa is None else kernel_of(call, target, isa)


def conv2d(call: relax.Call, target: Target, isa: Isa) -> Kernel | None:
    """Return the kernel of a packed convolution, None where it takes a more general rule."""
    if not is_call_to(call, packed_conv2d_op):
        return None
    layer, product_class = _seen(call, isa)
    if product_class is None:
        return None
    threads = _threads(layer, target)
    product = product_class(layer, isa, default_tile(layer, isa, threads, product_class.name))
    if layer.geometry.groups > 1 and product.raw.has_act_sum:
        return None  # Sums of activations are made for all groups at once.
    epilogue = _epilogue(layer, product)
    if epilogue is None:
        return None
    batch = tirx.Var("batch", "int32")
    shapes = tuple(sizes_of(ty.shape, batch) for ty in (call.args[0].ty, call.ty))
    return conv2d_kernel(layer, product, epilogue, shapes, threads > 1)


def _seen(call: relax.Call, isa: Isa) -> tuple[ConvLayer, type | None]:
    """Return a layer as its kernel sees it, and its product; None where no product applies."""
    layer = conv_layer_of(call)
    if takes_codes(call):
        return layer, Planar if Planar.applies(layer, isa) else None
    if is_depthwise(layer):
        is_served = layer.strategy == "int8" and Depthwise.applies(layer)
        return seen_as_one_group(layer), Depthwise if is_served else None
    layer = flattened(layer)
    product_class = PRODUCTS[layer.strategy]
    return layer, product_class if product_class.applies(layer, isa) else None


def packed_encode(call: relax.Call, target: Target, isa: Isa) -> Kernel | None:
    """Return the kernel that encodes and packs a float image."""
    if not is_call_to(call, packed_encode_op):
        return None
    shape = call.args[0].ty.shape
    parallel = target.threads != 1 and math.prod(sizes_of(shape, 1)) >= MIN_PARALLEL_VALUES
    shape = sizes_of(shape, tirx.Var("batch", "int32"))
    return encode_kernel(shape, constant_value(call.args[1]), isa, parallel)


def pack(call: relax.Call, target: Target, isa: Isa) -> Kernel | None:
    """Return the kernel that packs codes."""
    if not is_call_to(call, pack_op) or int(call.attrs["groups"]) > 1:
        return None
    shape = call.args[0].ty.shape
    parallel = target.threads != 1 and math.prod(sizes_of(shape, 1)) >= MIN_PARALLEL_VALUES
    shape = sizes_of(shape, tirx.Var("batch", "int32"))
    return pack_kernel(shape, int(call.attrs["bits"]), isa, parallel)


def _threads(layer: ConvLayer, target: Target) -> int:
    """Threads to make work for; the pool may have fewer."""
    if target.threads == 1 or layer.macs < MIN_PARALLEL_MACS:
        return 1
    return target.threads or 4


def _epilogue(layer: ConvLayer, product):
    """Choose how sums end, None where no epilogue fits."""
    raw, block = product.raw, product.block
    if layer.steps:
        return Floats(layer, raw, block)
    if layer.thresholds is None:
        return Integers(layer, raw, block)
    if layer.geometry.groups > 1 and layer.out_channels // layer.geometry.groups % block:
        return None  # Bits of two groups would share an integer.
    steps = len(layer.thresholds)
    if steps > MAX_COMPARED:
        affine = AffinePlanes(layer, raw, block, product.isa)
        if affine.applies:
            return affine
    if steps > MAX_COMPARED_AT_ALL:
        return SearchedPlanes(layer, raw, block, product.isa)
    return ComparedPlanes(layer, raw, block, _sum_dtype(product))


def _sum_dtype(product) -> str:
    if product.name == "xnor" and product.lanes >= OCTET:
        return "uint64"
    if product.name == "depthwise":
        return product.dtype
    if product.name == "lut" and product.is_narrow:
        return "uint16"
    return "int32"


def default_tile(layer: ConvLayer, isa: Isa, threads: int, product: str) -> Tile:
    """Tile sizes that keep all sums in registers and prepared rows in the second-level cache."""
    vectors, pixels = _SIZES[product](layer, isa)
    lanes = _lanes(layer, isa, product)
    per_group = layer.out_channels // layer.geometry.groups
    vectors = min(vectors, max(WORD // lanes, 1))
    while vectors * lanes > OCTET and vectors > 1 and _is_too_wide(per_group, vectors, lanes):
        vectors //= 2
    pixels = _pixels(layer.output_size[1], pixels)
    tasks = 1 if threads == 1 else threads * TASKS_PER_THREAD
    rows = rows_at_once(layer, ROW_BYTES[product](layer, isa), PREPARED_BYTES, tasks)
    done = layer.input_shape[0] * layer.output_size[0] // rows
    blocks = layer.geometry.groups * padded_blocks(layer, vectors * lanes)
    splits = next(
        (d for d in range(1, blocks + 1) if blocks % d == 0 and d * done >= tasks), blocks
    )
    return Tile(pixels, vectors, rows, splits)


def _lanes(layer: ConvLayer, isa: Isa, product: str) -> int:
    """Output channels to a vector of sums."""
    if product == "depthwise":
        return depthwise.lanes_of(layer, isa)
    return {"xnor": isa.vector_bytes // 8, "lut": lut.TABLE, "int8": isa.vector_bytes // 4}[product]


def _is_too_wide(channels: int, vectors: int, lanes: int) -> bool:
    """Whether half as many vectors would leave fewer lanes without a channel."""
    whole, half = vectors * lanes, vectors // 2 * lanes
    return half >= channels or (channels % whole > 0 and channels % half == 0)


def _pixels(width: int, most: int) -> int:
    """Tile width: a divisor of the image's width unless that is far below what registers hold."""
    best = max(p for p in range(1, min(most, width) + 1) if width % p == 0)
    return best if 2 * best > most or best == width else min(most, width)


def _xnor_sizes(layer: ConvLayer, isa: Isa) -> tuple[int, int]:
    factors = {factor for count in xnor.counts_of_layer(layer) for factor in count.factors}
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


_SIZES = {
    "xnor": _xnor_sizes,
    "lut": _lut_sizes,
    "int8": _int8_sizes,
    "depthwise": _depthwise_sizes,
}


def costs(layer: ConvLayer, isa: Isa) -> dict[str, float]:
    """Vector instructions of a layer by strategy, those that prepare its input included.

    Per vector: `xnor` takes what `counts.operations` says for 64 products a 64-bit lane; `lut` a
    shuffle and a sum for 4 products a byte lane and weight plane, where shuffles are twice as
    scarce as sums, and three for each widening; `int8` a product, two of which start per cycle
    where four others do, for all bits at once. And every weight is loaded once: with few pixels
    that takes longest, and favours few bits.
    """
    n, pixels = isa.vector_bytes, layer.macs / layer.taps / layer.out_channels
    window = layer.kernel_size[0] * layer.kernel_size[1]
    groups = layer.geometry.groups
    inputs = math.prod(layer.input_shape)
    found = {}
    if Depthwise.applies(layer):
        return {"int8": 3 * layer.macs / depthwise.lanes_of(layer, isa)}
    if Xnor.applies(layer, isa):
        blocks = groups * -(-layer.out_channels // groups // (n // 8))
        each = operations(xnor.counts_of_layer(layer), 1 if isa.has_popcount else BYTE_COUNT)
        found["xnor"] = pixels * blocks * window * layer.words * each
    if Lut.applies(layer, isa):
        slots = n // lut.TABLE
        tables = lut.groups_of(layer, slots)
        blocks = groups * -(-layer.out_channels // groups // lut.TABLE)
        looked_up = pixels * blocks * window * tables / slots * layer.weight_bits
        parts = lut.parts_of(layer.geometry.act_coefficients, tables)
        each = sum(3.3 + 3 * part.most / lut.MAX_ENTRY_SUM for part in parts)
        found["lut"] = looked_up * each + inputs / lut.GROUP / slots * 6 * layer.act_bits
    if Int8.applies(layer, isa):
        product = Int8(layer, isa, Tile(1, 1))
        blocks = groups * -(-layer.out_channels // groups // (n // 4))
        each = {"dot": 2.0, "bytes": 3.0 if product.widens_seldom else 5.0, "words": 3.0}
        steps = pixels * blocks * window * product.steps * each[product.method]
        found["int8"] = steps + inputs / n * 3 * layer.act_bits
    planes = WEIGHT_BYTE * layer.weight_codes.size * layer.weight_bits / 8
    loading = {"xnor": planes, "lut": planes, "int8": WEIGHT_BYTE * layer.weight_codes.size}
    return {strategy: cost + loading[strategy] for strategy, cost in found.items()}
