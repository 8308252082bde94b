r"""Codes from codes by a table, 64 channels at a time, with bit operations on planes alone.

The table rises along each axis, so a code reaches t where the first code is at least i and the
second at least :math:`\beta_t(i)`, for some i:

.. math:: [out \ge t] = \bigvee_i [a \ge i] \wedge [b \ge \beta_t(i)]

A table of sums needs no pairs: planes are added with carries, and the sum compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..encoding import WORD_BITS
from ..te.threshold import planes_of_reached
from .kernel import Kernel
from .tir import Expr, Vector, flat

CHUNK = 256  # Words to a task.
ZERO, ONES = (tirx.const(value, "uint64") for value in (0, 2**WORD_BITS - 1))


def lookup_kernel(
    shapes: Sequence[tuple], table: np.ndarray, bits: int, channels: int, parallel: bool
) -> Kernel:
    """Kernel of `bitenc.packed_lookup`.

    Parameters
    ----------
    shapes : one or two (batch, height, width, bits, words)
    table : ndarray of uint8, shape (2^bits,) or (2^bits, 2^bits)
        Rising along each axis.
    bits : int
        Of the result.
    channels : int
        Bits beyond are 0.
    parallel : bool
    """
    *outer, _, words = shapes[0]
    total = outer[0] * outer[1] * outer[2] * words  # Of one plane.
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        sources = [T.arg(f"planes{i}", T.buffer(s, "uint64")) for i, s in enumerate(shapes)]
        T.arg("table", T.buffer(table.shape, "uint8"))  # It is part of the code.
        out = T.arg("out", T.buffer((*outer, bits, words), "uint64"))
        # TVM looks for a root block in what might be a reshape, an input as large as the output.
        with T.sblock("root"):
            flats = [(flat(b, total * s[3], "uint64"), s[3]) for b, s in zip(sources, shapes)]
            target = flat(out, total * bits, "uint64")
            loop = T.parallel if parallel else T.serial
            with loop(0, (total + CHUNK - 1) // CHUNK) as chunk, T.serial(0, CHUNK) as inner:
                index = T.Bind(chunk * CHUNK + inner)
                with T.If(index < total), T.Then():
                    _write(flats, target, index, words, table, bits, channels)
    return Kernel(builder.get(), [])


def _write(
    flats: list[tuple[tirx.Buffer, int]],
    target: tirx.Buffer,
    index: Expr,
    words: int,
    table: np.ndarray,
    bits: int,
    channels: int,
) -> None:
    """Compute one word of every plane of the result."""
    pixel, word = T.Bind(index // words), T.Bind(index % words)
    codes = [
        Planes([T.Bind(source[(pixel * n + k) * words + word]) for k in range(n)])
        for source, n in flats
    ]
    mask = _mask(word, words, channels) if table.flat[0] else None
    for k, value in enumerate(looked_up(codes, table, bits)):
        value = value if mask is None else value & mask
        T.buffer_store(target, value, [(pixel * bits + k) * words + word])


def _mask(word: Expr, words: int, channels: int) -> Vector | None:
    """Bits of a word that are channels; all are where code 0 gives code 0."""
    rest = channels % WORD_BITS
    if not rest:
        return None
    last = tirx.const(2**rest - 1, "uint64")
    return T.Bind(tirx.Select(word == words - 1, last, ONES))


def looked_up(codes: Sequence[Planes], table: np.ndarray, bits: int) -> list[Vector]:
    """Planes of the result."""
    if table.ndim == 2 and (sums := by_sum(table)) is not None:
        codes, table = [codes[0].plus(codes[1])], sums
    reached = [T.Bind(_reaches(codes, table, t)) for t in range(1, 2**bits)]
    return planes_of_reached(reached, range(1, 2**bits))


def by_sum(table: np.ndarray) -> np.ndarray | None:
    """Return g with ``table[a, b] == g[a + b]``, None if there is none."""
    a, b = np.indices(table.shape)
    sums = np.concatenate([table[:, 0], table[-1, 1:]])
    return sums if np.array_equal(sums[a + b], table) else None


def _reaches(codes: Sequence[Planes], table: np.ndarray, t: int) -> Vector:
    """Whether the result is at least t, for 64 channels."""
    if table.ndim == 1:
        return codes[0].at_least(int(np.searchsorted(table, t)))
    found, before = ZERO, table.shape[1]
    for i, row in enumerate(table):
        needed = int(np.searchsorted(row, t))
        if needed < before:  # Else a smaller first code did already.
            found = found | (codes[0].at_least(i) & codes[1].at_least(needed))
        before = min(before, needed)
    return found


class Planes:
    """Words of the planes of one tensor, lowest first, and what is made of them.

    Parameters
    ----------
    words : list of Expr of uint64
    """

    def __init__(self, words: list[Vector]):
        self.words = words
        self._reached: dict[int, Vector] = {}

    def at_least(self, limit: int) -> Vector:
        """Bits of the channels whose code is at least `limit`."""
        if limit == 0 or limit >= 2 ** len(self.words):
            return ONES if limit == 0 else ZERO
        if limit not in self._reached:
            found = ONES
            for plane, word in enumerate(self.words):
                found = (word & found) if limit >> plane & 1 else (word | found)
            self._reached[limit] = T.Bind(found)
        return self._reached[limit]

    def plus(self, other: Planes) -> Planes:
        """Sums of codes, one bit longer than the longer ones."""
        length = max(len(self.words), len(other.words))
        a, b = (planes.words + [ZERO] * (length - len(planes.words)) for planes in (self, other))
        carry, found = ZERO, []
        for one, two in zip(a, b):
            half = T.Bind(one ^ two)
            found.append(T.Bind(half ^ carry))
            carry = T.Bind((one & two) | (half & carry))
        return Planes([*found, carry])
