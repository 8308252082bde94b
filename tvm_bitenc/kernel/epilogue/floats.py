"""Accumulators through float arithmetic, float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.tirx.script import builder as T

from ...layer import RESIDUAL, ConvLayer
from ...te.float_steps import apply_step
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from ..nest.geometry import by_block
from ..tir import load, vector
from .accumulators import Accumulators, Channels
from .channels_last import ChannelsLast


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
        self.output = ChannelsLast(layer, block, self.out_dtype)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps."""
        steps = [value for step in self.layer.steps for value in step.constants]
        padded = [by_block(value, self.layer, self.block).astype(np.float32) for value in steps]
        return [*self.accumulators.constants, *padded]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the results of one pixel."""
        for part in self.accumulators.of(tile, p, sums):
            self.output.write(tile, p, self._through_steps(tile, p, part))

    def _through_steps(self, tile: TileContext, p: int, part: Channels) -> Channels:
        first, dtype = tile.block * self.block + part.first, vector("float32", part.lanes)
        left = iter(tile.memory.epilogue_constants[len(self.accumulators.constants) :])
        value = part.value
        for step in self.layer.steps:
            own = [load(next(left), first, part.lanes) for _ in step.constants]
            added = None
            if step.name == RESIDUAL:
                assert tile.memory.residual is not None
                added = self.output.read(tile.memory.residual, tile, p, part)
            value = T.Bind(apply_step(step.name, value, own, dtype, added))
        return replace(part, value=value)
