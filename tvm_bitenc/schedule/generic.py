"""Rules for any CPU that LLVM knows: nothing here names an instruction."""

from __future__ import annotations

import math

from tvm import relax, s_tir

from ..op.packed import (
    conv_layer_of,
    packed_conv2d_op,
    unscheduled_compute,
    xnor_compute,
    xnor_constants,
)
from ..op.registration import is_call_to
from ..target import Target
from ..te.conv_layer import ConvLayer
from .rule import Kernel, prim_func, schedule_rule

MAX_LANES = 8  # Output channels side by side: 8 x 64 bits fill the widest vectors there are.
MAX_ACCUMULATORS = 12  # Vectors of counts that live at once; more would leave the registers.
MIN_PARALLEL_WORK = 1 << 17  # Word operations below which waking threads costs more than it saves.


@schedule_rule("generic")
def conv2d_xnor(call: relax.Call, target: Target) -> Kernel | None:
    """Convolution by xor and popcount: output channels in lanes, some pixels at a time.

    For every block of lanes, the counts of all branches of a few neighbouring pixels stay in
    registers while the window and the words are walked; each weight vector is loaded once for all
    of those pixels.
    """
    if not is_call_to(call, packed_conv2d_op):
        return None
    layer = conv_layer_of(call)
    if layer.strategy != "xnor":
        return None
    lanes = math.gcd(layer.out_channels // layer.geometry.groups, MAX_LANES)
    constants = xnor_constants(layer, lanes)
    schedule = s_tir.Schedule(prim_func(xnor_compute(layer), [call.args[0], *constants]))
    parallel = target.threads != 1 and _word_operations(layer, lanes) >= MIN_PARALLEL_WORK
    _schedule_xnor(schedule, layer, lanes, parallel)
    return Kernel(schedule.mod["main"], constants)


def _word_operations(layer: ConvLayer, lanes: int) -> int:
    branches = layer.weight_bits * layer.act_bits
    per_word = layer.weight_codes.shape[1] / layer.words
    return int(layer.macs * branches / (per_word * lanes))


def _schedule_xnor(schedule: s_tir.Schedule, layer: ConvLayer, lanes: int, parallel: bool) -> None:
    accumulator = schedule.get_sblock("accumulator")
    final = accumulator if layer.thresholds is None else schedule.get_sblock("packed")
    batch, row, column, *_ = schedule.get_loops(final)
    column, _ = schedule.split(column, [None, _pixels_at_once(layer)])
    if parallel:  # Before any reduction is decomposed, which hides that rows are independent.
        schedule.parallel(schedule.fuse(batch, row))
    if layer.thresholds is not None:
        for stage in ("code", "accumulator"):
            schedule.compute_at(schedule.get_sblock(stage), column, preserve_unit_loops=True)
        _schedule_thresholds(schedule, lanes)
    # After compute_at the pixels of the tile are the accumulator's last loop but one.
    *_, pixel, channel = schedule.get_loops(accumulator)
    groups = layer.geometry.groups
    blocks = layer.out_channels // groups // lanes
    group, block, lane = schedule.split(channel, [groups, blocks, lanes])
    schedule.reorder(group, block, pixel, lane)
    schedule.vectorize(lane)
    _schedule_counts(schedule, block, depth=len(schedule.get_loops(accumulator)) - 2)
    if layer.has_act_sum:
        schedule.compute_at(schedule.get_sblock("act_ones"), column)


def _pixels_at_once(layer: ConvLayer) -> int:
    """Neighbouring output pixels that share each weight vector: a divisor of the width."""
    branches = layer.weight_bits * layer.act_bits
    width = layer.output_size[1]
    fitting = [
        n for n in range(1, width + 1) if width % n == 0 and n * branches <= MAX_ACCUMULATORS
    ]
    return max(fitting, default=1)


def _schedule_counts(schedule: s_tir.Schedule, block, depth: int) -> None:
    """Count under `block`, the loop at `depth`: its small buffer is promoted to registers."""
    counts = schedule.get_sblock("differing")
    schedule.compute_at(counts, block, preserve_unit_loops=True)
    *pixel_branch, lane, i, j, word = schedule.get_loops(counts)[depth:]
    schedule.reorder(i, j, word, *pixel_branch, lane)
    for loop in pixel_branch:
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.decompose_reduction(counts, i)


def _schedule_thresholds(schedule: s_tir.Schedule, lanes: int) -> None:
    """Compare a vector of channels with one threshold after another."""
    code = schedule.get_sblock("code")
    *_, channel, step = schedule.get_loops(code)
    channel, lane = schedule.split(channel, [None, lanes])
    schedule.reorder(channel, step, lane)
    schedule.vectorize(lane)
    schedule.decompose_reduction(code, step)


@schedule_rule("generic")
def data_parallel(call: relax.Call, target: Target) -> Kernel | None:
    """Everything else: the definition as it stands, rows of the image in parallel."""
    compute, inputs = unscheduled_compute(call)
    schedule = s_tir.Schedule(prim_func(compute, inputs))
    work = math.prod(int(size) for size in call.ty.shape)
    if target.threads != 1 and work >= MIN_PARALLEL_WORK:
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            batch, row, *_ = schedule.get_loops(block)
            schedule.parallel(schedule.fuse(batch, row))
    return Kernel(schedule.mod["main"], [])
