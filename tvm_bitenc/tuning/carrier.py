"""Candidates as MetaSchedule knows them: schedules with sampled decisions.

The workload is the plain definition of the layer. The strategy's name annotates its root block, and
so does each knob, a sampled categorical decision; the builder reads the annotations and writes the
kernel, so that a trace in MetaSchedule's database says all that is needed to make it again::

    b0 = sch.get_sblock("root")
    sch.annotate(b0, "bitenc.strategy", "xnor")
    v1 = sch.sample_categorical([1, 2, 3, 4], probs, decision=3)
    sch.annotate(b0, "bitenc.pixels", v1)
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache

import tvm
from tvm import s_tir, te, tirx

from ..kernel.nest.tile import Tile
from .task import DEFAULT, Candidate, Task

PREFIX = "bitenc."
KNOBS = tuple(f.name for f in fields(Tile))


@lru_cache(maxsize=256)
def workload_module(task: Task) -> tvm.IRModule:
    """MetaSchedule's workload: the definition's loops over outputs and taps, named by its key.

    It stands for the layer where MetaSchedule hashes it and counts its work, and never runs.
    """
    layer = task.layer
    (batch, height, width, _), outputs = layer.input_shape, layer.output_size
    per_group = layer.out_channels // layer.geometry.groups
    codes = te.placeholder((batch, height, width, layer.weight_codes.shape[1]), "int32", "codes")
    weights = te.placeholder(layer.expanded.weight_codes.shape, "int32", "weights")
    taps = [te.reduce_axis((0, n)) for n in (layer.weight_codes.shape[1], *layer.kernel_size)]
    strides, dilation = layer.geometry.strides, layer.geometry.dilation

    def accumulator(n: tirx.Var, y: tirx.Var, x: tirx.Var, o: tirx.Var) -> tirx.Expr:
        c, i, j = taps
        row, column = y * strides[0] + i * dilation[0], x * strides[1] + j * dilation[1]
        value = codes[n, tvm.tirx.min(row, height - 1), tvm.tirx.min(column, width - 1), c]
        return te.sum(value * weights[o, c, i, j], axis=taps)

    shape = (batch, *outputs, per_group * layer.geometry.groups)
    function = te.create_prim_func([codes, weights, te.compute(shape, accumulator, "accumulator")])
    function = function.with_attr("global_symbol", "main")
    return tvm.IRModule({"main": function.with_attr(PREFIX + "workload", task.workload)})


def schedule_of(task: Task, candidate: Candidate) -> s_tir.Schedule:
    """Return a schedule whose decisions name a candidate."""
    schedule = s_tir.Schedule(workload_module(task))
    root = schedule.get_sblock("root")
    strategy, tile = candidate
    schedule.annotate(root, PREFIX + "strategy", strategy)
    knobs = {} if candidate == DEFAULT else task.spaces[strategy].knobs
    for name, choices in knobs.items():
        values, value = list(choices), getattr(tile, name)
        even = [1 / len(values)] * len(values)
        chosen = schedule.sample_categorical(values, even, decision=values.index(value))
        schedule.annotate(root, PREFIX + name, chosen)
    return schedule


def candidate_of(mod: tvm.IRModule) -> Candidate:
    """Read the candidate off a scheduled workload."""
    marks = mod["main"].body.block.annotations
    strategy = str(marks[PREFIX + "strategy"])
    if strategy == DEFAULT[0]:
        return DEFAULT
    return strategy, Tile(**{name: int(marks[PREFIX + name]) for name in KNOBS})


def workload_key(mod: tvm.IRModule) -> str:
    """Read the key off a workload."""
    return str(mod["main"].attrs[PREFIX + "workload"])
