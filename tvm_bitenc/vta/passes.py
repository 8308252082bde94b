r"""Which pairs of planes the accelerator meets, in which order: Horner's rule.

A pass adds how much one activation plane differs from one weight plane; before a pass all that was
summed may be doubled. So branches whose coefficients are powers of two need no multiplier. Where
no branch has some power of two, one of the next higher is split:

.. math:: 2^e = 2^{e-1} + \dots + 2^{t+1} + 2^t + 2^t

A branch that is subtracted takes the weight plane with all bits inverted, which differs where the
plane itself doesn't. Number m + M stands for the inverted plane m of M.

Where the activation planes of a pixel lie side by side in its words, a pass is a run of
neighbouring planes: those of the same power of two, each with a weight plane of its own. So a plane
that fills half of a word leaves no half of it idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..encoding import WORD_BITS
from ..layer import ConvLayer
from .isa import NIBBLE_BITS


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


@dataclass(frozen=True)
class Pass:
    """Neighbouring activation planes, each with the weight plane that it meets.

    Parameters
    ----------
    act : int
        The first activation plane.
    weights : tuple of int
        Weight planes that meet activation planes `act`, `act` + 1, and so on.
    shift : bool
        Whether all that was summed is doubled first.
    ones : bool
        Whether the ones of these activation planes are counted.
    """

    act: int
    weights: tuple[int, ...]
    shift: bool
    ones: bool

    @property
    def acts(self) -> range:
        """Its activation planes."""
        return range(self.act, self.act + len(self.weights))


@dataclass(frozen=True)
class Span:
    """Where a pass lies in the rows of a pixel.

    Parameters
    ----------
    row : int
        The first one that it reads.
    upper : int
        Of two words of 32 bits in a row: 1 begins with the second one.
    words : int
        Of DK bits, how many it reads.
    first, last : int
        The first nibble of the first word, and the last one of the last word, that count.
    weights : tuple of (int, int)
        Each weight plane, and the bit of these words that its first channel meets.
    """

    row: int
    upper: int
    words: int
    first: int
    last: int
    weights: tuple[tuple[int, int], ...]

    @property
    def weights_alone(self) -> Span:
        """The same wherever it begins: spans with equal weights are equal then."""
        return replace(self, row=0, upper=0)


@dataclass(frozen=True)
class PlaneLayout:
    """Where the activation planes of a pixel lie in its words, and in rows of the buffer.

    Parameters
    ----------
    planes : int
        How many there are.
    bits : int
        Channels of each.
    together : int
        How many planes lie side by side, each from a nibble on, before a word begins anew.
    depth : int
        DK of the accelerator.
    """

    planes: int
    bits: int
    together: int = 1
    depth: int = WORD_BITS

    @property
    def row_bits(self) -> int:
        """Bits of a row of the buffer."""
        return max(self.depth, WORD_BITS)

    @property
    def strings(self) -> int:
        """Equal runs of words, each of which a load puts into rows of its own; 1 if not equal."""
        return 1 if self.planes % self.together else self.planes // self.together

    @property
    def fits_rows(self) -> bool:
        """Whether loads can let planes that lie side by side begin with a row."""
        return self.planes % self.together == 0 or self.row_bits == WORD_BITS

    @property
    def stride(self) -> int:
        """Bits from a plane to the next."""
        return -(-self.bits // NIBBLE_BITS) * NIBBLE_BITS

    @property
    def string_words(self) -> int:
        """Words of planes that lie side by side."""
        return -(-self.together * self.stride // WORD_BITS)

    @property
    def words(self) -> int:
        """Words of all planes."""
        whole, rest = divmod(self.planes, self.together)
        return whole * self.string_words + -(-rest * self.stride // WORD_BITS)

    @property
    def string_rows(self) -> int:
        """Rows of planes that lie side by side."""
        return -(-self.together * self.stride // self.row_bits)

    @property
    def rows(self) -> int:
        """Rows of all planes."""
        whole, rest = divmod(self.planes, self.together)
        return whole * self.string_rows + -(-rest * self.stride // self.row_bits)

    def place(self, plane: int) -> int:
        """Bit of a pixel's words where a plane begins."""
        string, position = divmod(plane, self.together)
        return string * self.string_words * WORD_BITS + position * self.stride

    def row_place(self, plane: int) -> int:
        """Bit of a pixel's rows where a plane begins."""
        string, position = divmod(plane, self.together)
        return string * self.string_rows * self.row_bits + position * self.stride

    def span(self, run: Pass, channels: range) -> Span:
        """Where a pass meets some of the channels; more than one plane meets all of them."""
        first = self.row_place(run.acts[0]) + channels.start
        last = self.row_place(run.acts[-1]) + channels.stop - 1
        word, depth = first // self.depth, self.depth
        row, upper = divmod(word, self.row_bits // depth)
        places = (self.row_place(k) + channels.start - word * depth for k in run.acts)
        return Span(
            *(row, upper, last // depth - word + 1),
            first % depth // NIBBLE_BITS,
            last % depth // NIBBLE_BITS,
            tuple(zip(run.weights, places)),
        )


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
    layer: ConvLayer,
    weight_planes: Sequence[int] | None = None,
    side_by_side: bool = False,
    needs_ones: bool = True,
) -> list[Pass]:
    """Return passes, the highest coefficient first.

    The ones of an activation plane are counted in the first pass that has its own coefficient.

    Parameters
    ----------
    layer : ConvLayer
        All coefficients of its branches are powers of two, or such negated.
    weight_planes : sequence of int, optional
        Those that are computed, by default all.
    side_by_side : bool
        Whether neighbouring activation planes share a pass; else each branch has one.
    needs_ones : bool
        Whether ones are counted. Then planes that count have a pass apart from others.
    """
    planes = range(2 * layer.weight_bits) if weight_planes is None else weight_planes
    branches = without_gaps(_branches(layer, planes))
    top = max(branch.exponent for branch in branches)
    coefficients = layer.geometry.act_coefficients if needs_ones else ()
    passes, counted = [], set[int]()
    for exponent in range(top, -1, -1):
        level = [branch for branch in branches if branch.exponent == exponent]
        own = {k for k, kappa in enumerate(coefficients) if kappa == 1 << exponent}
        runs = _runs(level, own) if side_by_side else [[branch] for branch in level]
        for run in runs:
            acts = {branch.act for branch in run}
            counts = acts <= own - counted
            counted |= acts if counts else set()
            shift = exponent < top and run is runs[0]
            passes.append(Pass(run[0].act, tuple(b.weight for b in run), shift, counts))
    return passes


def passes_of_planes(coefficients: Sequence[int]) -> list[Pass]:
    """Return passes of activation planes alone, the highest coefficient first.

    Parameters
    ----------
    coefficients : sequence of int
        Powers of two, of each plane.
    """
    branches = without_gaps(Branch(exponent_of(each), 0, k) for k, each in enumerate(coefficients))
    branches.sort(key=lambda branch: -branch.exponent)
    before = [branches[0].exponent, *(branch.exponent for branch in branches)]
    return [Pass(x.act, (0,), x.exponent < e, False) for x, e in zip(branches, before)]


def _runs(branches: list[Branch], own: set[int]) -> list[list[Branch]]:
    """Branches of neighbouring activation planes, those in `own` apart from others."""
    left, runs = sorted(branches, key=lambda branch: branch.act), []
    while left:
        run, rest = left[:1], left[1:]
        others: list[Branch] = []
        for branch in rest:
            is_next = branch.act == run[-1].act + 1
            belongs = is_next and (branch.act in own) == (run[0].act in own)
            (run if belongs else others).append(branch)
        runs.append(run)
        left = others
    return runs


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
