"""Accumulators through float arithmetic, float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from .accumulators import Accumulators, Channels
from .channels_last import ChannelsLast
from .step_constants import StepConstants


class Floats(Epilogue):
    """Accumulators through float arithmetic, float32 NHWC; a residual may be added on the way.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    """

    out_dtype = "float32"

    def __init__(self, layer: ConvLayer, terms: AccumulatorTerms, block: int):
        super().__init__(layer, terms, block)
        self.accumulators = Accumulators(layer, terms, block)
        self.steps = StepConstants(layer, layer.steps, block)
        self.output = ChannelsLast(layer, block, self.out_dtype)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps."""
        return [*self.accumulators.constants, *self.steps.arrays]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the results of one pixel."""
        for part in self.accumulators.of(tile, p, sums):
            self.output.write(tile, p, self._through_steps(tile, p, part))

    def _through_steps(self, tile: TileContext, p: int, part: Channels) -> Channels:
        first = tile.block * self.block + part.first
        arrays = tile.memory.epilogue_constants[len(self.accumulators.constants) :]
        residual = None
        if tile.memory.residual is not None:
            residual = self.output.read(tile.memory.residual, tile, p, part)
        value = self.steps.apply(part.value, arrays, first, part.lanes, residual)
        return replace(part, value=value)
