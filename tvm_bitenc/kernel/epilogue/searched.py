"""Codes of many bits where no affine function gives them: searched from one that is close."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import Expr, constant, load, store
from .accumulators import Accumulators, Channels
from .affine import CodeWriter, affine_constants, rounded
from .affine_fit import affine_below


class SearchedPlanes(Epilogue):
    """Codes of many bits: an affine function, then binary search from there.

    The thresholds of real layers lie beside a line, for the float function that they stand for
    rounds. So the function is wrong by one at most, and one comparison is left.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    isa : Isa
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, terms: AccumulatorTerms, block: int, isa: Isa):
        super().__init__(layer, terms, block)
        self.accumulators = Accumulators(layer, terms, block)
        self.affine, self.rounds = affine_below(layer)
        self.writer = CodeWriter(layer, block, isa)
        self.out_dtype = self.writer.dtype

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators; thresholds by channel, and directions; slope and intercept."""
        thresholds, direction = (
            by_block(values, self.layer, self.block) for values in self.layer.threshold_unit
        )
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real[:, None] == 1, thresholds.T, np.iinfo(np.int32).max)
        steps = [np.ascontiguousarray(thresholds.astype(np.int32)), direction.astype(np.int32)]
        affine = affine_constants(self.affine, self.layer, self.block)
        return [*self.accumulators.constants, *steps, *affine]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the planes of one pixel."""
        parts = self.accumulators.of(tile, p, sums)
        self.writer.write(tile, p, [self._searched(tile, part) for part in parts])

    def _searched(self, tile: TileContext, part: Channels) -> Expr:
        """Search lane by lane: no vector instruction looks up so many thresholds."""
        thresholds, direction, slope, intercept = tile.memory.epilogue_constants[-4:]
        first, lanes = tile.block * self.block + part.first, part.lanes
        steps, span = 2**self.layer.out_bits - 1, 2**self.rounds - 1
        along, codes = (T.alloc_buffer((lanes,), "int32") for _ in range(2))
        start = rounded(part.value, slope, intercept, first, lanes)
        start = tirx.max(start, constant(0, "int32", lanes))
        store(along, part.value * load(direction, first, lanes), 0, lanes)
        store(codes, tirx.min(start, constant(steps - span, "int32", lanes)), 0, lanes)
        with T.serial(0, lanes) as lane:
            for bit in reversed(range(self.rounds)):
                place = (first + lane) * steps + codes[lane] + ((1 << bit) - 1)
                reached = tirx.Cast("int32", along[lane] >= thresholds[place])
                T.buffer_store(codes, codes[lane] + reached * (1 << bit), [lane])
        return load(codes, 0, lanes)
