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
        window = replace(window, words=source.words * window.act_bits)
    fragment = PoolStream(tile(window, accelerator), source).fragment()
    return Piece(fragment, (Output(0, fragment.output_words),))


class PoolStream(Stream):
    """DM channels are one part of an input word, and the same part of the output word."""

    def __init__(self, tiling: Tiling, source: View | None = None):
        parts = WORD_BITS // tiling.accelerator.channels
        # Of a pixel and plane.
        self.input_words = tiling.layer.words // tiling.layer.act_bits
        super().__init__(tiling, self.input_words * parts, source)

    def passes(self) -> list[dict[str, int]]:
        """Planes of an input word, from the highest down."""
        plane_rows = self.input_words * self.tiling.word_rows
        line = dict(weight=0, shift=0, ones=0, **isa.ONE_WORD)
        return [dict(act=k * plane_rows, **line) for k in reversed(range(self.layer.act_bits))]

    def load_band(self, band: int, image: int, first_row: int) -> None:
        """Load a band, and tell the compute module with the last load of it."""
        before = len(self.instructions)
        super().load_band(band, image, first_row)
        if len(self.instructions) == before:  # Its windows lie outside the image.
            self.instructions.append(isa.Load(pop_next=int(self.must_pop)))
            self.must_pop = False
        last = self.instructions[-1]
        self.instructions[-1] = isa.Load(**{**vars(last), "push_next": 1})

    def compute(self, band: tuple[int, int, int], group: int) -> None:
        """Compute one part of a word."""
        word = group // self.groups_per_store
        self.set_up(self.passes())
        self.add_compute(
            isa.Pool,
            band,
            group,
            pop_prev=int(group == 0),
            act=self.half("act", band[0]) + word * self.tiling.word_rows,
            passes=self.layer.act_bits,
        )
