"""Codes of few bits: sums are compared with every threshold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ...te.threshold import codes_reached, planes_of_reached
from ..accumulator import AccumulatorTerms, thresholds_of
from ..contract import Epilogue, Sums, TileContext
from ..nest.geometry import by_block
from ..tir import Expr, constant, load, reinterpret, splat
from .accumulators import Channels, as_int32
from .planes import PlaneStore

MAX_COMPARED_AT_ALL = 7  # Thresholds, where no affine function gives the codes.
MAX_THERMOMETER = 8  # Planes of one: each is a comparison.


class ComparedPlanes(Epilogue):
    """Codes of few bits: compare with every threshold, in terms of the sums themselves.

    A code counts the thresholds that are reached; they rise, so one of its bits is the parity of
    those reached among the ones where it changes. Equal thresholds are compared once.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    dtype : str
        Type of the sums.
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, terms: AccumulatorTerms, block: int, dtype: str):
        super().__init__(layer, terms, block)
        self.codes, self.output = codes_reached(layer.threshold_unit[0]), PlaneStore(layer, block)
        self.steps = len(self.codes)
        self.dtype = "int32" if terms.has_act_sum else dtype
        self.negated = terms.has_act_sum and terms.inverted is not None
        if terms.has_act_sum:
            found = thresholds_of(layer, terms, 1, -(2**31), 2**31 - 2)
        else:
            found = thresholds_of(layer, terms, terms.factor_by_channel, terms.low, terms.high)
        thresholds, self.flip = found
        # Where sums fall as codes rise, thresholds count if they aren't reached: not in reverse.
        along = np.where(self.flip, thresholds[:, :, ::-1], thresholds)
        self.thresholds = along[:, :, self.codes - 1]

    @property
    def constants(self) -> list[np.ndarray]:
        """Thresholds, the inverted channels in bits, the factors of U, and those of sums."""
        thresholds = by_block(self.thresholds, self.layer, self.block)
        # Lanes that are no channels must give code 0.
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real == 1, thresholds, np.iinfo(self.dtype).max)
        flip = by_block(self.flip.astype(np.uint8), self.layer, self.block)
        found = [thresholds.astype(self.dtype), np.packbits(flip, bitorder="little")]
        factors = [self.terms.act_factor] if self.terms.has_act_sum else []
        if self.negated:
            factors.append(self.terms.factor_by_channel)
        blocks = (by_block(values, self.layer, self.block) for values in factors)
        return [*found, *(values.astype(np.int32) for values in blocks)]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the planes of one pixel."""
        lanes = self.block // len(sums)
        parts = [Channels(i * lanes, lanes, value) for i, value in enumerate(sums)]
        if self.dtype == "int32":
            parts = as_int32(sums, self.block)
        if self.terms.has_act_sum:
            parts = [self._with_act_sum(tile, p, part) for part in parts]
        for part in parts:
            self._write(tile, p, part, self._reached(tile, p, part))

    def _with_act_sum(self, tile: TileContext, p: int, part: Channels) -> Channels:
        first = tile.block * self.block + part.first
        factor = load(tile.memory.epilogue_constants[2], first, part.lanes)
        of_sums = constant(self.terms.factor, "int32", part.lanes)
        if self.negated:
            of_sums = load(tile.memory.epilogue_constants[3], first, part.lanes)
        total = part.value * of_sums
        return replace(part, value=T.Bind(total + factor * splat(tile.act_sum(p), part.lanes)))

    def _reached(self, tile: TileContext, p: int, part: Channels) -> list[Expr]:
        """Channels that reach each distinct threshold, as bits of one integer."""
        size, first = tile.blocks * self.block, tile.block * self.block + part.first
        thresholds, found = tile.memory.epilogue_constants[0], []
        for step in range(self.steps):
            start = (tile.border_class(p) * self.steps + step) * size + first
            is_reached = part.value >= load(thresholds, start, part.lanes)
            found.append(T.Bind(reinterpret(f"uint{part.lanes}", is_reached)))
        return found

    def _write(self, tile: TileContext, p: int, part: Channels, reached: list[Expr]) -> None:
        flipped, lanes = None, part.lanes
        if self.flip.any():
            flips = tile.memory.epilogue_views[1][f"uint{lanes}"]
            flipped = T.Bind(flips[(tile.block * self.block + part.first) // lanes])
        for bit, plane in enumerate(planes_of_reached(reached, self.codes.tolist())):
            if flipped is not None:
                plane = plane ^ flipped
            self.output.put(tile, p, bit, part.first, lanes, plane)


def is_compared(thresholds: np.ndarray) -> bool:
    """Whether there are few enough thresholds to compare with all that differ."""
    are_few = len(thresholds) <= MAX_COMPARED_AT_ALL
    return are_few or len(codes_reached(thresholds)) <= MAX_THERMOMETER
