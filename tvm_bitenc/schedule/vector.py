"""What rule sets of vector instructions share: which kernel a layer gets, and its tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic

from tvm import relax, tirx

from ..encoding import are_positional
from ..kernel.accumulator import MAX_COMPARED
from ..kernel.concat import concat_kernel
from ..kernel.contract import Epilogue, IsaT, Product, ProductClass
from ..kernel.encode import encode_kernel
from ..kernel.epilogue.affine import AffinePlanes
from ..kernel.epilogue.compared import ComparedPlanes, is_compared
from ..kernel.epilogue.computed import ComputedPlanes
from ..kernel.epilogue.fixed_point import FixedPlanes
from ..kernel.epilogue.floats import Floats
from ..kernel.epilogue.integers import Integers
from ..kernel.epilogue.searched import SearchedPlanes
from ..kernel.isa import Isa
from ..kernel.kernel import Kernel
from ..kernel.nest.channel_sums import ChannelSums, block_of
from ..kernel.nest.conv2d import conv2d_kernel
from ..kernel.nest.geometry import flattened, in_rows, padded_blocks, rows_at_once
from ..kernel.nest.tile import Tile, divisors
from ..kernel.pack import pack_kernel
from ..kernel.product.depthwise import Depthwise, is_depthwise, seen_as_one_group
from ..kernel.product.nchw import Nchw
from ..layer import ConvLayer
from ..op.packed import conv_layer_of, pack_op, packed_conv2d_op, packed_encode_op, takes_codes
from ..op.packed_channels import bytes_concat_op
from ..op.registration import constant_value, is_call_to
from ..target import Target
from ..te.function import sizes_of
from .matmul import branch_matmul
from .parallel import MAX_IDLE, TASKS_PER_THREAD, idle, threads_for
from .rule import Rule, RuleSet, Space
from .work import Work

MIN_PARALLEL_VALUES = 1 << 16
WORD = 64
OCTET = 8  # Fewest channels whose bits fill an integer.
MAX_PIXELS = 16
MAX_PREPARED_BYTES = 2 << 20
PREPARED_BYTES = 192 << 10
UNROLLED = (0, 2, 4, 8, 16)


@dataclass(frozen=True)
class Family(Generic[IsaT]):
    """What instruction sets of one architecture, all of one class, have in common.

    Parameters
    ----------
    products : dict of str to tuple of type
        Classes of the product by strategy: the first that applies is taken.
    sizes : dict of str to callable
        Vectors and pixels of a tile, by name of the product: a function of layer and `Isa`.
    works : callable
        Work of a layer by strategy: a function of layer and `Isa`.
    best : callable
        See `RuleSet`.
    pixels : callable
        Width of a tile, from that of the image and what registers hold.
    prepared_bytes : callable
        What prepared rows may take of a cache, or of memory where there is none: a function of
        layer and name of the product.
    weights_per_byte : callable
        How many weights share a byte under ``int8``: a function of layer and `Isa`.
    of_codes, depthwise : tuple of type
        Such classes for layers that read codes, and for depthwise ones.
    has_bytes : bool
        Whether codes may travel as bytes between layers of ``int8``.
    """

    products: Mapping[str, tuple[ProductClass[IsaT], ...]]
    sizes: Mapping[str, Callable[[ConvLayer, IsaT], tuple[int, int]]]
    works: Callable[[ConvLayer, IsaT], dict[str, Work]]
    best: Callable[[int, int, IsaT], dict[str, Work]]
    pixels: Callable[[int, int], int]
    prepared_bytes: Callable[[ConvLayer, str], int] = lambda *_: PREPARED_BYTES
    weights_per_byte: Callable[[ConvLayer, IsaT], int] = lambda *_: 1
    of_codes: tuple[ProductClass[IsaT], ...] = (Nchw,)
    depthwise: tuple[ProductClass[IsaT], ...] = (Depthwise,)
    has_bytes: bool = False

    def product_of(
        self, layer: ConvLayer, isa: IsaT
    ) -> tuple[ConvLayer, ProductClass[IsaT] | None]:
        """Class of the product for a layer's strategy, and the layer as it computes it."""
        return shared(layer, self.products.get(layer.strategy, ()), isa)


def first_that_applies(
    classes: Iterable[ProductClass[IsaT]], layer: ConvLayer, isa: IsaT
) -> ProductClass[IsaT] | None:
    """Return the first class of products that computes a layer, None where none does."""
    return next((found for found in classes if found.applies(layer, isa)), None)


def vector_rules(
    name: str,
    family: Family[IsaT],
    isa_of: Callable[[Target], IsaT | None],
    features: Iterable[str] = (),
) -> RuleSet:
    """Return the rule set of an instruction set.

    Parameters
    ----------
    name : str
    family : Family
    isa_of : callable
        What a target offers of the instruction set, None if it lacks it: then the rules decline.
    features : iterable of str
        See `RuleSet`.
    """

    def rule(kernel_of: Callable[..., Kernel | None]) -> Rule:
        def kernel(call: relax.Call, target: Target) -> Kernel | None:
            isa = isa_of(target)
            return None if isa is None else kernel_of(call, target, isa, family)

        return kernel

    def space_of(call: relax.Call, target: Target) -> Space | None:
        isa = isa_of(target)
        return None if isa is None else space(call, target, isa, family)

    def costs_of(layer: ConvLayer, target: Target) -> dict[str, float] | None:
        isa = isa_of(target)
        if isa is None:
            return None
        return costs(family.works(layer, isa), layer, target, family.weights_per_byte(layer, isa))

    rules = rule(conv2d), rule(branch_matmul), rule(packed_encode), rule(pack), rule(bytes_concat)
    return RuleSet(name, rules, space_of, costs_of, isa_of, family.best, frozenset(features))


def costs(
    works: Mapping[str, Work], layer: ConvLayer, target: Target, per_byte: int = 1
) -> dict[str, float]:
    """Cycles of a layer by strategy: its work on the target's core, and loading the weights.

    Every weight is loaded once: with few pixels that takes longest, and favours few bits. Under
    ``int8``, `per_byte` of them may share a byte; they are loaded behind products then.
    """
    codes, rate = layer.weight_codes.size, target.core.weight_bytes
    found = {}
    for strategy, work in works.items():
        loading = codes * (1 / per_byte if strategy == "int8" else layer.weight_bits / 8) / rate
        done = work.cycles(target.core)
        is_behind = strategy == "int8" and per_byte > 1
        found[strategy] = max(done, loading) if is_behind else done + loading
    return found


def conv2d(
    call: relax.Call, target: Target, isa: IsaT, family: Family[IsaT], tile: Tile | None = None
) -> Kernel | None:
    """Return the kernel of a packed convolution, None where it takes a more general rule."""
    if not is_call_to(call, packed_conv2d_op):
        return None
    layer, product_class = _seen(call, isa, family)
    if product_class is None:
        return None
    threads = threads_for(layer.macs, target)
    tile = tile or default_tile(layer, isa, threads, product_class, family)
    product = product_class(layer.distinct, isa, tile)
    if layer.geometry.groups > 1 and product.terms.has_act_sum:
        return None  # Sums of activations are made for all groups at once.
    epilogue = _epilogue(layer, product)
    if epilogue is None:
        return None
    batch = tirx.Var("batch", "int32")
    shapes = sizes_of(call.args[0].ty.shape, batch), sizes_of(call.ty.shape, batch)
    return conv2d_kernel(layer, product, epilogue, shapes, threads > 1)


def space(call: relax.Call, target: Target, isa: IsaT, family: Family[IsaT]) -> Space | None:
    """Return the tiles that the kernel of a packed convolution may have."""
    if not is_call_to(call, packed_conv2d_op):
        return None
    layer, product = _seen(call, isa, family)
    if product is None:
        return None
    threads, lanes = threads_for(layer.macs, target), product.lanes_of(layer.distinct, isa)
    default = default_tile(layer, isa, threads, product, family)
    groups, height = layer.geometry.groups, layer.output_size[0]

    def is_legal(tile: Tile) -> bool:
        block = tile.vectors * lanes
        blocks = groups * padded_blocks(layer.distinct, block)
        fits = tile.pixels * tile.vectors <= isa.registers and _fits_copies(layer, block)
        return fits and height % tile.rows == 0 and blocks % tile.splits == 0

    fewest = max(OCTET // lanes, 1)
    vectors = [v for v in (fewest * 2**i for i in range(4)) if v * lanes <= max(WORD, lanes)]
    row_bytes = _row_bytes(layer, isa, product)
    knobs: dict[str, Iterable[int]] = {
        "pixels": range(1, min(layer.output_size[1], MAX_PIXELS) + 1),
        "vectors": vectors,
        "rows": [r for r in divisors(height) if r * row_bytes <= MAX_PREPARED_BYTES] or [1],
        "splits": divisors(groups * padded_blocks(layer.distinct, fewest * lanes))
        if threads > 1 and not layer.channel_rows
        else [1],
        "unroll": UNROLLED,
    }
    values = {name: tuple(values) for name, values in knobs.items()}
    return Space(values, default, is_legal, partial(conv2d, call, target, isa, family))


def _seen(
    call: relax.Call, isa: IsaT, family: Family[IsaT]
) -> tuple[ConvLayer, ProductClass[IsaT] | None]:
    """Return a layer as its kernel sees it, and its product; None where no product applies."""
    layer = conv_layer_of(call)
    if not _bytes_fit(layer, isa, family):
        return layer, None
    if takes_codes(call) and not layer.reads_bytes:
        return shared(layer, family.of_codes, isa)
    if is_depthwise(layer):
        classes = family.depthwise if layer.strategy == "int8" else ()
        return seen_as_one_group(layer), first_that_applies(classes, layer, isa)
    layer, product_class = family.product_of(flattened(layer), isa)
    if product_class is None:
        return layer, None
    return _in_rows(layer, isa, product_class, family), product_class


def shared(
    layer: ConvLayer, classes: Iterable[ProductClass[IsaT]], isa: IsaT
) -> tuple[ConvLayer, ProductClass[IsaT] | None]:
    """Return the first class of products that computes a layer, and the layer as it does so.

    Of channels that share sums in order, as many do as leave whole blocks of them to compute.
    """
    if layer.channel_rows:
        found = first_that_applies(classes, layer.distinct, isa)
        layer = layer if found else layer.expanded
        return layer, found or first_that_applies(classes, layer, isa)
    for copies in reversed(divisors(layer.copies)):
        seen = layer.with_copies(copies)
        found = first_that_applies(classes, seen.distinct, isa)
        if found and _fits_copies(seen, max(found.lanes_of(seen.distinct, isa), OCTET)):
            return seen, found
    return layer.expanded, None


def _fits_copies(layer: ConvLayer, block: int) -> bool:
    """Whether no block has channels of two copies."""
    return layer.copies == 1 or len(layer.weight_codes) % block == 0


def _bytes_fit(layer: ConvLayer, isa: Isa, family: Family) -> bool:
    """Whether a layer can read, and write, codes as bytes where it is to."""
    if not layer.reads_bytes and not layer.writes_bytes:
        return True
    coefficients, steps = layer.geometry.act_coefficients, layer.thresholds
    reads = layer.strategy == "int8" and layer.geometry.is_product
    reads &= are_positional(coefficients)
    reads &= sum(coefficients) <= isa.most_code
    writes = steps is not None and len(steps) > MAX_COMPARED
    fits = (reads or not layer.reads_bytes) and (writes or not layer.writes_bytes)
    fits &= layer.geometry.groups == 1 or is_depthwise(layer)  # See `conv2d` and `_epilogue`.
    return family.has_bytes and isa.has_dot and fits


def _in_rows(
    layer: ConvLayer, isa: IsaT, product: ProductClass[IsaT], family: Family[IsaT]
) -> ConvLayer:
    """Divide a row of single taps that would take more than prepared rows may."""
    _, pixels = family.sizes[product.name](layer, isa)
    is_row = layer.kernel_size == (1, 1) and layer.input_shape[:2] == (1, 1)
    size, width = _row_bytes(layer, isa, product), layer.output_size[1]
    most = family.prepared_bytes(layer, product.name) * width // size
    if not is_row or most >= width or layer.has_dynamic_batch:
        return layer
    fitting = [d for d in divisors(width) if d <= max(most, pixels)]
    return in_rows(layer, fitting[-1]) if fitting[-1] >= pixels // 2 else layer


def _row_bytes(
    layer: ConvLayer, isa: IsaT, product: ProductClass[IsaT], rolls: bool = False
) -> int:
    """Size of a prepared input row, and of the sums of a row that channels read.

    Prepared rows that roll take turns in few places, however many there are.
    """
    kept = len(layer.weight_codes) * layer.output_size[1] * 4 if layer.channel_rows else 0
    return kept if rolls else product.row_bytes(layer, isa) + kept


def packed_encode(call: relax.Call, target: Target, isa: Isa, _family: Family) -> Kernel | None:
    """Return the kernel that encodes and packs a float image."""
    if not is_call_to(call, packed_encode_op):
        return None
    shape = call.args[0].ty.shape
    parallel = target.threads != 1 and math.prod(sizes_of(shape, 1)) >= MIN_PARALLEL_VALUES
    shape = sizes_of(shape, tirx.Var("batch", "int32"))
    thresholds = constant_value(call.args[1])
    return None if thresholds is None else encode_kernel(shape, thresholds, isa, parallel)


def pack(call: relax.Call, target: Target, isa: Isa, _family: Family) -> Kernel | None:
    """Return the kernel that packs codes."""
    if not is_call_to(call, pack_op) or int(call.attrs["groups"]) > 1:
        return None
    shape = call.args[0].ty.shape
    parallel = target.threads != 1 and math.prod(sizes_of(shape, 1)) >= MIN_PARALLEL_VALUES
    shape = sizes_of(shape, tirx.Var("batch", "int32"))
    return pack_kernel(shape, int(call.attrs["bits"]), isa, parallel)


def bytes_concat(call: relax.Call, target: Target, isa: Isa, _family: Family) -> Kernel | None:
    """Return the kernel that joins images in bytes."""
    if not is_call_to(call, bytes_concat_op):
        return None
    batch = tirx.Var("batch", "int32")
    shapes = [sizes_of(part.ty.shape, batch) for part in call.args]
    size = math.prod(sizes_of(call.ty.shape, 1))
    return concat_kernel(shapes, isa, target.threads != 1 and size >= MIN_PARALLEL_VALUES)


def _epilogue(layer: ConvLayer, product: Product) -> Epilogue | None:
    """Choose how sums end, None where no epilogue fits."""
    terms = product.terms.of_channels(layer)
    block = block_of(layer.out_channels) if layer.channel_rows else product.block
    if layer.steps:
        return Floats(layer, terms, block)
    if layer.thresholds is None:
        return Integers(layer, terms, block)
    if layer.geometry.groups > 1 and layer.out_channels // layer.geometry.groups % block:
        return None  # Bits of two groups would share an integer.
    steps = len(layer.thresholds)
    if steps > MAX_COMPARED or layer.writes_bytes:
        way = AffinePlanes if product.isa.has_floats else FixedPlanes
        affine = way.fit(layer, terms, block, product.isa)
        if affine is not None:
            return affine
    if layer.writes_bytes or not is_compared(layer.thresholds):
        if layer.code_steps and product.isa.has_floats:
            return ComputedPlanes(layer, terms, block, product.isa)
        return SearchedPlanes(layer, terms, block, product.isa)
    dtype = product.sum_dtype
    if layer.channel_rows:
        dtype = ChannelSums(layer, product, block).dtype
    return ComparedPlanes(layer, terms, block, dtype)


def default_tile(
    layer: ConvLayer,
    isa: IsaT,
    threads: int,
    product: ProductClass[IsaT],
    family: Family[IsaT],
) -> Tile:
    """Tile sizes that keep all sums in registers and prepared rows in the second-level cache."""
    vectors, pixels = family.sizes[product.name](layer, isa)
    lanes = product.lanes_of(layer.distinct, isa)
    per_group = len(layer.weight_codes) // layer.geometry.groups
    vectors = min(vectors, max(WORD // lanes, 1))
    while vectors * lanes > OCTET and vectors > 1 and _is_too_wide(per_group, vectors, lanes):
        vectors, pixels = vectors // 2, min(2 * pixels, MAX_PIXELS)  # As many registers.
    while not _fits_copies(layer, vectors * lanes):
        vectors //= 2
    pixels = family.pixels(layer.output_size[1], pixels)
    tasks = 1 if threads == 1 else threads * TASKS_PER_THREAD
    budget = family.prepared_bytes(layer, product.name)
    rolls = product(layer.distinct, isa, Tile(pixels, vectors, layer.output_size[0])).rolls
    rows = rows_at_once(layer, _row_bytes(layer, isa, product, rolls), budget, tasks)
    if layer.channel_rows:
        return Tile(pixels, vectors, rows)  # Every channel may read any sum of its pixel.
    done = layer.input_shape[0] * layer.output_size[0] // rows
    blocks = layer.geometry.groups * padded_blocks(layer.distinct, vectors * lanes)
    enough = [d for d in divisors(blocks) if d * done >= tasks] or [blocks]
    splits = next((d for d in enough if idle(d * done, threads) <= MAX_IDLE), enough[0])
    return Tile(pixels, vectors, rows, splits)


def _is_too_wide(channels: int, vectors: int, lanes: int) -> bool:
    """Whether half as many vectors would leave fewer lanes without a channel."""
    whole, half = vectors * lanes, vectors // 2 * lanes
    return half >= channels or (channels % whole > 0 and channels % half == 0)


def whole_tiles(width: int, most: int) -> int:
    """Tile width: a divisor of the image's width unless that is far below what registers hold."""
    best = max(p for p in range(1, min(most, width) + 1) if width % p == 0)
    return best if 2 * best > most or best == width else min(most, width)


def fewest_tiles(width: int, most: int) -> int:
    """Tile width: the least that takes no more tiles than the most."""
    tiles = -(-width // most)
    return -(-width // tiles)
