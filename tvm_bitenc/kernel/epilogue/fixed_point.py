"""Codes of many bits by integers alone, for CPUs to which floats are foreign or slow."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import Expr, constant, load, vector
from .accumulators import Accumulators, Channels
from .affine import CodeWriter
from .affine_fit import FixedAffine, fit_fixed


class FixedPlanes(Epilogue):
    """Codes where a multiplication, a sum and a shift of 64 bits give them exactly.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    isa : Isa
    affine : FixedAffine
        See `fit`.
    """

    out_dtype = "uint64"

    def __init__(
        self, layer: ConvLayer, terms: AccumulatorTerms, block: int, isa: Isa, affine: FixedAffine
    ):
        super().__init__(layer, terms, block)
        self.accumulators = Accumulators(layer, terms, block)
        self.affine, self.writer = affine, CodeWriter(layer, block, isa)

    @classmethod
    def fit(
        cls, layer: ConvLayer, terms: AccumulatorTerms, block: int, isa: Isa
    ) -> FixedPlanes | None:
        """Return it for a layer, None where no such function gives every code."""
        affine = fit_fixed(layer)
        return None if affine is None else cls(layer, terms, block, isa, affine)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then slope and intercept."""
        own = (self.affine.slope, self.affine.intercept)
        padded = [by_block(values, self.layer, self.block) for values in own]
        return [*self.accumulators.constants, *padded]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the planes of one pixel."""
        codes = [self._code(tile, part) for part in self.accumulators.of(tile, p, sums)]
        self.writer.write(tile, p, codes)

    def _code(self, tile: TileContext, part: Channels) -> Expr:
        """Affine function of a vector of accumulators: int32, rounded down, not clipped yet."""
        wide, first = vector("int64", part.lanes), tile.block * self.block + part.first
        slope, intercept = (
            load(buffer, first, part.lanes) for buffer in tile.memory.epilogue_constants[-2:]
        )
        value = tirx.Cast(wide, part.value) * tirx.Cast(wide, slope) + intercept
        value = value >> constant(self.affine.shift, "int64", part.lanes)
        return T.Bind(tirx.Cast(vector("int32", part.lanes), value))
