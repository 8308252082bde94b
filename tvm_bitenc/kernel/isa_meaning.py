"""What every method of `Isa` and its kinds computes, in numpy: one function for each, by its name.

Vectors are arrays of their lanes. Where instruction sets differ beyond what kernels ask of them,
the docstring says what may be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 16  # Bytes that shuffles and narrowing stay in.
OCTET = 8


def transpose_bits(value: np.ndarray) -> np.ndarray:
    """Bit c of byte 7 - r becomes bit r of byte c, in every 64-bit lane."""
    bits = np.unpackbits(value, bitorder="little").reshape(-1, OCTET, OCTET)
    return np.packbits(bits[:, ::-1].transpose(0, 2, 1), bitorder="little")


def select_bits(value: np.ndarray, bits: Sequence[int]) -> np.ndarray:
    """Bytes, int8, whose bit i is bit ``bits[i]`` of those of `value`."""
    found = np.unpackbits(value.view(np.uint8), bitorder="little").reshape(-1, OCTET)
    return np.packbits(found[:, list(bits)], bitorder="little").view(np.int8)


def repeated_octets(value: np.ndarray, numbers: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Some of the 64-bit lanes of a vector of bytes, each in all lanes of one."""
    lanes = value.view(np.uint64)
    return tuple(np.full_like(lanes, lanes[number]).view(np.uint8) for number in numbers)


def saturated_bytes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Four vectors of int32 as one of uint8, clipped; every 16 bytes hold four lanes of each."""
    blocks = np.stack([part.reshape(-1, BLOCK // 4) for part in parts], axis=1)
    return np.clip(blocks, 0, 255).astype(np.uint8).reshape(-1)


def logic(
    function: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """``function(a, b, c)``, made of bit operations alone."""
    return function(a, b, c)


def lookup(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Bytes of `table` (16 to a 128-bit block) at indices from 0 to 15."""
    found = np.take_along_axis(table.reshape(-1, BLOCK), index.reshape(-1, BLOCK), axis=1)
    return found.reshape(-1)


def wide_lookup(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Bytes of `table`, a whole vector, at indices within it."""
    return table[index]


def lookup_words(table: Sequence[np.ndarray], index: np.ndarray) -> np.ndarray:
    """Words of a table of two vectors at indices of which the low bits count."""
    whole = np.concatenate(table)
    return whole[index % len(whole)]


def table_lookup(table: Sequence[np.ndarray], entries: int, index: np.ndarray) -> np.ndarray:
    """Bytes of a table of so many entries, in one vector or several, at indices within it."""
    return np.concatenate(table)[:entries][index]


def choose_by_bits(word: np.ndarray, start: int, ones: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Bytes of `ones` where a 64-bit word has bits from `start` on, of `zeros` elsewhere."""
    bits = np.unpackbits(word.view(np.uint8), bitorder="little")[start : start + len(ones)]
    return np.where(bits, ones, zeros)


def bits_from(offsets: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Eight bits of every 64-bit lane from given bits on, for each of its bytes; they wrap."""
    bits = np.unpackbits(value, bitorder="little").reshape(-1, 8 * OCTET)
    places = (offsets.reshape(-1, OCTET)[:, :, None] + np.arange(8)) % (8 * OCTET)
    found = np.take_along_axis(bits, places.reshape(len(bits), -1), axis=1)
    return np.packbits(found, bitorder="little")


def sum_bytes(value: np.ndarray) -> np.ndarray:
    """Sum of the eight bytes in every 64-bit lane."""
    return value.reshape(-1, OCTET).sum(axis=1, dtype=np.uint64)


def dot(total: np.ndarray, unsigned: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """`total` plus the four products of bytes that lie in each 32-bit lane.

    `unsigned` goes up to the instruction set's `most_code`.
    """
    return total + _products(unsigned, signed).reshape(-1, 4).sum(axis=1, dtype=np.int32)


def multiply_add_bytes(unsigned: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """Sums of two neighbouring products of bytes, which fit int16.

    `unsigned` goes up to the instruction set's `most_code`.
    """
    return _products(unsigned, signed).reshape(-1, 2).sum(axis=1).astype(np.int16)


def multiply_add_words(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of two neighbouring products of int16."""
    return _products(a, b).reshape(-1, 2).sum(axis=1, dtype=np.int32)


def add_in_place(total: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Sum of bytes that doesn't overflow."""
    return total + value


def nibbles(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high four bits of every byte."""
    return value & 15, value >> 4


def popcount_bytes(value: np.ndarray) -> np.ndarray:
    """Set bits of every byte."""
    return np.bitwise_count(value)


# Of `Neon` alone.


def select(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bits of `a` where `mask` has ones, of `b` elsewhere."""
    return (mask & a) | (~mask & b)


def multiply_pairs(
    total: np.ndarray | None, codes: np.ndarray, weights: np.ndarray, half: int
) -> np.ndarray:
    """`total`, if any, plus products of the low or high eight bytes, all signed; they fit int16."""
    chosen = slice(half * OCTET, (half + 1) * OCTET)
    products = _products(codes.view(np.int8)[chosen], weights[chosen]).astype(np.int16)
    return products if total is None else total + products


def add_pairs_of_words(total: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """`total` plus sums of neighbouring lanes of int16."""
    return total + pairs.reshape(-1, 2).sum(axis=1, dtype=np.int32)


def matrix(total: np.ndarray, unsigned: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """`total` (2 x 2) plus products of two rows of eight bytes each."""
    rows, columns = (side.reshape(2, OCTET).astype(np.int32) for side in (unsigned, signed))
    return total + (rows @ columns.T).reshape(-1)


def add_pairs_of_bytes(value: np.ndarray) -> np.ndarray:
    """Sums of neighbouring bytes."""
    return value.reshape(-1, 2).sum(axis=1, dtype=np.uint16)


def add_neighbours(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of neighbouring lanes: those of `a`, then those of `b`."""
    both = np.concatenate([a, b])
    return both.reshape(-1, 2).sum(axis=1, dtype=both.dtype)


# Of `Scalar` alone.


def multiply_add_halves(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`total` plus products of the low halves and of the high halves, which fit 32 bits."""
    return multiply_add_words(a.view(np.int16), b.view(np.int16)) + total


def halves_of_bytes(value: np.ndarray, odd: bool) -> np.ndarray:
    """Bytes 0 and 2 of a word, or 1 and 3, signed, as two numbers of 16 bits."""
    return value.view(np.int8)[int(odd) :: 2].astype(np.int16).view(np.int32)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int32) * b.astype(np.int32)
