"""One max pooling of codes to a program for the accelerator."""

from __future__ import annotations

from ..accelerator import Accelerator
from ..encoding import WORD_BITS
from . import isa
from .program import Program
from .stream import Stream
from .tiling import Tiling, Window, tile


def compile_pool(window: Window, accelerator: Accelerator) -> Program:
    """Compile a max pooling of packed planes: uint64 (N, H, W, bits, words) in and out.

    Raises
    ------
    UnsupportedError
        If it doesn't fit the buffers or the instructions' fields.
    """
    return PoolStream(tile(window, accelerator)).program()


class PoolStream(Stream):
    """DM channels are one part of an input word, and the same part of the output word."""

    def __init__(self, tiling: Tiling):
        parts = WORD_BITS // tiling.accelerator.channels
        super().__init__(tiling, tiling.layer.words * parts)

    def passes(self) -> list[dict[str, int]]:
        """Planes of an input word, from the highest down."""
        plane_rows = self.tiling.plane_rows
        planes = reversed(range(self.layer.act_bits))
        return [dict(act=k * plane_rows, weight=0, shift=0, ones=0) for k in planes]

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
        row, word = divmod(group // self.groups_per_store, self.accelerator.row_words)
        self.add_compute(
            isa.Pool,
            band,
            group,
            pop_prev=int(group == 0),
            act=self.half("act", band[0]) + row * self.tiling.word_rows,
            weight=word,
            passes=self.layer.act_bits,
            words=1,
        )
