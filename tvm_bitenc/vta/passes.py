r"""Which pairs of planes the accelerator meets, in which order: Horner's rule.

A pass adds how much one activation plane differs from one weight plane; before a pass all that was
summed may be doubled. So branches whose coefficients are powers of two need no multiplier. Where
no branch has some power of two, one of the next higher is split:

.. math:: 2^e = 2^{e-1} + \dots + 2^{t+1} + 2^t + 2^t

A branch that is subtracted takes the weight plane with all bits inverted, which differs where the
plane itself doesn't. Number m + M stands for the inverted plane m of M.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..layer import ConvLayer


@dataclass(frozen=True)
class Branch:
    """A pair of planes.

    Parameters
    ----------
    exponent : int
        Its coefficient is this power of two.
    weight, act : int
        Numbers of the planes.
    """

    exponent: int
    weight: int
    act: int


def is_power_of_two(value: int) -> bool:
    """Whether a coefficient is a power of two."""
    return value > 0 and value & (value - 1) == 0


def exponent_of(coefficient: int) -> int:
    """Exponent of a power of two, of either sign."""
    return abs(coefficient).bit_length() - 1


def planes_of(layer: ConvLayer) -> list[int]:
    """Weight planes that the branches of a layer take."""
    bits = layer.weight_bits
    return sorted({branch.weight for branch in _branches(layer, range(2 * bits))})


def passes_of(
    layer: ConvLayer, weight_planes: Sequence[int] | None = None
) -> list[tuple[int, int, bool, bool]]:
    """(weight plane, activation plane, shift first, count ones), highest coefficient first.

    The ones of an activation plane are counted in the first pass that has its own coefficient.

    Parameters
    ----------
    layer : ConvLayer
        All coefficients of its branches are powers of two, or such negated.
    weight_planes : sequence of int, optional
        Those that are computed, by default all.
    """
    planes = range(2 * layer.weight_bits) if weight_planes is None else weight_planes
    branches = sorted(without_gaps(_branches(layer, planes)), key=lambda branch: -branch.exponent)
    passes, counted, before = [], set[int](), branches[0].exponent
    for branch in branches:
        is_own = 1 << branch.exponent == layer.geometry.act_coefficients[branch.act]
        counts_ones = is_own and branch.act not in counted
        counted |= {branch.act} if counts_ones else set()
        passes.append((branch.weight, branch.act, branch.exponent < before, counts_ones))
        before = branch.exponent
    return passes


def _branches(layer: ConvLayer, planes: Iterable[int]) -> list[Branch]:
    matrix, bits = layer.geometry.branch_matrix, layer.weight_bits
    return [
        Branch(exponent_of(factor), plane, k)
        for plane in planes
        for k, factor in enumerate(matrix[plane % bits])
        if factor and (factor < 0) == (plane >= bits)
    ]


def without_gaps(branches: Iterable[Branch]) -> list[Branch]:
    """Branches of the same sum, with some of every power of two up to the highest."""
    found, filled = list(branches), -1  # Of all powers up to there are some.
    while higher := [branch for branch in found if branch.exponent > filled]:
        lowest = min(higher, key=lambda branch: branch.exponent)
        if lowest.exponent == filled + 1:
            filled += 1
            continue
        end = max(filled, 0)
        found.remove(lowest)
        found += [replace(lowest, exponent=e) for e in (*range(end, lowest.exponent), end)]
        filled = lowest.exponent - 1
    return found
