"""One max pooling of codes to instructions of the accelerator."""

from __future__ import annotations

from dataclasses import replace

from ..accelerator import Accelerator
from ..encoding import WORD_BITS
from . import isa
from .link import Piece, link_layer
from .program import Output, Program
from .stream import Stream
from .tensor import View
from .tiling import Tiling, Window, tile


def compile_pool(window: Window, accelerator: Accelerator) -> Program:
    """Compile a max pooling of packed planes: uint64 (N, H, W, bits, words) in and out.

    Raises
    ------
    UnsupportedError
        If it doesn't fit the buffers or the instructions' fields.
    """
    return link_layer(pool_piece(window, accelerator))


def pool_piece(window: Window, accelerator: Accelerator, source: View | None = None) -> Piece:
    """Compile a pooling of a view, whose places in memory are still to be given."""
    if source is not None:
        rows = source.rows(accelerator.row_words) * window.act_bits
        window = replace(window, words=source.words * window.act_bits, rows=rows)
    fragment = PoolStream(tile(window, accelerator), source).fragment()
    return Piece(fragment, (Output(0, fragment.output_words),))


class PoolStream(Stream):
    """DM channels are one part of an input word, and the same part of the output word."""

    def __init__(self, tiling: Tiling, source: View | None = None):
        parts = WORD_BITS // tiling.accelerator.channels
        words = tiling.layer.words // tiling.layer.act_bits  # Of a pixel and plane.
        super().__init__(tiling, words * parts, source)
        self.rows = tiling.pixel_rows // tiling.layer.act_bits
        self.places = self.source.places(tiling.accelerator.row_words)
        # A row has several words of the memory, or a word two of DK bits: lines for each.
        found = {(word, self._upper(part)) for _, word in self.places for part in range(parts)}
        self.variants = sorted(found)

    def _upper(self, part: int) -> int:
        """Whether DM bits lie in the upper half of a word, where that is a word of DK bits."""
        bit, depth = part * self.accelerator.channels, self.accelerator.depth
        return int(bit >= depth)

    def passes(self) -> list[dict[str, int]]:
        """Planes from the highest down, once for each place of a word in its row."""
        rows, lines = self.rows * self.tiling.word_rows, []
        for word, upper in self.variants:
            nibbles = dict(first=word * isa.NIBBLES, last=(word + 1) * isa.NIBBLES - 1)
            line = dict(weight=0, shift=0, ones=0, words=1, upper=upper, **nibbles)
            lines += [dict(line, act=k * rows) for k in reversed(range(self.layer.act_bits))]
        return lines

    def compute(self, band: tuple[int, int, int], group: int) -> None:
        """Compute one part of a word."""
        word, part = divmod(group, self.parts)
        (row, in_row), upper = self.places[word], self._upper(part)
        first = self.variants.index((in_row, upper)) * self.layer.act_bits
        self.set_up(self.passes()[: self.layer.act_bits], first)
        self.add_compute(
            isa.Pool,
            band,
            group,
            act=self.half("act", band[0]) + row * self.tiling.word_rows,
            passes=self.layer.act_bits,
        )
