"""Tensors in the accelerator's memory, and views of them, which move nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..encoding import WORD_BITS

Layout = tuple[tuple[int, int], ...]  # Words, and channels in their lowest bits, of each segment.


@dataclass(frozen=True)
class Tensor:
    """Packed planes of one sample: uint64 (height, width, bits, words).

    Parameters
    ----------
    name : str
        By which instructions count addresses from its first word until they are linked.
    height, width, bits, words : int
    """

    name: str
    height: int
    width: int
    bits: int
    words: int

    @property
    def pixel_words(self) -> int:
        """Words of a pixel in all planes."""
        return self.bits * self.words

    @property
    def size(self) -> int:
        """Words of the tensor."""
        return self.height * self.width * self.pixel_words


@dataclass(frozen=True)
class Segment:
    """Some words of each pixel: of one tensor, or of several that take turns.

    Parameters
    ----------
    grid : tuple of tuple of Tensor
        Row y, column x is row ``y // R``, column ``x // C`` of ``grid[y % R][x % C]``, which has R
        rows and C columns. The same tensor everywhere is nearest-neighbour upsampling.
    first_word, words : int
        Of a plane of a pixel.
    channels : int
        In the lowest bits of these words; what is above is 0.
    """

    grid: tuple[tuple[Tensor, ...], ...]
    first_word: int
    words: int
    channels: int

    @property
    def tensor(self) -> Tensor:
        """One of its tensors; all have the same sizes."""
        return self.grid[0][0]

    @property
    def steps(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return len(self.grid), len(self.grid[0])


@dataclass(frozen=True)
class View:
    """Segments side by side: their channels follow one another, each in words of its own.

    Parameters
    ----------
    segments : tuple of Segment
        All with as many rows, columns and planes.
    is_packed : bool
        Whether the planes of a pixel lie side by side, in words of one tensor.
    """

    segments: tuple[Segment, ...]
    is_packed: bool = False

    @property
    def words(self) -> int:
        """Words of a plane of a pixel."""
        return sum(segment.words for segment in self.segments)

    @property
    def channels(self) -> int:
        """Channels of all segments."""
        return sum(segment.channels for segment in self.segments)

    @property
    def is_plain(self) -> bool:
        """Whether no tensors take turns, and no pixel is repeated."""
        return all(segment.steps == (1, 1) for segment in self.segments)

    @property
    def tensor(self) -> Tensor | None:
        """The tensor that it is as a whole; None for any other view."""
        first = self.segments[0]
        is_whole = len(self.segments) == 1 and self.is_plain and first.words == first.tensor.words
        return first.tensor if is_whole else None

    @property
    def layout(self) -> Layout:
        """Words of each segment, and channels in them."""
        return tuple((segment.words, segment.channels) for segment in self.segments)

    def rows(self, row_words: int) -> int:
        """Buffer rows of a plane of a pixel, where each segment begins with a row."""
        return sum(-(-segment.words // row_words) for segment in self.segments)

    @property
    def positions(self) -> np.ndarray:
        """Bit of each channel in the words of a plane, int64."""
        return positions(self.layout)

    def row_positions(self, row_words: int) -> np.ndarray:
        """Bit of each channel in the buffer rows of a plane, int64."""
        return positions(self.layout, row_words)

    def places(self, row_words: int) -> list[tuple[int, int]]:
        """Row of each word of a plane, and which word of the row it is."""
        rows = np.cumsum([0, *(-(-segment.words // row_words) for segment in self.segments)])
        return [
            (int(row) + word // row_words, word % row_words)
            for row, segment in zip(rows, self.segments)
            for word in range(segment.words)
        ]

    @property
    def is_dense(self) -> bool:
        """Whether channels lie as the CPU packs them, without gaps."""
        return is_dense(self.layout)

    def fills_rows(self, row_words: int) -> bool:
        """Whether channels lie without gaps in rows of the buffer, too."""
        return self.is_dense and all(x.words % row_words == 0 for x in self.segments[:-1])

    def repeated(self, times: int, axis: int) -> View:
        """Return the view of every row (axis 0) or column (axis 1) so many times."""
        return View(tuple(_repeated(segment, times, axis) for segment in self.segments))

    def with_channels(self, channels: int) -> View:
        """Return the view of so many of its channels, the first ones."""
        *rest, last = self.segments
        kept = channels - sum(segment.channels for segment in rest)
        return replace(self, segments=(*rest, replace(last, channels=kept)))


def _repeated(segment: Segment, times: int, axis: int) -> Segment:
    rows, columns = (times, 1) if axis == 0 else (1, times)
    wide = [tuple(each for each in row for _ in range(columns)) for row in segment.grid]
    return replace(segment, grid=tuple(row for row in wide for _ in range(rows)))


def whole(tensor: Tensor, channels: int) -> View:
    """Return the view of all of a tensor."""
    return View((Segment(((tensor,),), 0, tensor.words, channels),))


def side_by_side(views: Sequence[View]) -> View:
    """Return the concatenation of channels."""
    return View(tuple(segment for view in views for segment in view.segments))


def in_turns(views: Sequence[View], steps: tuple[int, int]) -> View:
    """Return the view whose pixels come from plain views in turns, as of `Segment.grid`.

    Parameters
    ----------
    views : sequence of View
        Of the grid, row by row; all with the same segments of other tensors.
    steps : (rows, columns)
    """
    rows, columns = steps
    segments = []
    for parts in zip(*(view.segments for view in views)):
        tensors = [part.tensor for part in parts]
        lines = (tensors[i * columns : (i + 1) * columns] for i in range(rows))
        segments.append(replace(parts[0], grid=tuple(map(tuple, lines))))
    return View(tuple(segments))


def copied(view: View, tensor: Tensor) -> View:
    """Return the view of a tensor that holds what a view shows, with the same gaps."""
    segments, word = [], 0
    for each in view.segments:
        segments.append(Segment(((tensor,),), word, each.words, each.channels))
        word += each.words
    return View(tuple(segments))


def positions(layout: Layout, row_words: int = 1) -> np.ndarray:
    """Bit of each channel in the words of a plane, int64, where segments begin with a row."""
    rows = np.cumsum([0, *(-(-words // row_words) for words, _ in layout)])
    row_bits = WORD_BITS * row_words
    parts = [row_bits * at + np.arange(count) for at, (_, count) in zip(rows, layout)]
    return np.concatenate(parts)


def is_dense(layout: Layout) -> bool:
    """Whether channels lie as the CPU packs them, without gaps."""
    return all(words * WORD_BITS == channels for words, channels in layout[:-1])


def packed_densely(planes: np.ndarray, layout: Layout) -> np.ndarray:
    """Planes uint64 (..., words) of a layout as the CPU packs them, without gaps."""
    bits = np.unpackbits(planes[..., None].view(np.uint8), axis=-1, bitorder="little")
    bits = bits.reshape(*planes.shape[:-1], -1)[..., positions(layout)]
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % WORD_BITS)]
    return np.packbits(np.pad(bits, padding), axis=-1, bitorder="little").view(np.uint64)
