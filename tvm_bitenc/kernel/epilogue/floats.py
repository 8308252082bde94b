"""Accumulators through float arithmetic, float32."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import RESIDUAL
from ...te.float_steps import apply_step
from ..nest.geometry import by_block
from ..tir import load, vector
from .integers import Integers


class Floats(Integers):
    """Accumulators through float arithmetic, float32 NHWC; a residual may be added on the way."""

    out_dtype = "float32"

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then those of the steps."""
        steps = [value for step in self.layer.steps for value in step.constants]
        padded = [by_block(value, self.layer, self.block).astype(np.float32) for value in steps]
        return [*super().constants, *padded]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the results of one pixel."""
        for channel, lanes, acc in self.accumulators(tile, p, parts):
            first, floats = tile.block * self.block + channel, vector("float32", lanes)
            left = iter(tile.finishing[-sum(len(s.constants) for s in self.layer.steps) or None :])
            value = acc
            for step in self.layer.steps:
                own = [load(next(left), first, lanes) for _ in step.constants]
                added = None
                if step.name == RESIDUAL:
                    added = self._read(tile, p, channel, lanes)
                value = T.Bind(apply_step(step.name, value, own, floats, added))
            self._write(tile, p, channel, lanes, value)

    def _read(self, tile, p: int, channel: int, lanes: int):
        """Load the residual of a vector of channels."""
        start, first, per_group = self._place(tile, p, channel)
        if per_group % self.block == 0:
            return load(tile.residual, start, lanes)
        gathered = T.alloc_buffer((lanes,), self.out_dtype)
        with T.serial(0, lanes) as lane, T.If(first + lane < per_group):
            with T.Then():
                T.buffer_store(gathered, tile.residual[start + lane], [lane])
            with T.Else():
                T.buffer_store(gathered, tirx.const(0, self.out_dtype), [lane])
        return load(gathered, 0, lanes)
