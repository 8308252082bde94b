"""Steps of float arithmetic over vectors of channels, and where their constants lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import RESIDUAL, ConvLayer, FloatStep
from ...te.float_steps import apply_step
from ..nest.geometry import by_block
from ..tir import Expr, constant, load, vector


@dataclass(frozen=True, eq=False)
class StepConstants:
    """Float steps of a layer's channels.

    Parameters
    ----------
    layer : ConvLayer
    steps : sequence of FloatStep
    block : int
    """

    layer: ConvLayer
    steps: Sequence[FloatStep]
    block: int

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """Constants that differ between channels, in order; the others stand in the code."""
        return [
            by_block(value, self.layer, self.block).astype(np.float32)
            for step in self.steps
            for value in step.constants
            if _number(value) is None
        ]

    def apply(
        self,
        value: Expr,
        arrays: Sequence[tirx.Buffer],
        first: Expr,
        lanes: int,
        residual: Expr | None = None,
    ) -> Expr:
        """Take a vector of accumulators through all steps.

        Parameters
        ----------
        value : Expr of int32
        arrays : sequence of tirx.Buffer
            Where `arrays` are.
        first : Expr
            Number of the first channel, as `by_block` counts them.
        lanes : int
        residual : Expr of float32, optional
            What the step of this name adds.
        """
        dtype, left = vector("float32", lanes), iter(arrays)
        for step in self.steps:
            numbers = map(_number, step.constants)
            own = [
                load(next(left), first, lanes) if n is None else constant(n, "float32", lanes)
                for n in numbers
            ]
            added = residual if step.name == RESIDUAL else None
            value = T.Bind(apply_step(step.name, value, own, dtype, added))
        return value


def _number(values: np.ndarray) -> float | None:
    """Return what all channels share, None if they differ or it isn't finite."""
    first = float(values[0])
    return first if np.isfinite(first) and np.all(values == first) else None
