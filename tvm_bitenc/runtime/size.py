"""Numbers of bytes that may grow with the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

Bytes = Annotated[int, Meta(ge=0, le=1 << 48)]
ALIGNMENT = 64  # What kernels assume of every tensor in the arena, and of weights.


@dataclass(frozen=True, order=True)
class Size:
    """A number of bytes, or of elements: ``fixed + per_sample * batch``."""

    fixed: Bytes
    per_sample: Bytes = 0

    def of(self, batch: int) -> int:
        """How many there are for a batch."""
        return self.fixed + self.per_sample * batch

    def aligned(self) -> Size:
        """At least as many, so that whatever lies behind is aligned too."""
        return Size(_aligned(self.fixed), _aligned(self.per_sample))

    def __add__(self, other: Size) -> Size:
        return Size(self.fixed + other.fixed, self.per_sample + other.per_sample)

    def __mul__(self, factor: int) -> Size:
        return Size(self.fixed * factor, self.per_sample * factor)


NOTHING = Size(0)


def linear(value: Callable[[int], int]) -> Size | None:
    """Return a function of the batch as a size; None where it isn't a linear one."""
    first, second, far = value(1), value(2), value(1000)
    size = Size(2 * first - second, second - first)
    return size if size.of(1000) == far else None


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT
