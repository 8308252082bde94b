"""Codes of many bits by integers alone, for CPUs to which floats are foreign or slow."""

from __future__ import annotations

from tvm import tirx
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..tir import Expr, constant, load, vector
from .affine import PlanesOfFit
from .affine_fit import FixedAffine, fit_fixed


class FixedPlanes(PlanesOfFit):
    """Codes by a multiplication, a sum and a shift of 64 bits, which rounds down."""

    fitted: FixedAffine

    @staticmethod
    def find(layer: ConvLayer) -> FixedAffine | None:
        """Return the function of a layer, if there is one."""
        return fit_fixed(layer)

    def code(
        self, acc: Expr, slope: tirx.Buffer, intercept: tirx.Buffer, first: Expr, lanes: int
    ) -> Expr:
        """Function of a vector of accumulators: int32, not clipped yet."""
        wide = vector("int64", lanes)
        factor, start = (load(buffer, first, lanes) for buffer in (slope, intercept))
        value = tirx.Cast(wide, acc) * tirx.Cast(wide, factor) + start
        value = value >> constant(self.fitted.shift, "int64", lanes)
        return T.Bind(tirx.Cast(vector("int32", lanes), value))
