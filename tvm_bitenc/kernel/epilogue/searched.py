"""Codes of many bits where no affine function gives them: searched from one that is close."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..accumulator import Raw
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import constant, load, store
from .affine import AffinePlanes
from .affine_fit import line_below
from .integers import Integers


class SearchedPlanes(AffinePlanes):
    """Codes of many bits where no line gives them: a line, then binary search from there.

    The thresholds of real layers lie beside a line, for the float function that they stand for
    rounds. So the line is wrong by one at most, and one comparison is left.
    """

    def __init__(self, layer: ConvLayer, raw: Raw, block: int, isa: Isa):
        Integers.__init__(self, layer, raw, block)
        self.isa, self.bits = isa, layer.out_bits
        *self.line, self.rounds = line_below(layer)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators; thresholds by channel, and directions; slope and intercept."""
        thresholds = by_block(self.layer.thresholds, self.layer, self.block).T
        direction = by_block(self.layer.direction, self.layer, self.block)
        real = by_block(np.ones(self.layer.out_channels, np.uint8), self.layer, self.block)
        thresholds = np.where(real[:, None] == 1, thresholds, np.iinfo(np.int32).max)
        steps = [np.ascontiguousarray(thresholds.astype(np.int32)), direction.astype(np.int32)]
        lines = [by_block(values, self.layer, self.block) for values in self.line]
        return [*Integers.constants.fget(self), *steps, *lines]

    def _code(self, tile, first, lanes: int, acc):
        """Search lane by lane: no vector instruction looks up so many thresholds."""
        thresholds, direction = tile.finishing[-4:-2]
        steps, span = 2**self.bits - 1, 2**self.rounds - 1
        along, codes = (T.alloc_buffer((lanes,), "int32") for _ in range(2))
        start = tirx.max(super()._code(tile, first, lanes, acc), constant(0, "int32", lanes))
        store(along, acc * load(direction, first, lanes), 0, lanes)
        store(codes, tirx.min(start, constant(steps - span, "int32", lanes)), 0, lanes)
        with T.serial(0, lanes) as lane:
            for bit in reversed(range(self.rounds)):
                place = (first + lane) * steps + codes[lane] + ((1 << bit) - 1)
                reached = tirx.Cast("int32", along[lane] >= thresholds[place])
                T.buffer_store(codes, codes[lane] + reached * (1 << bit), [lane])
        return load(codes, 0, lanes)
