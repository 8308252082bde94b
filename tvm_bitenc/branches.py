"""The branches of a convolution: which planes meet, with which coefficients, under which window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Matrix = tuple[tuple[int, ...], ...]  # Rows of integers.


@dataclass(frozen=True, eq=False)
class BranchGeometry:
    r"""Planes and window of a quantized convolution.

    Its accumulator is a sum over the taps inside the image, of planes c of -1 and +1,

    .. math:: \sum_{m,k} G_{mk} c_m c_k + o_w \sum_k \kappa_k c_k
              + o_a \sum_m \kappa_m c_m + o_a o_w

    which is the product of the integers of two encodings where :math:`G_{mk} = \kappa_m \kappa_k`.

    Parameters
    ----------
    act_coefficients, weight_coefficients : tuple of int
        Coefficient of each plane, lowest plane first; their number is the number of bits.
    act_offset : int
        o of the activations' integers v + o.
    strides, dilation : (height, width)
    padding : (top, left, bottom, right)
    groups : int
    branches : tuple of tuple of int, optional
        The branch matrix G, a row for each weight plane; branches of coefficient 0 aren't computed.
        None for products of coefficients: a layer of two encodings.
    """

    act_coefficients: tuple[int, ...]
    weight_coefficients: tuple[int, ...]
    act_offset: int
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    branches: Matrix | None = None

    @property
    def is_product(self) -> bool:
        """Whether a tap is the product of an integer of the weights and one of the activations."""
        return self.branches is None

    @property
    def branch_matrix(self) -> Matrix:
        """Coefficient of every branch: a row for each weight plane."""
        if self.branches is None:
            return outer(self.weight_coefficients, self.act_coefficients)
        return self.branches

    @property
    def branch_sum(self) -> int:
        """Sum of the coefficients of all branches."""
        return sum(map(sum, self.branch_matrix))

    @property
    def branch_count(self) -> int:
        """How many branches are computed."""
        return sum(factor != 0 for row in self.branch_matrix for factor in row)

    @property
    def has_negative_branches(self) -> bool:
        """Whether some branch is subtracted."""
        return min(map(min, self.branch_matrix)) < 0

    @property
    def table_rows(self) -> tuple[Matrix, tuple[tuple[int, int], ...]]:
        """Distinct rows of the branch matrix, and for each weight plane its row and a factor.

        Rows are told apart up to factors: those of a product are one. A row of zeros is none; such
        planes have the factor 0.
        """
        if self.branches is None:
            return (self.act_coefficients,), tuple((0, kappa) for kappa in self.weight_coefficients)
        divisors = [math.gcd(*row) for row in self.branches]
        reduced = [tuple(x // (d or 1) for x in row) for row, d in zip(self.branches, divisors)]
        rows = list(dict.fromkeys(row for row, d in zip(reduced, divisors) if d))
        numbers = [rows.index(row) if d else 0 for row, d in zip(reduced, divisors)]
        return tuple(rows), tuple(zip(numbers, divisors))

    def out_size(self, size: int, kernel: int, axis: int) -> int:
        """Output height (axis 0) or width (axis 1)."""
        window = self.dilation[axis] * (kernel - 1) + 1
        padded = size + self.padding[axis] + self.padding[axis + 2]
        return (padded - window) // self.strides[axis] + 1


def outer(weights: Iterable[int], acts: Sequence[int]) -> Matrix:
    """Branch matrix of two tensors' coefficients."""
    return tuple(tuple(weight * act for act in acts) for weight in weights)


def weighted_planes(codes: np.ndarray, coefficients: Sequence[int]) -> np.ndarray:
    """Sum of the planes of codes, each times its coefficient: int32, shaped like the codes."""
    bits = len(coefficients)
    signs = 2 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1
    return (signs @ np.array(coefficients)).astype(np.int32)[codes]


def plane_integers(
    weight_codes: np.ndarray, weight_offset: np.ndarray, geometry: BranchGeometry
) -> np.ndarray:
    """What each tap multiplies the planes of its activation by, and what it adds to that.

    Returns
    -------
    ndarray of int32, shape (act_bits + 1, *weight_codes.shape)
        For every activation plane sum over m of G_mk c_m, and o_w kappa_k; then o_a (v_w + o_w).
    """
    offset = weight_offset.reshape(-1, *[1] * (weight_codes.ndim - 1))
    columns = [*zip(*geometry.branch_matrix), geometry.weight_coefficients]
    sums = [weighted_planes(weight_codes, column) for column in columns]
    factors = [*(kappa * offset for kappa in geometry.act_coefficients), offset]
    sums = [total + factor for total, factor in zip(sums, factors)]
    return np.stack([*sums[:-1], geometry.act_offset * sums[-1]]).astype(np.int32)


def accumulator_range(
    weight_codes: np.ndarray, weight_offset: np.ndarray, geometry: BranchGeometry
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the reachable accumulators, int64, one per output channel.

    Parameters
    ----------
    weight_codes : ndarray of uint8, shape (out_channels, ...)
    weight_offset : ndarray of int32, shape (out_channels,)
    geometry : BranchGeometry
    """
    codes = weight_codes.reshape(len(weight_codes), -1)
    # A padded tap counts 0.
    if not geometry.is_product:
        *of_planes, own = plane_integers(codes, weight_offset, geometry).astype(np.int64)
        reach = np.abs(of_planes).sum(axis=0)
        return np.minimum(own - reach, 0).sum(axis=1), np.maximum(own + reach, 0).sum(axis=1)
    top = sum(geometry.act_coefficients)
    integers = weighted_planes(codes, geometry.weight_coefficients) + weight_offset[:, None]
    low, high = min(geometry.act_offset - top, 0), max(geometry.act_offset + top, 0)
    positive = np.maximum(integers, 0).sum(axis=1, dtype=np.int64)
    negative = integers.sum(axis=1, dtype=np.int64) - positive
    return positive * low + negative * high, positive * high + negative * low
