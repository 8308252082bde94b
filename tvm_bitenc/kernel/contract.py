"""The contract of a convolution kernel: its loops, a `Product` and an `Epilogue`.

A product knows how sums are made, an epilogue what becomes of them; the loops (`nest/conv2d.py`)
know neither, and neither knows the other. Who calls what, in this order::

    product.constants, epilogue.constants       become arguments of the function
    for every task: rows of an image, and a part of the channels
        product.prepare(task)                   the rows under its windows, in the product's form
        for every block of output channels, and row of the task
            product.prepare_row(task, ...)      if it rolls: rows are outside then, blocks inside
            product.begin_row(prepared, row)
            for every tile: neighbouring pixels of the row
                product.sums(tile)              vectors of sums of every pixel; or
                product.sums_of_blocks(tile)    those of some neighbouring blocks
                for every copy of the block     output channels with the same weights
                    for every pixel p of the tile
                        epilogue.finish(tile, p, sums[p])
        where channels share weights in any order, instead of the last three
        for every pixel of the task, and block of output channels
            epilogue.finish(tile, 0, sums)      of their rows, see `nest/channel_sums.py`

What the loops have bound when they call is in a frozen value: `TaskContext`, then `TileContext`.
All of these functions write TIR; what they return are expressions of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from ..layer import ConvLayer
from .accumulator import AccumulatorTerms
from .isa import Isa
from .nest.geometry import padded_width
from .nest.memory import Memory
from .nest.tile import Tile
from .tir import Expr, Vector, prefetch

IsaT = TypeVar("IsaT", bound=Isa)
IsaT_contra = TypeVar("IsaT_contra", bound=Isa, contravariant=True)
PREFETCHED_BYTES = 128 << 10  # Of weights: fewer stay in the caches.
Sums = list[Vector]  # Of one pixel: vectors that hold a block's channels, in order.


@dataclass(frozen=True, eq=False)
class TaskContext:
    """What is bound where a task begins.

    Parameters
    ----------
    memory : Memory
    image : expression
        Its number in the batch.
    first_row : expression
        The first output row.
    """

    memory: Memory
    image: Expr
    first_row: Expr


class WindowTotals(Protocol):
    """One number of every input pixel, summed up under windows."""

    def under(self, row: Expr, column: Expr) -> Expr:
        """Sum under the window of an output pixel of the task, int32."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Input rows under the windows of a task, as a product reads them.

    Parameters
    ----------
    buffer : flat buffer
        A copy, or the input itself.
    start : expression
        Element at which the first pixel begins.
    pixel_size : int
        Elements of a pixel.
    is_copy : bool
    ring : int
        Rows of the buffer, which input rows take in turn; 0 where each has one of its own.
    codes : WindowTotals, optional
        U, sums of activation codes; there where the product's terms need them.
    offsets : WindowTotals, optional
        What the product adds to the sums of a pixel; there where it has such offsets.
    """

    buffer: tirx.Buffer
    start: Expr = 0
    pixel_size: int = 1
    is_copy: bool = True
    ring: int = 0
    codes: WindowTotals | None = None
    offsets: WindowTotals | None = None

    def place_of(self, row: Expr) -> Expr:
        """Number of the buffer's row that an input row of the task is in."""
        return row % self.ring if self.ring else row


@dataclass(frozen=True, eq=False)
class TileContext:
    """What is bound where a tile begins.

    Parameters
    ----------
    layer : ConvLayer
    task : TaskContext
    prepared : Prepared
    blocks : int
        Blocks of output channels in all.
    block, group, block_in_group : expression
        Numbers of the block, of its group of channels, and of the block in that.
    row, column : expression
        The first output pixel, its row counted from the task's first.
    pixels : int
        Neighbouring output pixels.
    row_class : expression, optional
        Number of the first border class of the row; None where there is one class.
    """

    layer: ConvLayer
    task: TaskContext
    prepared: Prepared
    blocks: int
    block: Expr
    group: Expr
    block_in_group: Expr
    row: Expr
    column: Expr
    pixels: int
    row_class: Expr | None
    # Numbers that several ask for are bound where the first one asks.
    _bound: dict[tuple[str, int], Expr] = field(default_factory=dict, init=False)

    @property
    def memory(self) -> Memory:
        """Memory of the function."""
        return self.task.memory

    def of_copy(self, copy: Expr, copies: int) -> TileContext:
        """Return the tile of other output channels that have the same weights."""
        block = T.Bind(copy * self.blocks + self.block)
        return replace(self, blocks=copies * self.blocks, block=block, block_in_group=block)

    def of_block(self, number: int) -> TileContext:
        """Return the tile of one of the blocks from this one on."""
        if number == 0:
            return self
        block, in_group = self.block + number, self.block_in_group + number
        return replace(self, block=block, block_in_group=in_group)

    def prefetch_next(self, places: Iterable[Expr], block: int) -> None:
        """Have the next block's weights brought near, while rows of this one are computed.

        Parameters
        ----------
        places : iterable of expression
            Bytes of this block's weights that are being read.
        block : int
            Bytes of the weights of a block; of few in all, nothing is prefetched.
        """
        if self.blocks * block >= PREFETCHED_BYTES:
            for place in places:
                prefetch(self.memory.product_constants[0], place + block)

    def address(self, i: Expr, j: Expr, p: int) -> Expr:
        """Where the prepared input under tap (i, j) of the p-th pixel begins."""
        geometry = self.layer.geometry
        row = self.prepared.place_of(self.row * geometry.strides[0] + i * geometry.dilation[0])
        column = (self.column + p) * geometry.strides[1] + j * geometry.dilation[1]
        pixel = row * padded_width(self.layer) + column
        return self.prepared.start + pixel * self.prepared.pixel_size

    def out_pixel(self, p: int) -> Expr:
        """Number of the p-th output pixel."""
        height, width = self.layer.output_size
        row = (self.task.image * height + self.task.first_row) + self.row
        return row * width + self.column + p

    def border_class(self, p: int) -> Expr:
        """Number of the border class of the p-th pixel."""
        columns = self.memory.column_classes
        if columns is None or self.row_class is None:
            return 0
        if ("class", p) not in self._bound:
            self._bound["class", p] = T.Bind(self.row_class + columns[self.column + p])
        return self._bound["class", p]

    def act_sum(self, p: int) -> Expr:
        """U: sum of the activation codes under the window of the p-th pixel."""
        if ("codes", p) not in self._bound:
            assert self.prepared.codes is not None
            self._bound["codes", p] = T.Bind(self.prepared.codes.under(self.row, self.column + p))
        return self._bound["codes", p]

    def offset(self, p: int) -> Expr:
        """Sum of the product's offsets under the window of the p-th pixel."""
        assert self.prepared.offsets is not None
        return T.Bind(self.prepared.offsets.under(self.row, self.column + p))


class Product(ABC, Generic[IsaT]):
    """How the sums of a tile are made, by an instruction set of the class that it needs.

    Parameters
    ----------
    layer : ConvLayer
        As the kernel sees it, see `nest.geometry.flattened`.
    isa : Isa
    tile : Tile
    """

    name: ClassVar[str]
    """What tables of tile sizes know it by."""
    source_dtype: str = "uint64"
    """Type of the input: planes in words, or codes in bytes."""
    blocks_at_once: int = 1
    """Neighbouring blocks of a group whose sums `sums_of_blocks` makes."""

    def __init__(self, layer: ConvLayer, isa: IsaT, tile: Tile):
        self.layer, self.isa, self.tile = layer, isa, tile
        self.lanes = self.lanes_of(layer, isa)
        self.block = self.lanes * tile.vectors

    # What rules ask of the class, before there is a tile.

    @staticmethod
    @abstractmethod
    def applies(layer: ConvLayer, isa: Isa) -> bool:
        """Whether it computes the layer exactly."""

    @staticmethod
    @abstractmethod
    def lanes_of(layer: ConvLayer, isa: Isa) -> int:
        """Output channels to a vector."""

    @staticmethod
    @abstractmethod
    def row_bytes(layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row, for the choice of the tile."""

    # What loops and epilogues ask of the instance.

    @property
    def rolls(self) -> bool:
        """Whether rows are prepared one after another, each when an output row first needs it."""
        return False

    @property
    @abstractmethod
    def sum_dtype(self) -> str:
        """Type of the sums, which thresholds are compared in."""

    @property
    @abstractmethod
    def terms(self) -> AccumulatorTerms:
        """How sums lead to accumulators."""

    @property
    @abstractmethod
    def constants(self) -> list[np.ndarray]:
        """Weights, laid out as `sums` reads them, and what else it reads."""

    @abstractmethod
    def prepare(self, task: TaskContext) -> Prepared:
        """Make the rows under the windows of a task ready."""

    def prepare_row(self, task: TaskContext, prepared: Prepared, row: Expr) -> None:
        """Make the input rows ready that no output row before this one needed; if it rolls.

        Parameters
        ----------
        task : TaskContext
        prepared : Prepared
        row : expression
            Counted from the task's first.
        """
        raise NotImplementedError

    def begin_row(self, prepared: Prepared, row: Expr) -> None:
        """Compute what the tiles of an output row share; by default nothing.

        Parameters
        ----------
        prepared : Prepared
        row : expression
            Counted from the task's first.
        """

    @abstractmethod
    def sums(self, tile: TileContext) -> list[Sums]:
        """Sums of every pixel of a tile."""

    def sums_of_blocks(self, tile: TileContext) -> list[list[Sums]]:
        """Sums of every pixel, for every one of the blocks that are made at once."""
        return [self.sums(tile)]


class ProductClass(Protocol[IsaT_contra]):
    """A class of `Product` for instruction sets of a class, as rules ask it."""

    @property
    def name(self) -> str:
        """What tables of tile sizes know it by."""

    def __call__(self, layer: ConvLayer, isa: IsaT_contra, tile: Tile) -> Product:
        """Make the product."""

    def applies(self, layer: ConvLayer, isa: Isa) -> bool:
        """Whether it computes the layer exactly."""

    def lanes_of(self, layer: ConvLayer, isa: Isa) -> int:
        """Output channels to a vector."""

    def row_bytes(self, layer: ConvLayer, isa: Isa) -> int:
        """Size of a prepared input row, for the choice of the tile."""


class Epilogue(ABC):
    """What becomes of the sums of a pixel.

    Parameters
    ----------
    layer : ConvLayer
    terms : AccumulatorTerms
        How the product's sums lead to accumulators.
    block : int
        Output channels of a block.
    """

    out_dtype: str
    """Type of the output."""

    def __init__(self, layer: ConvLayer, terms: AccumulatorTerms, block: int):
        self.layer, self.terms, self.block = layer, terms, block

    @property
    def classes(self) -> tuple[int, int]:
        """Border classes of rows and of columns that constants tell apart."""
        rows, columns, _ = self.terms.constant.shape
        return rows, columns

    @property
    @abstractmethod
    def constants(self) -> list[np.ndarray]:
        """Thresholds and the like; `finish` finds them in ``tile.memory.epilogue_constants``."""

    @abstractmethod
    def finish(self, tile: TileContext, p: int, sums: Sums) -> None:
        """Write the output of the p-th pixel of a tile, all channels of the block."""
