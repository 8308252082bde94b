"""Rules for any CPU that LLVM knows: nothing here names an instruction."""

from __future__ import annotations

import math
from typing import NamedTuple

from tvm import relax, s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from ..kernel.kernel import Kernel
from ..kernel.lookup import lookup_kernel
from ..layer import ConvLayer
from ..op.lookup import packed_lookup_op
from ..op.matmul import branch_matmul_op
from ..op.packed import (
    conv_layer_of,
    makes_bytes,
    packed_conv2d_op,
    takes_codes,
    tensor_inputs,
    unscheduled_compute,
)
from ..op.registration import constant_value, is_call_to
from ..target import Target
from ..te.function import prim_func, sizes_of
from ..te.int_matmul import LANES, ROWS
from ..te.layer_kernels import int8_kernel, lut_kernel, xnor_kernel
from ..te.threshold import MAX_COUNTED, search_stages
from .rule import RuleSet
from .work import Work

XNOR_LANES = 8  # Output channels side by side: 8 x 64 bits fill the widest vectors there are.
INT_LANES = 16  # The same in 32-bit accumulators.
MAX_ACCUMULATORS = 12  # Vectors that accumulate at once; more would leave the registers.
MIN_PARALLEL_WORK = 1 << 17  # Vector operations below which waking threads doesn't pay.


def conv2d_xnor(call: relax.Call, target: Target) -> Kernel | None:
    """Convolution by xor and popcount: output channels in lanes, some pixels at a time.

    For every block of lanes, the counts of all branches of a few neighbouring pixels stay in
    registers while the window and the words are walked; each weight vector is loaded once for all
    of those pixels.
    """
    layer = _layer(call, "xnor")
    if layer is None:
        return None
    lanes, branches = _lanes(layer, XNOR_LANES), layer.geometry.branch_count
    compute, constants = xnor_kernel(layer, lanes)
    schedule = s_tir.Schedule(prim_func(compute, [*tensor_inputs(call), *constants]))
    work = layer.macs // layer.weight_codes.shape[1] * layer.words * branches // lanes
    tile = _tile(schedule, layer, lanes, branches, _is_parallel(target, work))
    schedule.reorder(tile.block, tile.pixel, tile.lane)
    schedule.vectorize(tile.lane)
    _count_in_registers(schedule, tile.block)
    if layer.has_act_sum:
        schedule.compute_at(schedule.get_sblock("act_ones"), tile.column)
    return Kernel(schedule.mod["main"], constants)


def conv2d_int8(call: relax.Call, target: Target) -> Kernel | None:
    """Convolution by integer products: the same tiles, one product per tap instead of branches."""
    layer = _layer(call, "int8")
    if layer is None:
        return None
    lanes = _lanes(layer, INT_LANES)
    compute, constants = int8_kernel(layer)
    schedule = s_tir.Schedule(prim_func(compute, [*tensor_inputs(call), *constants]))
    parallel = _is_parallel(target, layer.macs // lanes)
    schedule.compute_inline(schedule.get_sblock("unpacked"))
    tile = _tile(schedule, layer, lanes, 1, parallel, reduction_loops=3)
    schedule.reorder(tile.block, *tile.reduction, tile.pixel, tile.lane)
    schedule.unroll(tile.pixel)
    schedule.vectorize(tile.lane)
    schedule.decompose_reduction(schedule.get_sblock("accumulator"), tile.reduction[0])
    return Kernel(schedule.mod["main"], constants)


def conv2d_lut(call: relax.Call, target: Target) -> Kernel | None:
    """Convolution by table look-up: output channels in lanes, gathered one by one."""
    layer = _layer(call, "lut")
    if layer is None:
        return None
    lanes = _lanes(layer, INT_LANES)
    compute, constants = lut_kernel(layer)
    schedule = s_tir.Schedule(prim_func(compute, [*tensor_inputs(call), *constants]))
    parallel = _is_parallel(target, layer.macs // lanes)
    schedule.compute_inline(schedule.get_sblock("unpacked"))
    tile = _tile(schedule, layer, lanes, 1, parallel)
    schedule.reorder(tile.block, tile.pixel, tile.lane)
    schedule.vectorize(tile.lane)
    schedule.compute_at(schedule.get_sblock("differing"), tile.column, preserve_unit_loops=True)
    if layer.has_act_sum:
        schedule.compute_at(schedule.get_sblock("act_ones"), tile.column)
    return Kernel(schedule.mod["main"], constants)


def matmul_int8(call: relax.Call, target: Target) -> Kernel | None:
    """Product of two matrices of codes: columns in lanes, some rows at a time in registers."""
    if not is_call_to(call, branch_matmul_op):
        return None
    compute, inputs = unscheduled_compute(call)
    schedule = s_tir.Schedule(prim_func(compute, inputs))
    sums = schedule.get_sblock("sums")
    written = schedule.cache_write(sums, 0, "global")  # Otherwise sums wouldn't stay in registers.
    batch, row, column, term = schedule.get_loops(sums)
    block, row = schedule.split(row, [None, ROWS])
    column, lane = schedule.split(column, [None, LANES])
    schedule.reorder(batch, block, column, term, row, lane)
    schedule.reverse_compute_at(written, column)
    schedule.vectorize(schedule.get_loops(written)[-1])
    schedule.vectorize(lane)
    schedule.unroll(row)
    work = math.prod(sizes_of(call.ty.shape, 1)) * int(call.args[0].ty.shape[2]) // LANES
    if _is_parallel(target, work):
        schedule.parallel(schedule.fuse(batch, block))
    schedule.decompose_reduction(sums, term)
    return Kernel(schedule.mod["main"], [])


def works(layer: ConvLayer) -> dict[str, Work]:
    """Work of a layer by strategy; of which kind an instruction is, LLVM decides.

    `xnor` takes an xor, a count and a sum in 8 lanes, `int8` a product and a sum in 16. Without a
    byte shuffle `lut` loads lane by lane. Where branches are no product, `int8` sees planes as
    channels.
    """
    window = layer.kernel_size[0] * layer.kernel_size[1]
    each = {
        "xnor": 3 / 8 * window * layer.words * layer.geometry.branch_count,
        "int8": 2 / 16 * layer.taps * (1 if layer.geometry.is_product else layer.act_bits + 1),
        "lut": layer.taps / 4 * layer.weight_bits,
    }
    outputs = layer.macs / layer.taps
    return {strategy: Work(other=count * outputs) for strategy, count in each.items()}


def costs(layer: ConvLayer, target: Target) -> dict[str, float]:
    """Cycles of a layer by strategy, as if weights were at hand."""
    return {strategy: work.cycles(target.core) for strategy, work in works(layer).items()}


def _layer(call: relax.Call, strategy: str) -> ConvLayer | None:
    if not is_call_to(call, packed_conv2d_op) or _has_codes(call):
        return None
    layer = conv_layer_of(call).expanded
    return layer if layer.strategy == strategy else None


def _has_codes(call: relax.Call) -> bool:
    """Whether codes come in or go out otherwise than as planes."""
    return takes_codes(call) or makes_bytes(call)


def _lanes(layer: ConvLayer, widest: int) -> int:
    """Most output channels side by side that divide those of a group."""
    return math.gcd(layer.out_channels // layer.geometry.groups, widest)


def _is_parallel(target: Target, work: int) -> bool:
    return target.threads != 1 and work >= MIN_PARALLEL_WORK


class _Tile(NamedTuple):
    """Loops of a tiled convolution, outermost first."""

    column: LoopRV  # Tiles of neighbouring pixels; the epilogue runs once for each.
    block: LoopRV  # Blocks of output channels.
    pixel: LoopRV
    lane: LoopRV
    reduction: list[LoopRV]


def _tile(
    schedule: s_tir.Schedule,
    layer: ConvLayer,
    lanes: int,
    accumulators: int,
    parallel: bool,
    reduction_loops: int = 0,
) -> _Tile:
    """Split a convolution into tiles of pixels and blocks of channels; thresholds follow each tile.

    Parameters
    ----------
    accumulators : int
        Vectors that each pixel keeps.
    reduction_loops : int
        How many loops of the block "accumulator" sum.
    """
    accumulator = schedule.get_sblock("accumulator")
    has_thresholds = layer.thresholds is not None
    final = accumulator
    if has_thresholds or layer.steps:
        final = schedule.get_sblock("packed" if has_thresholds else "float_steps")
    batch, row, column, *_ = schedule.get_loops(final)
    column, _ = schedule.split(column, [None, _pixels(layer, accumulators)])
    if parallel:  # Before any reduction is decomposed, which hides that rows are independent.
        schedule.parallel(schedule.fuse(batch, row))
    if has_thresholds:
        stages = _threshold_stages(layer)
        for stage in (*reversed(stages), "accumulator"):
            schedule.compute_at(schedule.get_sblock(stage), column, preserve_unit_loops=True)
        for stage in stages:
            _compare_in_lanes(schedule, schedule.get_sblock(stage), layer)
    if layer.steps:
        schedule.compute_at(accumulator, column, preserve_unit_loops=True)
    loops = schedule.get_loops(accumulator)
    pixel, channel, *reduction = loops[len(loops) - 2 - reduction_loops :]
    groups = layer.geometry.groups
    group, block, lane = schedule.split(
        channel, [groups, layer.out_channels // groups // lanes, lanes]
    )
    schedule.reorder(group, block, pixel)
    return _Tile(column, block, pixel, lane, reduction)


def _pixels(layer: ConvLayer, accumulators: int) -> int:
    """Neighbouring output pixels that share each weight vector: a divisor of the width."""
    width = layer.output_size[1]
    most = max(MAX_ACCUMULATORS // accumulators, 1)
    return max(pixels for pixels in range(1, min(most, width) + 1) if width % pixels == 0)


def _count_in_registers(schedule: s_tir.Schedule, block: LoopRV) -> None:
    """Count under `block`: the small buffer there is promoted to registers by LLVM."""
    accumulator, counts = schedule.get_sblock("accumulator"), schedule.get_sblock("differing")
    depth = len(schedule.get_loops(accumulator)) - 2  # Behind `block` are pixel and lane.
    schedule.compute_at(counts, block, preserve_unit_loops=True)
    *pixel_and_branch, lane, i, j, word = schedule.get_loops(counts)[depth:]
    schedule.reorder(i, j, word, *pixel_and_branch, lane)
    for loop in pixel_and_branch:
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.decompose_reduction(counts, i)


def _threshold_stages(layer: ConvLayer) -> list[str]:
    """Blocks of the threshold unit, in order."""
    is_counted = len(layer.threshold_unit[0]) <= MAX_COUNTED
    return [*([] if is_counted else search_stages(layer.out_bits)), "code"]


def _compare_in_lanes(schedule: s_tir.Schedule, stage: SBlockRV, layer: ConvLayer) -> None:
    """Put channels side by side; a stage that counts takes one threshold after another."""
    is_sum = schedule.get(stage).init is not None
    loops = schedule.get_loops(stage)
    channel, *step = loops[-2:] if is_sum else loops[-1:]
    channel, lane = schedule.split(channel, [None, math.gcd(layer.out_channels, INT_LANES)])
    schedule.reorder(channel, *step, lane)
    schedule.vectorize(lane)
    if is_sum:
        schedule.decompose_reduction(stage, step[0])


def lookup(call: relax.Call, target: Target) -> Kernel | None:
    """Codes by a table: bit operations on words."""
    if not is_call_to(call, packed_lookup_op):
        return None
    parallel = _is_parallel(target, math.prod(sizes_of(call.ty.shape, 1)))
    batch, table = tirx.Var("batch", "int32"), constant_value(call.args[-1])
    if table is None:
        return None
    shapes = [sizes_of(planes.ty.shape, batch) for planes in call.args[:-1]]
    bits, channels = int(call.attrs["bits"]), int(call.attrs["channels"])
    return lookup_kernel(shapes, table, bits, channels, parallel)


def data_parallel(call: relax.Call, target: Target) -> Kernel | None:
    """Everything else: the definition as it stands, rows of the image in parallel."""
    if is_call_to(call, packed_conv2d_op):
        return None
    compute, inputs = unscheduled_compute(call)
    schedule = s_tir.Schedule(prim_func(compute, inputs))
    if _is_parallel(target, math.prod(sizes_of(call.ty.shape, 1))):
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            batch, row, *_ = schedule.get_loops(block)
            schedule.parallel(schedule.fuse(batch, row))
    return Kernel(schedule.mod["main"], [])


RULES = RuleSet(
    "generic",
    (conv2d_xnor, conv2d_int8, conv2d_lut, matmul_int8, lookup, data_parallel),
    costs=costs,
)
