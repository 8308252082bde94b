"""Short names for the vector expressions that kernels are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate
from typing import TypeAlias

import tvm
from tvm import tirx
from tvm.tirx.script import builder as T

Expr: TypeAlias = "tirx.Expr | int"  # An index or a number.
Vector: TypeAlias = "tirx.Expr"  # A vector, or a value that goes into one.


def vector(dtype: str, lanes: int) -> str:
    """Name of a vector type: ``vector("int32", 16) == "int32x16"``."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def load(buffer: tirx.Buffer, start: Expr, lanes: int) -> Vector:
    """`lanes` neighbouring elements of a flat buffer."""
    return buffer[start] if lanes == 1 else buffer[tirx.Ramp(start, 1, lanes)]


def store(buffer: tirx.Buffer, value: Vector, start: Expr, lanes: int) -> None:
    """Write `lanes` neighbouring elements of a flat buffer."""
    T.buffer_store(buffer, value, [start if lanes == 1 else tirx.Ramp(start, 1, lanes)])


def prefetch(buffer: tirx.Buffer, start: Expr) -> None:
    """Have an element brought into the second-level cache; it may lie beyond the end."""
    address = tirx.address_of(buffer[start])
    hints = [tirx.const(hint, "int32") for hint in (0, 2, 1)]  # To be read; how near; data.
    T.evaluate(tvm.ir.Call("tirx.prefetch", [address, *hints], ret_ty="void"))


def splat(value: Vector, lanes: int) -> Vector:
    """Repeat one value in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def constant(value: float, dtype: str, lanes: int = 1) -> Vector:
    """A number in every lane."""
    return splat(tirx.const(value, dtype), lanes)


def reinterpret(dtype: str, value: Vector) -> Vector:
    """Same bits, another type; a vector of booleans becomes an integer with one bit a lane."""
    return tvm.ir.Call("tirx.reinterpret", [value], ret_ty=dtype)


def joined(dtype: str, lanes: int, parts: Sequence[Vector]) -> Vector:
    """Put vectors of `lanes` lanes each side by side, pair by pair."""
    parts = list(parts)
    while len(parts) > 1:
        lanes *= 2
        parts = [
            tvm.ir.Call("tirx.vectorcombine", pair, ret_ty=vector(dtype, lanes))
            for pair in zip(parts[::2], parts[1::2])
        ]
    return parts[0]


def lane_constants(values: Sequence[int], dtype: str) -> Vector:
    """A vector of given constants, built from the longest ramps: no table in memory is needed."""
    return tirx.Shuffle([tirx.const(v, dtype) for v in values], list(range(len(values))))


def interleaved(a: Vector, b: Vector, lanes: int, size: int, half: int) -> Vector:
    """Elements of two vectors in turns: of every 16 bytes the low half of them, or the high half.

    Parameters
    ----------
    a, b : vectors of `lanes` lanes
    lanes : int
    size : int
        Bytes of an element.
    half : {0, 1}
    """
    block = 16 // size
    first = [start + half * block // 2 for start in range(0, lanes, block)]
    order = [
        side * lanes + start + i for start in first for i in range(block // 2) for side in range(2)
    ]
    return tirx.Shuffle([a, b], order)


def sum_of_lanes(value: Vector, lanes: int) -> Expr:
    """Sum of all lanes: halves are added up until a number is left."""
    while lanes > 1:
        value, lanes = T.Bind(value), lanes // 2
        halves = [range(lanes), range(lanes, 2 * lanes)]
        low, high = (tirx.Shuffle([value], list(half)) for half in halves)
        value = low + high
    return value


def flat(buffer: tirx.Buffer, size: Expr, dtype: str) -> tirx.Buffer:
    """The memory of a buffer as one row of `size` elements of `dtype`."""
    return T.decl_buffer((size,), dtype, data=buffer.data)


def imported(functions: str) -> AbstractContextManager:
    """Scope in which functions given as LLVM IR can be called."""
    if not functions:
        return nullcontext()
    return T.attr(tirx.const(0, "int32"), "pragma_import_llvm", functions)


@contextmanager
def only_if(is_asked: bool, condition: Vector) -> Iterator[None]:
    """Scope of what happens under a condition, if that is asked at all."""
    if not is_asked:
        yield
        return
    with T.If(condition), T.Then():
        yield


class Register:
    """One vector variable: a buffer so small that LLVM keeps it in a register.

    Buffers from 1 KiB up would come from the heap, so every vector has one of its own.
    """

    def __init__(self, dtype: str, lanes: int, value: Vector | None = None):
        self.dtype, self.lanes = dtype, lanes
        self._buffer = T.alloc_buffer((lanes,), dtype)
        if value is not None:
            self.set(value)

    def get(self) -> Vector:
        """Its value."""
        return load(self._buffer, 0, self.lanes)

    def set(self, value: Vector) -> None:
        """Replace its value."""
        store(self._buffer, value, 0, self.lanes)

    def part(self, first: int, lanes: int) -> Vector:
        """Some neighbouring lanes."""
        return load(self._buffer, first, lanes)

    def put(self, value: Vector, lane: Expr, lanes: int = 1) -> None:
        """Replace some neighbouring lanes."""
        store(self._buffer, value, lane, lanes)

    def clear(self) -> None:
        """Set every lane to 0."""
        self.set(constant(0, self.dtype, self.lanes))

    def add(self, value: Vector) -> None:
        """Add a vector."""
        self.set(self.get() + value)


def load_some(buffer: tirx.Buffer, start: Expr, count: int, lanes: int) -> Vector:
    """A vector of which `count` elements are read and others are 0: what lies behind is left alone.

    See `load`.
    """
    if count == lanes:
        return T.Bind(load(buffer, start, lanes))
    dtype = str(buffer.dtype)
    found = Register(dtype, lanes, constant(0, dtype, lanes))
    for first, size in _pieces(count):
        found.put(load(buffer, start + first, size), first, size)
    return T.Bind(found.get())


def store_some(buffer: tirx.Buffer, value: Vector, start: Expr, count: int, lanes: int) -> None:
    """Write the first `count` elements of a vector; see `store`."""
    if count == lanes:
        store(buffer, value, start, lanes)
        return
    whole = Register(str(buffer.dtype), lanes, value)
    for first, size in _pieces(count):
        store(buffer, whole.part(first, size), start + first, size)


def _pieces(count: int) -> list[tuple[int, int]]:
    """First lane and size of the vectors that `count` lanes are made of."""
    sizes = [1 << bit for bit in reversed(range(count.bit_length())) if count >> bit & 1]
    return list(zip(accumulate([0, *sizes]), sizes))
