"""Places in an arena: tensors that are never needed at the same time share them.

The largest comes first, and takes the lowest gap among those that are placed already and live at
the same time. That is within some percent of the least memory for networks [Pisarchyk and Lee,
Efficient memory management for deep neural net inference, arXiv 2001.03288].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..runtime.size import ALIGNMENT, NOTHING, Size


@dataclass
class Block:
    """Memory that is needed from one step to another.

    Parameters
    ----------
    size : Size
    first, last : int
        Steps, both included.
    offset : Size
        Where it lies, once `place` has run.
    """

    size: Size
    first: int
    last: int
    offset: Size = NOTHING


def place(blocks: Sequence[Block]) -> Size:
    """Set the offset of every block, and return the size of the whole.

    What grows with the batch lies behind all that doesn't, at multiples of the batch.
    """
    fixed = [block for block in blocks if not block.size.per_sample]
    growing = [block for block in blocks if block.size.per_sample]
    end = _place(fixed, [block.size.fixed for block in fixed])
    # A batch has one sample at least, so a fixed part is no more than one for each of them.
    per_sample = _place(growing, [block.size.of(1) for block in growing])
    for block in growing:
        block.offset = Size(end, block.offset.fixed)
    return Size(end, per_sample)


def _place(blocks: Sequence[Block], sizes: Sequence[int]) -> int:
    placed: list[tuple[Block, int]] = []
    order = sorted(range(len(blocks)), key=lambda i: (-sizes[i], blocks[i].first))
    for i in order:
        block, size = blocks[i], -(-sizes[i] // ALIGNMENT) * ALIGNMENT
        block.offset = Size(_lowest_gap(block, size, placed))
        placed.append((block, size))
    return max((block.offset.fixed + size for block, size in placed), default=0)


def _lowest_gap(block: Block, size: int, placed: Sequence[tuple[Block, int]]) -> int:
    """Return the lowest offset where a block meets none that lives at the same time."""
    taken = sorted(
        (other.offset.fixed, other.offset.fixed + length)
        for other, length in placed
        if other.first <= block.last and block.first <= other.last
    )
    offset = 0
    for start, end in taken:
        if offset + size <= start:
            break
        offset = max(offset, end)
    return offset
