"""Codes of many bits: an affine function of the accumulator, rounded down and clipped."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..accumulator import Raw
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import constant, intrinsic, joined, load, reinterpret, vector
from ..transpose import planes_of_parts
from .affine_fit import fit_line
from .integers import Integers


class AffinePlanes(Integers):
    """Codes of more bits: a line, rounded down and clipped, where that gives them exactly.

    It does if it gives the right code at every threshold and just below it, for both rise.
    """

    out_dtype = "uint64"

    def __init__(self, layer: ConvLayer, raw: Raw, block: int, isa: Isa):
        super().__init__(layer, raw, block)
        self.isa, self.bits = isa, layer.out_bits
        self.line = fit_line(layer)

    @property
    def applies(self) -> bool:
        """Whether a line gives every code."""
        return self.line is not None

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then slope and intercept."""
        lines = [by_block(values, self.layer, self.block) for values in self.line]
        return [*super().constants, *lines]

    def finish(self, tile, p: int, parts: list) -> None:
        """Write the planes of one pixel."""
        codes = [
            (lanes, self._code(tile, tile.block * self.block + channel, lanes, acc))
            for channel, lanes, acc in self.accumulators(tile, p, parts)
        ]
        width, values = codes[0][0], [code for _, code in codes]
        whole = self.isa.vector_bytes // width
        if self.isa.transposes_bits and whole == 4 and len(values) % whole == 0:
            for i in range(0, len(values), whole):
                self._write_turned(tile, p, i * width, values[i : i + whole])
        else:
            self._write_bit_by_bit(tile, p, width, values)

    def _write_turned(self, tile, p: int, channel: int, values: list) -> None:
        """Write all planes of a word of channels."""
        planes = planes_of_parts(self.isa, values, self.bits)
        for bit in range(self.bits):
            plane = tirx.Shuffle([planes], [bit])
            tile.store_plane(p, bit, channel, WORD_BITS, plane)

    def _write_bit_by_bit(self, tile, p: int, width: int, values: list) -> None:
        """Compare with each bit, for as many channels as a word of a plane holds."""
        octets = [T.Bind(tirx.Cast(vector("uint8", width), self._clipped(v))) for v in values]
        together = min(WORD_BITS // width, len(octets))
        for i in range(0, len(octets), together):
            codes = T.Bind(joined("uint8", width, octets[i : i + together]))
            lanes = width * together
            for bit in range(self.bits):
                is_set = (codes & constant(1 << bit, "uint8", lanes)) != constant(0, "uint8", lanes)
                plane = reinterpret(f"uint{lanes}", is_set)
                tile.store_plane(p, bit, i * width, lanes, plane)

    def _code(self, tile, first, lanes: int, acc):
        """Codes of accumulators, int32, not clipped yet."""
        floats = vector(str(self.line[0].dtype), lanes)
        slope, intercept = (load(b, first, lanes) for b in tile.finishing[-2:])
        value = intrinsic(floats, "llvm.fma", tirx.Cast(floats, acc), slope, intercept)
        # Rounded towards 0, which differs from rounding down only for what is clipped anyway.
        return T.Bind(tirx.Cast(vector("int32", lanes), value))

    def _clipped(self, code):
        """Codes within their range, int32."""
        lanes = int(str(code.ty.dtype).partition("x")[2] or 1)
        code = tirx.max(code, constant(0, "int32", lanes))
        return tirx.min(code, constant(2**self.bits - 1, "int32", lanes))
