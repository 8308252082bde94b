"""Indices of 4 to 6 bits, packed for vectors to unpack by masks and shifts alone.

Eight vectors of indices v0 .. v7 are stored in four of their low halves, and one for each higher
bit; lane by lane::

    low i    v_2i & 15 | (v_2i+1 & 15) << 4            i = 0 .. 3
    high     bit 4 of v_j in bit j                     5 bits: one vector
             bits 4 and 5 of v_j in 2j and 2j+1        6 bits: two, of four each
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..isa import Isa
from ..tir import Vector, constant, load, store

AT_ONCE = 8  # Vectors of indices.
LOW_BITS = 4


def pack_index(index: np.ndarray, bits: int, lanes: int) -> np.ndarray:
    """Pack vectors of indices.

    Parameters
    ----------
    index : ndarray of uint8
        As many times `lanes` elements as there are vectors.
    bits : int
        Of an index; up to four take four.
    lanes : int

    Returns
    -------
    ndarray of uint8, shape (eights of vectors, 4 + higher bits, lanes)
    """
    vectors = index.reshape(-1, lanes)
    vectors = np.pad(vectors, [(0, -len(vectors) % AT_ONCE), (0, 0)])
    eights = vectors.reshape(-1, AT_ONCE, lanes)
    low = eights & 15
    parts = [low[:, ::2] | low[:, 1::2] << LOW_BITS]
    high, width = eights >> LOW_BITS, max(bits - LOW_BITS, 0)
    per_part = AT_ONCE // width if width else AT_ONCE
    shifts = (width * np.arange(per_part, dtype=np.uint8))[:, None]
    for first in range(0, AT_ONCE if width else 0, per_part):
        shifted = high[:, first : first + per_part] << shifts
        parts.append(np.bitwise_or.reduce(shifted, axis=1, keepdims=True))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def unpack_index(packed: tirx.Buffer, vectors: int, bits: int, isa: Isa) -> tirx.Buffer:
    """Write code that unpacks vectors of indices.

    Parameters
    ----------
    packed : flat buffer of uint8
        As `pack_index` makes it.
    vectors, bits : int
    isa : Isa

    Returns
    -------
    flat buffer of uint8
        A new one; behind the last vector are some of zeros.
    """
    n, high_bits = isa.vector_bytes, max(bits - LOW_BITS, 0)
    eights, stored = -(-vectors // AT_ONCE), AT_ONCE // 2 + high_bits
    index = T.alloc_buffer((eights * AT_ONCE * n,), "uint8")
    with T.serial(0, eights) as eight:
        parts = [T.Bind(load(packed, (eight * stored + i) * n, n)) for i in range(stored)]
        halves = [half for part in parts[: AT_ONCE // 2] for half in isa.nibbles(part)]
        for j, low in enumerate(halves):
            value = low
            if high_bits:
                part, place = divmod(j * high_bits, AT_ONCE)
                value = low | _high(parts[AT_ONCE // 2 + part], place, high_bits, n)
            store(index, value, (eight * AT_ONCE + j) * n, n)
    return index


def _high(part: Vector, place: int, bits: int, lanes: int) -> Vector:
    """Bits of `part` from a place on, where they belong in an index."""
    mask = constant(((1 << bits) - 1) << place, "uint8", lanes)
    found = part & mask
    if place < LOW_BITS:
        return found << constant(LOW_BITS - place, "uint8", lanes)
    return found >> constant(place - LOW_BITS, "uint8", lanes)
