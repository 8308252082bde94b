r"""The {-1,+1} encoding of tensors, with numpy only.

An M-bit tensor is stored as codes :math:`u \in [0, 2^M-1]`. Bit m of the codes is a *plane*, read
as :math:`c_m = 2\,\mathrm{bit}_m(u) - 1 \in \{-1,+1\}`, and a code stands for the real value

.. math:: x = \tfrac{s}{2} (v + o), \qquad v = \sum_m \kappa_m c_m, \qquad
          o = \sum_m \kappa_m - 2 z

with scale s, zero point z and plane coefficients :math:`\kappa_m`, by default :math:`2^m`; then
:math:`v = 2u - (2^M-1)` and :math:`x = s (u - z)`. A product of two such tensors is a sum of
*branches*, one per pair of planes, and a branch over N taps is one xor and one popcount:

.. math:: \sum v_a v_w = \sum_{m,k} \kappa_m \kappa_k
          (N - 2\,\mathrm{popcount}(a_k \oplus w_m))

The *integers* of a tensor are :math:`v + o`. Accumulators are sums of products of integers; the
real value of an accumulator is :math:`s_a s_w / 4` times it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from .errors import UnsupportedError
from .rounding import ROUND, ROUNDINGS

WORD_BITS = 64


def check_bits(bits: int, where: str = "encoding") -> int:
    """Return `bits` if it is an integer in 1..8, else raise `UnsupportedError`."""
    if isinstance(bits, bool) or int(bits) != bits or not 1 <= bits <= 8:
        raise UnsupportedError(where, f"bits = {bits!r} is outside 1..8", "Use 1 to 8 bits")
    return int(bits)


@dataclass(frozen=True, eq=False, init=False)
class Encoding:
    r"""How one tensor is stored in planes.

    Parameters
    ----------
    bits : int
        Number of planes, 1..8.
    scale : float or array_like
        Step between neighbouring levels, > 0; one number, or one per output channel.
    zero_point : float or array_like
        Code of the real 0, a multiple of 1/2; one number, or one per output channel. A half
        integer means that no code stands for 0, as in the paper's symmetric levels.
    coefficients : sequence of numbers, optional
        :math:`\kappa_m`, lowest plane first; default :math:`2^m`. Others cover ternary weights
        ``(1, 1)`` and learned bases (real numbers: these have no integer reference).
    rounding : str
        One of `ROUNDINGS`. ``half_even``: u = clip(round(x / s + z)), ties to even; the others
        round as their names say. ``sign``: u = (x >= 0), 1 bit only.
    max_code : int, optional
        Largest code, by default 2^M - 1; one less for a narrow range such as -7 ... 7.
    late_zero_point : int
        How much of the zero point is added after rounding: u = clip(round(x / s + z - l) + l).
        ONNX adds all of it then, and float32 sums and ties to even make a difference.
    codes : sequence of int, optional
        Those that are made of numbers, in rising order of their levels; by default one for each
        level, of several the least.
    bounds : sequence of float, optional
        Where one of `codes` ends and the next begins, rising float32 numbers: x has code number i
        if it reaches i of them. By default the bounds are the midpoints between levels.

    Notes
    -----
    Codes can't hold NaN. Wherever a number becomes a code, NaN becomes code 0, the smallest level,
    as in ONNX Runtime and in torch's fake-quantize; on the way, arithmetic keeps NaN. (The smallest
    level is that of code 0 unless a coefficient is negative.)

    Raises
    ------
    UnsupportedError
        For bits outside 1..8, a scale that isn't finite and positive, a zero point that isn't a
        multiple of 1/2, a wrong number of coefficients, codes that fit in fewer bits, levels or
        bounds that don't rise, or a bound for other than two neighbouring levels.
    """

    bits: int
    scale: np.ndarray
    zero_point: np.ndarray
    coefficients: tuple[float, ...]
    rounding: str
    max_code: int
    late_zero_point: int
    codes: tuple[int, ...]
    bounds: tuple[float, ...]

    def __init__(
        self,
        bits: int,
        scale: ArrayLike,
        zero_point: ArrayLike,
        coefficients: Sequence[float] = (),
        rounding: str = "half_even",
        max_code: int | None = None,
        late_zero_point: int = 0,
        codes: Sequence[int] = (),
        bounds: Sequence[float] = (),
    ):
        bits = check_bits(bits)
        for name, value in dict(
            bits=bits,
            scale=np.asarray(scale, np.float32),
            zero_point=np.asarray(zero_point, np.float32),
            coefficients=tuple(coefficients) or tuple(2**m for m in range(bits)),
            rounding=rounding,
            max_code=2**bits - 1 if max_code is None else int(max_code),
            late_zero_point=late_zero_point,
            codes=tuple(map(int, codes)),
            bounds=tuple(float(np.float32(bound)) for bound in bounds),
        ).items():
            object.__setattr__(self, name, value)
        self._check()
        self._check_levels()

    def _check(self) -> None:
        bits, scale, zero_point = self.bits, self.scale, self.zero_point
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise UnsupportedError(
                "encoding", "a scale is zero, negative or not finite", "Use s > 0"
            )
        if not (
            np.isfinite(zero_point).all() and (2 * zero_point == np.rint(2 * zero_point)).all()
        ):
            raise UnsupportedError(
                "encoding", f"zero point {zero_point} isn't a multiple of 1/2", "Round it"
            )
        if np.abs(zero_point).max(initial=0) > 2**15:
            raise UnsupportedError(
                "encoding",
                f"zero point {zero_point} is far outside the code range",
                "Use |z| <= 2^15",
            )
        if len(self.coefficients) != bits:
            raise UnsupportedError(
                "encoding",
                f"{len(self.coefficients)} coefficients for {bits} bits",
                "Give one per plane",
            )
        if self.rounding not in ROUNDINGS or (self.rounding == "sign" and bits != 1):
            raise UnsupportedError(
                "encoding", f"rounding {self.rounding!r} at {bits} bits", f"Use one of {ROUNDINGS}"
            )
        if not 2 ** (bits - 1) <= self.max_code < 2**bits:
            raise UnsupportedError(
                "encoding",
                f"largest code {self.max_code} at {bits} bits",
                "Use as many bits as it has",
            )
        is_plain = self.max_code == 2**bits - 1 and self.rounding in ("half_even", "sign")
        if not self.is_positional and not (is_plain and self.late_zero_point == 0):
            raise UnsupportedError(
                "encoding",
                f"a narrow range or rounding {self.rounding!r} with coefficients "
                f"{self.coefficients}",
                "Leave the coefficients at powers of two",
            )

    def _check_levels(self) -> None:
        codes, bounds = self.codes, self.bounds
        if not codes and not bounds:
            return
        if len(bounds) != len(codes) - 1 or not 0 <= min(codes) <= max(codes) < 2**self.bits:
            cause = f"{len(bounds)} bounds between codes {codes} of {self.bits} bits"
            cure = "Give a code for each level, and a bound between any two neighbours"
        elif np.any(np.diff(self.levels[list(codes)]) <= 0):
            cause, cure = f"levels of codes {codes} that don't rise", "Use positive steps"
        elif not np.isfinite(bounds).all() or np.any(np.diff(bounds) <= 0):
            cause, cure = f"bounds {bounds} that don't rise, or aren't finite", "Sort them"
        elif self.rounding != "half_even" or self.late_zero_point or self.is_per_channel:
            cause = "bounds beside a rounding, a late zero point or scales per channel"
            cure = "Let the bounds alone say where levels begin, and use one scale"
        else:
            return
        raise UnsupportedError("encoding", cause, cure)

    @classmethod
    def symmetric(cls, bits: int, scale: ArrayLike = 1.0, rounding: str | None = None) -> Encoding:
        """Levels -(2^M-1)/2 s ... +(2^M-1)/2 s: odd multiples of s/2, no code for zero."""
        rounding = rounding or ("sign" if bits == 1 else "half_even")
        zero_point = np.asarray((2 ** check_bits(bits) - 1) / 2)
        return cls(bits, scale, zero_point, rounding=rounding)

    @classmethod
    def unsigned(cls, bits: int, scale: ArrayLike = 1.0) -> Encoding:
        """Levels 0 ... (2^M-1) s, as after a ReLU."""
        return cls(bits, scale, np.asarray(0.0))

    @classmethod
    def signed(cls, bits: int, scale: ArrayLike = 1.0) -> Encoding:
        """Two's complement levels -2^(M-1) s ... (2^(M-1)-1) s."""
        return cls(bits, scale, np.asarray(2.0 ** (check_bits(bits) - 1)))

    @classmethod
    def ternary(cls, scale: ArrayLike = 1.0) -> Encoding:
        """Levels -s, 0, +s in two planes of equal weight."""
        return cls(2, scale, np.asarray(1.0), coefficients=(1, 1))

    @property
    def is_per_channel(self) -> bool:
        """Whether scale or zero point has one entry per output channel."""
        return self.scale.ndim > 0 or self.zero_point.ndim > 0

    @property
    def is_positional(self) -> bool:
        """Whether the coefficients are the powers of two, so that v = 2u - (2^M-1)."""
        return are_positional(self.coefficients)

    @property
    def has_arithmetic_codes(self) -> bool:
        """Whether codes are made by the arithmetic of `op.quantize`: divide, round, clip."""
        return self.is_positional and not self.bounds

    @property
    def has_rising_codes(self) -> bool:
        """Whether the codes that numbers get rise with them."""
        return bool(np.all(np.diff(self.distinct_levels[1]) > 0))

    @property
    def integer_coefficients(self) -> tuple[int, ...]:
        """The coefficients as integers; `UnsupportedError` if they aren't."""
        if any(int(c) != c for c in self.coefficients):
            raise UnsupportedError(
                "encoding",
                f"coefficients {self.coefficients} aren't integers, so branch sums aren't either",
                "Move a common factor into the scale",
            )
        return tuple(int(c) for c in self.coefficients)

    @property
    def offset(self) -> np.ndarray:
        """o of x = s/2 (v + o): int32, a scalar or one per output channel."""
        return (sum(self.integer_coefficients) - 2 * self.zero_point).astype(np.int32)

    @cached_property
    def bipolar_values(self) -> np.ndarray:
        """v of every code 0 .. 2^M-1."""
        codes = np.arange(2**self.bits)
        return np.sum(
            [kappa * (2 * ((codes >> m) & 1) - 1) for m, kappa in enumerate(self.coefficients)], 0
        )

    @cached_property
    def levels(self) -> np.ndarray:
        """x / s + z of every code: the code itself where the coefficients are powers of two."""
        return (self.bipolar_values + sum(self.coefficients)) / 2

    @cached_property
    def distinct_levels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Levels in rising order, a code of each, and the midpoints between neighbours."""
        levels, codes = np.unique(self.levels, return_index=True)
        if self.codes:
            codes = np.array(self.codes)
            levels = self.levels[codes]
        return levels, codes, (levels[1:] + levels[:-1]) / 2

    def bipolar(self, codes: np.ndarray) -> np.ndarray:
        """v of each code, int32 for integer coefficients."""
        values = self.bipolar_values
        return (values.astype(np.int32) if values.dtype.kind == "i" else values)[codes]

    def integers(self, codes: np.ndarray, axis: int = 0) -> np.ndarray:
        """v + o of each code, int32."""
        return self.bipolar(codes) + along(self.offset, codes.ndim, axis)

    def quantize(self, x: np.ndarray, axis: int = 0) -> np.ndarray:
        """Codes (uint8) of float32 values, by the float32 arithmetic of the op `bitenc.quantize`.

        NaN has no code and becomes the smallest level, as -inf does.

        Parameters
        ----------
        x : ndarray of float32
        axis : int
            Where per-channel scales and zero points lie.
        """
        x = np.asarray(x, np.float32)
        if self.rounding == "sign":
            return (x >= 0).astype(np.uint8)
        if self.bounds:
            reached = np.searchsorted(np.array(self.bounds, np.float32), x, side="right")
            return np.array(self.codes, np.uint8)[np.where(np.isnan(x), 0, reached)]
        # Infinity is clipped like any other large number, and no kind of NaN is worth a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            position = x / along(self.scale, x.ndim, axis)
        late = np.float32(self.late_zero_point)
        position = np.asarray(position + along(self.zero_point - late, x.ndim, axis))
        position[np.isnan(position)] = -np.inf
        if self.is_positional:
            code = np.asarray(ROUND[self.rounding](position))  # Of a scalar, numpy makes a number.
            code += late
            return np.clip(code, 0, self.max_code, out=code).astype(np.uint8)
        _, codes, midpoints = self.distinct_levels
        return codes[np.searchsorted(midpoints, position)].astype(np.uint8)

    def dequantize(self, codes: np.ndarray, axis: int = 0) -> np.ndarray:
        """Real values (float32) of codes: s (u - z), for any coefficients s/2 (v + o)."""
        level = self.levels.astype(np.float32)[codes]
        zero_point = along(self.zero_point, codes.ndim, axis)
        return (level - zero_point) * along(self.scale, codes.ndim, axis)

    def zero_code(self) -> int | None:
        """Code of the real 0, or None where there is none."""
        codes = np.flatnonzero(
            np.all(self.bipolar_values + np.atleast_1d(self.offset)[:, None] == 0, 0)
        )
        return int(codes[0]) if codes.size else None


def are_positional(coefficients: Sequence[float]) -> bool:
    """Whether coefficients are the powers of two: codes then are their own levels."""
    return list(coefficients) == [2**m for m in range(len(coefficients))]


def are_powers_of_two(values: np.ndarray) -> bool:
    """Whether products by all of these numbers, whatever their signs, aren't rounded."""
    mantissa, _ = np.frexp(np.abs(values))
    return bool(np.all(mantissa == 0.5))


def along(values: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    """Shape a scalar or per-channel array so that it broadcasts along `axis` of `ndim` axes."""
    return (
        values.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])
        if values.ndim
        else values
    )


def planes(codes: np.ndarray, bits: int) -> np.ndarray:
    """{-1,+1} planes of codes, int8, shape (bits, *codes.shape), lowest plane first."""
    shifts = np.arange(bits, dtype=np.uint8).reshape(-1, *[1] * codes.ndim)
    return (2 * ((codes >> shifts) & 1).astype(np.int8) - 1).astype(np.int8)


def pack(codes: np.ndarray, bits: int, groups: int = 1) -> np.ndarray:
    """Pack the last axis (channels) of codes into uint64 words, one set of words per plane.

    Channel 64 i + j of a group is bit j of its word i; the bits above the last channel are 0.

    Parameters
    ----------
    codes : ndarray of uint8, shape (..., channels)
    bits : int
    groups : int
        Every group of channels starts a new word.

    Returns
    -------
    ndarray of uint64, shape (..., bits, groups * ceil(channels / groups / 64))
    """
    *outer, channels = codes.shape
    grouped = codes.reshape(*outer, 1, groups, channels // groups)
    bit = (grouped >> np.arange(bits, dtype=np.uint8)[:, None, None]) & 1
    bit = np.pad(bit, [(0, 0)] * (bit.ndim - 1) + [(0, -bit.shape[-1] % WORD_BITS)])
    # Of some layouts numpy makes bytes that aren't neighbours in memory.
    words = np.ascontiguousarray(np.packbits(bit, axis=-1, bitorder="little")).view("<u8")
    return np.ascontiguousarray(words.reshape(*outer, bits, -1).astype(np.uint64))


def unpack(words: np.ndarray, channels: int, groups: int = 1) -> np.ndarray:
    """Inverse of `pack`: codes (uint8), shape (..., channels)."""
    *outer, bits, _ = words.shape
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8)
    bit = np.unpackbits(octets, axis=-1, bitorder="little").reshape(*outer, bits, groups, -1)
    bit = bit[..., : channels // groups].reshape(*outer, bits, channels)
    weights = (1 << np.arange(bits, dtype=np.uint8)).astype(np.uint8)
    return (bit * weights[:, None]).sum(axis=-2, dtype=np.uint8)
