"""Accumulators as they are, int32."""

from __future__ import annotations

import numpy as np

from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from .accumulators import Accumulators
from .channels_last import ChannelsLast


class Integers(Epilogue):
    """Accumulators as they are, int32 NHWC.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    """

    out_dtype = "int32"

    def __init__(self, layer: ConvLayer, terms: AccumulatorTerms, block: int):
        super().__init__(layer, terms, block)
        self.accumulators = Accumulators(layer, terms, block)
        self.output = ChannelsLast(layer, block, self.out_dtype)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators."""
        return self.accumulators.constants

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the accumulators of one pixel."""
        for part in self.accumulators.of(tile, p, sums):
            self.output.write(tile, p, part)
