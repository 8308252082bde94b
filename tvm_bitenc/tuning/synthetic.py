"""Layers made from the text of a workload alone: as fast as the real ones, with random weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax, tirx

from ..codewords import any_codes
from ..encoding import WORD_BITS
from ..layer import RESIDUAL, STEP_CONSTANTS
from ..op.branch import geometry_attributes
from ..op.packed import BYTES, conv_layer_of, packed_conv2d_op
from ..op.registration import make_call, with_attributes
from ..records.workload import Workload, parse_workload
from ..schedule import find_space, strategy_costs
from ..strategy import ALL_STRATEGIES
from ..target import Target
from .task import Task


def task_of(text: str, target: Target) -> Task | None:
    """Return a task with random weights; None if this target has nothing to tune in it.

    Parameters
    ----------
    text : str
        Of a workload.
    target : Target
    """
    workload = parse_workload(text)
    threads = None if workload.threads == "pool" else int(workload.threads)
    target = replace(target, threads=threads)
    names = ALL_STRATEGIES if workload.source == "planes" else ("int8",)
    plain = call_of(workload)
    calls = {name: _typed(with_attributes(plain, strategy=name)) for name in names}
    costs = strategy_costs(conv_layer_of(plain), target)
    default = min(
        (name for name in names if name in costs), key=costs.__getitem__, default=names[0]
    )
    found_spaces = ((name, find_space(call, target)) for name, call in calls.items())
    spaces = {name: space for name, space in found_spaces if space is not None}
    if not spaces:
        return None
    return Task(text.split(" from=")[0], text, target, calls[default], calls, spaces)


def call_of(workload: Workload) -> relax.Call:
    """Return a call to `packed_conv2d` with random weights and no strategy."""
    rng, geometry = np.random.default_rng(0), workload.geometry
    bits = len(geometry.weight_coefficients)
    distinct = workload.distinct
    shape = (distinct, workload.channels // geometry.groups, *workload.kernel)
    weights = any_codes(shape, bits, workload.codewords, rng)
    offset = np.full(distinct, int(workload.has_weight_offset), np.int32)
    batch = tirx.Var("n", "int64") if workload.batch == "n" else int(workload.batch)
    arguments = [relax.Var("source", _source_type(workload, batch))]
    if RESIDUAL in workload.steps:
        sizes = ((workload.height, workload.kernel[0]), (workload.width, workload.kernel[1]))
        outer = [geometry.out_size(size, kernel, i) for i, (size, kernel) in enumerate(sizes)]
        ty = relax.TensorType([batch, *outer, workload.out_channels], "float32")
        arguments.append(relax.Var("residual", ty))
    arguments += [relax.const(weights, "uint8"), relax.const(offset, "int32")]
    arguments += _ending(workload, weights, rng)
    attributes = geometry_attributes(geometry)
    if workload.source == BYTES:
        attributes["source"] = BYTES
    if workload.ending.startswith("B"):
        attributes["ending"] = BYTES
    if workload.copies > 1:
        attributes["copies"] = workload.copies
    if workload.weight_rows:
        attributes["channel_rows"] = _channel_rows(workload, rng)
    return make_call(
        packed_conv2d_op, arguments, **attributes, layer="", strategy="", steps=workload.steps
    )


def _channel_rows(workload: Workload, rng: np.random.Generator) -> list[int]:
    """Each row of the weights once at least, and about half of the channels negated."""
    rows = np.arange(workload.out_channels) % workload.weight_rows
    rows = rng.permutation(np.where(rng.integers(0, 2, len(rows)) > 0, rows, ~rows))
    return rows.tolist()


def _source_type(workload: Workload, batch: int | tirx.Var) -> relax.TensorType:
    height, width, channels = workload.height, workload.width, workload.channels
    if workload.source == "codes":
        return relax.TensorType([batch, channels, height, width], "uint8")
    if workload.source == BYTES:
        return relax.TensorType([batch, height, width, channels], "uint8")
    groups, bits = workload.geometry.groups, len(workload.geometry.act_coefficients)
    per_group = channels // groups
    is_packed_whole = per_group % WORD_BITS != 0  # As depthwise layers are.
    words = -(-channels // WORD_BITS) if is_packed_whole else groups * -(-per_group // WORD_BITS)
    return relax.TensorType([batch, height, width, bits, words], "uint64")


def _ending(workload: Workload, weights: np.ndarray, rng: np.random.Generator) -> list:
    """Constants of thresholds in even steps around the middle, or of float steps."""
    channels = workload.out_channels
    if workload.out_bits:
        taps = weights[0].size
        spread = int(taps**0.5) * sum(workload.geometry.weight_coefficients)
        steps = np.linspace(-spread, spread, 2**workload.out_bits - 1).astype(np.int32)
        thresholds = np.repeat(steps[:, None], channels, axis=1)
        direction = rng.choice(np.array([-1, 1], np.int32), channels)
        thresholds = np.where(direction > 0, thresholds, thresholds[::-1])
        return [relax.const(thresholds, "int32"), relax.const(direction, "int32")]
    return [
        relax.const(rng.standard_normal(channels).astype(np.float32), "float32")
        for step in workload.steps
        for _ in range(STEP_CONSTANTS[step])
    ]


def _typed(call: relax.Call) -> relax.Call:
    return relax.BlockBuilder().normalize(call)
