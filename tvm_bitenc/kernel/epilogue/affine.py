"""Codes of many bits: an affine function of the accumulator, rounded down and clipped."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ...te.intrinsic import intrinsic
from ..accumulator import AccumulatorTerms
from ..contract import Epilogue, Sums, TileContext
from ..isa import Isa
from ..nest.geometry import by_block
from ..tir import Expr, constant, joined, load, reinterpret, vector
from ..transpose import bytes_of_parts, planes_of_parts
from .accumulators import Accumulators, Channels
from .affine_fit import Affine, FixedAffine, fit_affine
from .channels_last import ChannelsLast
from .planes import PlaneStore

if TYPE_CHECKING:
    from typing_extensions import Self


PARTS = 4  # Vectors of int32 that a vector of bytes holds.
Fitted: TypeAlias = "Affine | FixedAffine"


class PlanesOfFit(Epilogue):
    """Codes where a function of two numbers a channel gives them exactly.

    It does if it gives the right code at every threshold and just below it, for both rise.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
    block : int
    isa : Isa
    fitted : Affine or FixedAffine
        See `fit`.
    """

    out_dtype = "uint64"
    fitted: Fitted

    def __init__(
        self, layer: ConvLayer, terms: AccumulatorTerms, block: int, isa: Isa, fitted: Fitted
    ):
        super().__init__(layer, terms, block)
        self.accumulators = Accumulators(layer, terms, block)
        self.fitted, self.writer = fitted, CodeWriter(layer, block, isa)
        self.out_dtype = self.writer.dtype

    @staticmethod
    @abstractmethod
    def find(layer: ConvLayer) -> Fitted | None:
        """Return the function of a layer, if there is one."""

    @classmethod
    def fit(cls, layer: ConvLayer, terms: AccumulatorTerms, block: int, isa: Isa) -> Self | None:
        """Return it for a layer, None where no such function gives every code."""
        fitted = cls.find(layer)
        return None if fitted is None else cls(layer, terms, block, isa, fitted)

    @property
    def constants(self) -> list[np.ndarray]:
        """Those of accumulators, then slope and intercept."""
        own = affine_constants(self.fitted, self.layer, self.block)
        return [*self.accumulators.constants, *own]

    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the planes of one pixel."""
        slope, intercept = tile.memory.epilogue_constants[-2:]
        codes = []
        for part in self.accumulators.of(tile, p, sums):
            first = tile.block * self.block + part.first
            codes.append(self.code(part.value, slope, intercept, first, part.lanes))
        self.writer.write(tile, p, codes)

    @abstractmethod
    def code(
        self, acc: Expr, slope: tirx.Buffer, intercept: tirx.Buffer, first: Expr, lanes: int
    ) -> Expr:
        """Function of a vector of accumulators: int32, not clipped yet."""


class AffinePlanes(PlanesOfFit):
    """Codes of more bits, by a multiplication and a sum of floats, rounded once."""

    @staticmethod
    def find(layer: ConvLayer) -> Affine | None:
        """Return the function of a layer, if there is one."""
        return fit_affine(layer)

    def code(
        self, acc: Expr, slope: tirx.Buffer, intercept: tirx.Buffer, first: Expr, lanes: int
    ) -> Expr:
        """Function of a vector of accumulators: int32, not clipped yet."""
        return rounded(acc, slope, intercept, first, lanes)


def affine_constants(
    affine: Affine | FixedAffine, layer: ConvLayer, block: int
) -> list[np.ndarray]:
    """Slope and intercept by block."""
    return [by_block(values, layer, block) for values in (affine.slope, affine.intercept)]


def rounded(acc: Expr, slope: tirx.Buffer, intercept: tirx.Buffer, first: Expr, lanes: int) -> Expr:
    """Affine function of a vector of accumulators: int32, rounded, not clipped yet.

    Rounded towards 0, which differs from rounding down only for what is clipped anyway.
    """
    floats = vector(str(slope.dtype), lanes)
    factors = (load(buffer, first, lanes) for buffer in (slope, intercept))
    value = intrinsic(floats, "llvm.fma", tirx.Cast(floats, acc), *factors)
    return T.Bind(tirx.Cast(vector("int32", lanes), value))


@dataclass(frozen=True, eq=False)
class CodeWriter:
    """Codes of a block, int32, to planes; or to bytes, if those who read them want bytes.

    Parameters
    ----------
    layer : ConvLayer
    block : int
    isa : Isa
    are_limited : bool
        Whether codes are within their range already.
    """

    layer: ConvLayer
    block: int
    isa: Isa
    are_limited: bool = False

    @property
    def dtype(self) -> str:
        """Type of the output."""
        return "uint8" if self.layer.writes_bytes else "uint64"

    def write(self, tile: TileContext, p: int, codes: list[Expr]) -> None:
        """Write the p-th pixel's codes, vectors of one width."""
        width = self.block // len(codes)
        fill_vectors = len(codes) == PARTS // 2 or len(codes) % PARTS == 0
        fill_vectors &= self.isa.vector_bytes == PARTS * width and self.isa.saturates
        if self.layer.writes_bytes:
            self._write_bytes(tile, p, width, codes, PARTS if fill_vectors else 1)
        elif self.isa.has_bit_matrices and fill_vectors:
            for i in range(0, len(codes), PARTS):
                self._write_transposed(tile, p, i * width, width, codes[i : i + PARTS])
        else:
            self._write_bit_by_bit(tile, p, width, codes)

    def _write_bytes(
        self, tile: TileContext, p: int, width: int, codes: list[Expr], together: int
    ) -> None:
        """Write a byte a code, of so many vectors at once."""
        output = ChannelsLast(self.layer, self.block, self.dtype)
        for i in range(0, len(codes), together):
            some = codes[i : i + together]
            lanes = len(some) * width
            if together == PARTS:
                octets = bytes_of_parts(self.isa, _filled(some, width), self.layer.out_bits)
            else:
                octets = self._octets(some[0], width)
            if lanes < together * width:
                octets = T.Bind(tirx.Shuffle([octets], list(range(lanes))))
            output.write(tile, p, Channels(i * width, lanes, octets))

    def _write_transposed(
        self, tile: TileContext, p: int, channel: int, width: int, codes: list[Expr]
    ) -> None:
        """Write all planes of a word of channels, or of half of one."""
        lanes = len(codes) * width
        planes = planes_of_parts(self.isa, _filled(codes, width), self.layer.out_bits)
        for bit in range(self.layer.out_bits):
            plane = tirx.Shuffle([planes], [bit])
            plane = plane if lanes == WORD_BITS else tirx.Cast(f"uint{lanes}", plane)
            self._output.put(tile, p, bit, channel, lanes, plane)

    def _write_bit_by_bit(self, tile: TileContext, p: int, width: int, codes: list[Expr]) -> None:
        """Compare with each bit, for as many channels as a word of a plane holds."""
        octets = [self._octets(code, width) for code in codes]
        together = min(WORD_BITS // width, len(octets))
        lanes = width * together
        for i in range(0, len(octets), together):
            whole = T.Bind(joined("uint8", width, octets[i : i + together]))
            for bit in range(self.layer.out_bits):
                is_set = (whole & constant(1 << bit, "uint8", lanes)) != constant(0, "uint8", lanes)
                plane = reinterpret(f"uint{lanes}", is_set)
                self._output.put(tile, p, bit, i * width, lanes, plane)

    def _octets(self, code: Expr, lanes: int) -> Expr:
        return T.Bind(tirx.Cast(vector("uint8", lanes), self._clipped(code, lanes)))

    def _clipped(self, code: Expr, lanes: int) -> Expr:
        """Codes within their range, int32."""
        if self.are_limited:
            return code
        code = tirx.max(code, constant(0, "int32", lanes))
        return tirx.min(code, constant(2**self.layer.out_bits - 1, "int32", lanes))

    @property
    def _output(self) -> PlaneStore:
        return PlaneStore(self.layer, self.block)


def _filled(parts: list[Expr], width: int) -> list[Expr]:
    """As many vectors as fill one of bytes; those that lack are 0."""
    return [*parts, *[constant(0, "int32", width)] * (PARTS - len(parts))]
