"""Codes of many bits where no affine function gives them: by the graph's own float arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import are_powers_of_two
from ...layer import ConvLayer, FloatStep
from ...te.float_steps import ROUNDINGS
from ...te.intrinsic import intrinsic
from ...te.limited import limited
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import Expr, constant, load, vector
from .accumulators import Accumulators
from .affine import CodeWriter
from .step_constants import StepConstants

MAX_INT = 2.0**30
ROUNDING = 2.0**-20  # More than what a step may add by rounding.
TINY = 1e-30


class ComputedPlanes(Epilogue):
    """Codes by the operations that thresholds stand for, one by one, in float32.

    Each rounds as the graph's does, so no threshold is missed, however close to an accumulator.

    Parameters
    ----------
    layer : ConvLayer
        With `code_steps`.
    terms : AccumulatorTerms
    block : int
    isa : Isa
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, terms: AccumulatorTerms, block: int, isa: Isa):
        super().__init__(layer, terms, block)
        self.accumulators = Accumulators(layer, terms, block)
        steps = with_joined_factors(layer.code_steps)
        self.saturates = isa.saturates and self._may_saturate(steps)
        self.rounds = self.saturates and steps[-1].name == "round"
        self.steps = StepConstants(layer, steps[: -1 if self.rounds else None], block)
        self.writer = CodeWriter(layer, block, isa, are_limited=not self.saturates)
        self.out_dtype = self.writer.dtype

    def _may_saturate(self, steps: tuple[FloatStep, ...]) -> bool:
        """Whether codes fit int32, and lanes without a channel may hold any number."""
        has_channels = self.layer.out_channels // self.layer.geometry.groups % self.block == 0
        low, high = self.layer.accumulator_range
        largest = largest_value(steps, max(abs(int(low.min())), abs(int(high.max()))))
        return (has_channels or self.layer.writes_bytes) and largest < MAX_INT

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps, then the highest codes."""
        highest = np.full(self.layer.out_channels, 2**self.layer.out_bits - 1, np.float32)
        highest = by_block(highest, self.layer, self.block)  # Lanes that are no channels give 0.
        limits = [] if self.saturates else [highest]
        return [*self.accumulators.constants, *self.steps.arrays, *limits]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the codes of one pixel."""
        constants = tile.memory.epilogue_constants
        first_step = len(self.accumulators.constants)
        codes = []
        for part in self.accumulators.of(tile, p, sums):
            first = tile.block * self.block + part.first
            value = self.steps.apply(part.value, constants[first_step:], first, part.lanes)
            if not self.saturates:
                value = self._limited(value, load(constants[-1], first, part.lanes), part.lanes)
            codes.append(self._as_integers(value, part.lanes))
        self.writer.write(tile, p, codes)

    def _limited(self, value: Expr, highest: Expr, lanes: int) -> Expr:
        """Codes within their range; a lane without a channel may hold any number, or none."""
        return limited(value, constant(0, "float32", lanes), highest)

    def _as_integers(self, value: Expr, lanes: int) -> Expr:
        dtype = vector("int32", lanes)
        if self.rounds:  # In one instruction, half to even as the step itself.
            return T.Bind(intrinsic(dtype, "llvm.lrint", value))
        return T.Bind(tirx.Cast(dtype, value))


def with_joined_factors(steps: tuple[FloatStep, ...]) -> tuple[FloatStep, ...]:
    """Let a factor take in a division by a power of two behind it: both round to the same number.

    They don't where the quotient is so small that it has fewer digits, which is all the same if
    nothing but a sum and rounding to the nearest integer follow.
    """
    names = [step.name for step in steps]
    for i, (first, second) in enumerate(pairwise(steps)):
        is_product = (first.name, second.name) == ("multiply", "divide")
        if is_product and set(names[i + 2 :]) <= {"add", "round"} and names[-1] == "round":
            (factor,), (divisor,) = first.constants, second.constants
            joined = factor / divisor
            if are_powers_of_two(divisor) and np.all(joined * divisor == factor):
                return (*steps[:i], FloatStep("multiply", (joined,)), *steps[i + 2 :])
    return steps


def largest_value(steps: Sequence[FloatStep], largest: float) -> float:
    """Upper bound of what steps make of numbers of this magnitude; infinity if it isn't known."""
    for step in steps:
        sizes = [float(np.abs(value).max()) for value in step.constants]
        if step.name in ("multiply", "multiply_add"):
            largest = largest * sizes[0] + sum(sizes[1:])
        elif step.name == "divide":
            largest = largest / float(np.abs(step.constants[0]).min() or TINY)
        elif step.name == "add":
            largest += sizes[0]
        elif step.name == "prelu":
            largest *= max(sizes[0], 1)
        elif step.name not in (*ROUNDINGS, "astype", "clip", "maximum", "minimum"):
            return np.inf
        else:
            largest = max([largest, *sizes])
        largest = largest * (1 + ROUNDING) + 1
    return largest if np.isfinite(largest) else np.inf
