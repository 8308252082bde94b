"""What is tuned: the distinct layers of a module, and the candidates of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import tvm
from tvm import relax, tirx

from ..encoding import WORD_BITS
from ..errors import BitencError
from ..kernel.nest.tile import Tile
from ..layer import ConvLayer
from ..op.packed import conv_layer_of, packed_conv2d_op, takes_codes, tensor_inputs
from ..op.registration import is_call_to, with_attributes
from ..records.file import Records
from ..records.workload import target_key, tvm_version, workload_of
from ..schedule import Kernel, Space, find_kernel, find_space, strategy_costs
from ..strategy import ALL_STRATEGIES, BY_RULES
from ..target import Target
from ..transform.pipeline import Pipeline
from ..transform.rewrite import Graph
from ..transform.visit import visit_calls

Candidate = tuple[str, Tile]  # Strategy and tile.
DEFAULT: Candidate = (BY_RULES, Tile(0, 0))  # What the rules choose: always the first trial.


@dataclass(eq=False)
class Task:
    """A layer to tune.

    Parameters
    ----------
    name : str
        Of the first layer of this kind.
    workload : str
        See `workload.workload_of`.
    target : Target
    default_call : relax.Call
        With the strategy of the cost model.
    calls : dict of str to relax.Call
        The same layer by strategy.
    spaces : dict of str to Space
        Tiles by strategy.
    count : int
        How many layers of the module are of this kind.
    """

    name: str
    workload: str
    target: Target
    default_call: relax.Call
    calls: Mapping[str, relax.Call]
    spaces: Mapping[str, Space]
    count: int = 1
    _kernels: dict[Candidate, Kernel | None] = field(default_factory=dict)

    @cached_property
    def layer(self) -> ConvLayer:
        """The layer, with the default strategy."""
        return conv_layer_of(self.default_call)

    @property
    def default_strategy(self) -> str:  # noqa: D102
        return str(self.default_call.attrs["strategy"])

    @cached_property
    def costs(self) -> dict[str, float]:
        """What the cost model thinks of each strategy, the best being 1."""
        costs = strategy_costs(self.layer, self.target)
        best = min(costs.values(), default=1.0)
        return {name: cost / best for name, cost in costs.items()}

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Every strategy and tile, the default first."""
        found = [DEFAULT]
        for strategy, space in self.spaces.items():
            for values in itertools.product(*space.knobs.values()):
                tile = Tile(**dict(zip(space.knobs, values)))
                if space.is_legal(tile):
                    found.append((strategy, tile))
        return found

    def kernel(self, candidate: Candidate) -> Kernel | None:
        """Make the kernel of a candidate; None where its rule declines."""
        if candidate not in self._kernels:
            self._kernels.clear()  # Only the last one: weights are large.
            self._kernels[candidate] = self._make(candidate)
        return self._kernels[candidate]

    def _make(self, candidate: Candidate) -> Kernel | None:
        strategy, tile = candidate
        if candidate == DEFAULT:
            return find_kernel(self.default_call, self.target)
        try:
            return self.spaces[strategy].kernel(tile)
        except BitencError:
            return None

    @property
    def keys(self) -> dict[str, str]:
        """What every line about this task says."""
        return {
            "workload": self.workload,
            "target": target_key(self.target),
            "tvm": tvm_version(),
        }

    @property
    def channels(self) -> int:
        """Channels of each group as the input's planes have them."""
        (shape, dtype), per_group = self.shapes[0], self.layer.weight_codes.shape[1]
        words = -(-per_group // WORD_BITS) * self.layer.geometry.groups
        has_groups = dtype == "uint64" and shape[-1] == words
        return per_group if has_groups else per_group * self.layer.geometry.groups

    @property
    def shapes(self) -> list[tuple[tuple[int, ...], str]]:
        """Shapes and dtypes of the inputs, then of the output; a dynamic batch is 1."""
        types = [expr.ty for expr in (*tensor_inputs(self.default_call), self.default_call)]
        return [(_sizes(ty.shape), str(ty.dtype)) for ty in types]


def _sizes(shape: Sequence[tirx.Expr]) -> tuple[int, ...]:
    return tuple(int(size) if isinstance(size, tvm.tirx.IntImm) else 1 for size in shape)


def tasks_of(
    mod: tvm.IRModule, target: Target, pipeline: Callable[..., Pipeline], strategy: str = "auto"
) -> list[Task]:
    """Find the distinct convolutions of a module that have something to tune.

    Parameters
    ----------
    mod : tvm.IRModule
        As for `tvm_bitenc.build`.
    target : Target
    pipeline : callable
        As for `tvm_bitenc.build`.
    strategy : str
        Of the default.
    """
    found: dict[str, Task] = {}

    def collect(call: relax.Call, graph: Graph) -> None:
        if not is_call_to(call, packed_conv2d_op):
            return
        workload = workload_of(call, target)
        if workload in found:
            found[workload].count += 1
            return
        default = graph.typed(call)
        own = str(call.attrs["strategy"])
        names = (own,) if takes_codes(call) else ALL_STRATEGIES
        calls = {name: graph.typed(with_attributes(call, strategy=name)) for name in names}
        found_spaces = ((name, find_space(call, target)) for name, call in calls.items())
        spaces = {name: space for name, space in found_spaces if space is not None}
        if spaces:
            name = str(call.attrs["layer"]) or f"layer {len(found) + 1}"
            found[workload] = Task(name, workload, target, default, calls, spaces)

    visit_calls(pipeline(target, strategy, Records()).until("bitenc.Schedule").run(mod), collect)
    return list(found.values())


def distance(task: Task, candidate: Candidate) -> float:
    """How far a candidate is from the default tile of its strategy, and that from the best."""
    if candidate == DEFAULT:
        return 0.0
    strategy, tile = candidate
    default = task.spaces[strategy].default
    steps = abs(math.log2(tile.pixels / default.pixels))
    steps += abs(math.log2(tile.vectors / default.vectors))
    steps += abs(math.log2(tile.rows / default.rows)) / 2
    steps += abs(math.log2(tile.splits / default.splits))
    steps += (tile.unroll != default.unroll) / 2
    return steps + 4 * math.log2(task.costs.get(strategy, 1.0))
