"""Codes of many bits where no affine function gives them: by the graph's own float arithmetic."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ...te.limited import limited
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import Expr, constant, load, vector
from .accumulators import Accumulators
from .affine import CodeWriter
from .step_constants import StepConstants


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
        self.steps = StepConstants(layer, layer.code_steps, block)
        self.writer = CodeWriter(layer, block, isa, are_limited=True)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps, then the highest codes."""
        highest = np.full(self.layer.out_channels, 2**self.layer.out_bits - 1, np.float32)
        highest = by_block(highest, self.layer, self.block)  # Lanes that are no channels give 0.
        return [*self.accumulators.constants, *self.steps.arrays, highest]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the planes of one pixel."""
        constants = tile.memory.epilogue_constants
        first_step = len(self.accumulators.constants)
        codes = []
        for part in self.accumulators.of(tile, p, sums):
            first = tile.block * self.block + part.first
            value = self.steps.apply(part.value, constants[first_step:-1], first, part.lanes)
            codes.append(self._limited(value, load(constants[-1], first, part.lanes), part.lanes))
        self.writer.write(tile, p, codes)

    def _limited(self, value: Expr, highest: Expr, lanes: int) -> Expr:
        """Codes, int32; a lane without a channel may hold any number, or none."""
        value = limited(value, constant(0, "float32", lanes), highest)
        return T.Bind(tirx.Cast(vector("int32", lanes), value))
