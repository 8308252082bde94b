"""Sums become accumulators: what every epilogue that needs them holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import AccumulatorTerms
from ..contract import Sums, TileContext
from ..nest.geometry import by_block
from ..tir import Expr, constant, joined, load, splat, vector

INT32_LANES = 16


@dataclass(frozen=True)
class Channels:
    """A vector of values of neighbouring output channels.

    Parameters
    ----------
    first : int
        The first one's number in its block.
    lanes : int
    value : expression
    """

    first: int
    lanes: int
    value: Expr


@dataclass(frozen=True, eq=False)
class Accumulators:
    """How the sums of a block become accumulators, int32.

    Its constants are the first ones of the epilogue that holds it.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    """

    layer: ConvLayer
    terms: AccumulatorTerms
    block: int

    @cached_property
    def constants(self) -> list[np.ndarray]:
        """Constant part by border class; the factors of U; those of sums, where they differ."""
        factors = [self.terms.act_factor] if self.terms.has_act_sum else []
        if self.terms.inverted is not None:
            factors.append(self.terms.factor_by_channel)
        return [
            by_block(values, self.layer, self.block).astype(np.int32)
            for values in (self.terms.constant, *factors)
        ]

    def of(self, tile: TileContext, p: int, sums: Sums) -> list[Channels]:
        """Accumulators of the p-th pixel, all channels of the block."""
        found, constants = [], tile.memory.epilogue_constants
        for part in as_int32(sums, self.block):
            padded = tile.blocks * self.block
            first = tile.block * self.block + part.first
            acc = part.value * self._factor(tile, first, part.lanes)
            acc = acc + load(constants[0], tile.border_class(p) * padded + first, part.lanes)
            if self.terms.has_act_sum:
                acc = acc + self._act_term(tile, p, first, part.lanes)
            found.append(Channels(part.first, part.lanes, T.Bind(acc)))
        return found

    def _factor(self, tile: TileContext, first: Expr, lanes: int) -> Expr:
        """f of every channel."""
        if self.terms.inverted is None:
            return constant(self.terms.factor, "int32", lanes)
        return load(tile.memory.epilogue_constants[len(self.constants) - 1], first, lanes)

    def _act_term(self, tile: TileContext, p: int, first: Expr, lanes: int) -> Expr:
        """Factors of U times U; one product for all channels where their factors agree."""
        factors = np.unique(self.terms.act_factor)
        if len(factors) == 1:
            return splat(T.Bind(tile.act_sum(p) * int(factors[0])), lanes)
        return load(tile.memory.epilogue_constants[1], first, lanes) * splat(tile.act_sum(p), lanes)


def as_int32(sums: Sums, block: int) -> list[Channels]:
    """Convert sums to int32, and join short vectors to such of up to 16 lanes."""
    lanes, dtype = block // len(sums), str(sums[0].ty.dtype).partition("x")[0]
    join = max(min(INT32_LANES // lanes, len(sums)), 1)
    join = 1 << (join.bit_length() - 1)
    while len(sums) % join:
        join //= 2
    found = []
    for i in range(0, len(sums), join):
        value = joined(dtype, lanes, sums[i : i + join])
        if dtype != "int32":
            value = tirx.Cast(vector("int32", lanes * join), value)
        found.append(Channels(i * lanes, lanes * join, T.Bind(value)))
    return found
