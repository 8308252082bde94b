"""Products that prepare their input pixel by pixel, from the words of its planes or from bytes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, cast

from tvm import tirx
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..contract import IsaT, Prepared, Product, TaskContext
from ..nest.geometry import can_roll, padded_width, prepared_rows
from ..nest.pixel_bytes import PixelBytes
from ..nest.pixel_words import PixelWords
from ..nest.tile import Tile
from ..nest.window_sums import PixelNumbers
from ..tir import Expr

PixelCodes: TypeAlias = PixelWords | PixelBytes
SLACK = 64  # Elements behind the last prepared pixel that whole vectors may write.


class PixelwiseProduct(Product[IsaT]):
    """A product whose pixels are prepared one by one."""

    reads_planes: ClassVar[bool] = False
    """Whether it takes planes as they are: without padding, nothing is copied."""
    reads_bytes: ClassVar[bool] = False
    """Whether it takes codes in bytes as they are."""
    is_dear: ClassVar[bool] = False
    """Whether what it prepares takes long to make."""

    def __init__(self, layer: ConvLayer, isa: IsaT, tile: Tile):
        super().__init__(layer, isa, tile)
        if layer.reads_bytes:
            self.source_dtype = "uint8"

    @property
    @abstractmethod
    def prepared(self) -> tuple[str, int]:
        """Type and number of elements of a prepared pixel."""

    @abstractmethod
    def prepare_pixel(self, words: PixelWords, target: tirx.Buffer, base: Expr) -> None:
        """Write a prepared pixel from element `base` of the target on."""

    @property
    def rolls(self) -> bool:
        """See `Product`."""
        return (
            self.is_dear
            and self._copies
            and not self.layer.has_act_sum
            and not self.has_offsets
            and can_roll(self.layer, self.tile.rows)
        )

    @property
    def has_offsets(self) -> bool:
        """Whether sums have an offset by pixel, see `pixel_offset`."""
        return False

    def pixel_offset(self, words: PixelWords) -> Expr:
        """What an input pixel adds to the sums of every window that it lies under, int32."""
        return tirx.const(0, "int32")

    @property
    def _reads_source(self) -> bool:
        """Whether a prepared pixel is one of the input, unchanged."""
        if not self.layer.reads_bytes:
            return self.reads_planes
        return self.reads_bytes and self.prepared == ("uint8", self.layer.input_shape[3])

    @property
    def _copies(self) -> bool:
        """Whether prepared pixels lie in a buffer of their own."""
        return any(self.layer.geometry.padding) or not self._reads_source

    def prepare(self, task: TaskContext) -> Prepared:
        """Write all pixels under the windows of a task, and sums of their codes.

        If it rolls, those rows that the first output row shares with the second one at most.
        """
        if self.rolls:
            return self._begin(task)
        layer, (dtype, size) = self.layer, self.prepared
        rows, width = prepared_rows(layer, self.tile.rows), padded_width(layer)
        is_copy = self._copies
        if is_copy:
            buffer, start = T.alloc_buffer((rows * width * size + SLACK,), dtype), 0
        else:
            first = task.image * layer.input_shape[1] + task.first_row * layer.geometry.strides[0]
            buffer, start = task.memory.source, T.Bind(first * (width * size))
        codes = PixelNumbers(layer, self.tile.rows) if self.terms.has_act_sum else None
        offsets = PixelNumbers(layer, self.tile.rows) if self.has_offsets else None
        if is_copy or codes or offsets:
            writer = _PixelWriter(self, task, buffer if is_copy else None, codes, offsets)
            writer.write_all(rows, width)
        sums = [None if numbers is None else numbers.summed() for numbers in (codes, offsets)]
        return Prepared(buffer, start, size, is_copy, codes=sums[0], offsets=sums[1])

    def _begin(self, task: TaskContext) -> Prepared:
        """Make room for the rows of a window, and write those that `prepare_row` doesn't."""
        ring, (dtype, size) = prepared_rows(self.layer, 1), self.prepared
        buffer = T.alloc_buffer((ring * padded_width(self.layer) * size + SLACK,), dtype)
        prepared = Prepared(buffer, pixel_size=size, ring=ring)
        self._write_rows(task, prepared, 0, ring - self.layer.geometry.strides[0])
        return prepared

    def prepare_row(self, task: TaskContext, prepared: Prepared, row: Expr) -> None:
        """Write the last rows under an output row's windows, over those not needed any more."""
        stride = self.layer.geometry.strides[0]
        self._write_rows(task, prepared, row * stride + (prepared.ring - stride), stride)

    def _write_rows(self, task: TaskContext, prepared: Prepared, first: Expr, count: int) -> None:
        writer = _PixelWriter(self, task, prepared.buffer)
        width = padded_width(self.layer)
        with T.serial(0, count) as number:
            row = T.Bind(first + number)
            place = T.Bind(prepared.place_of(row) * width)
            with T.serial(0, width) as column:
                writer.write(row, column, place + column)


@dataclass(frozen=True, eq=False)
class _PixelWriter:
    """Writes prepared pixels, and a number or two of each.

    Parameters
    ----------
    product : PixelwiseProduct
    task : TaskContext
    target : flat buffer, optional
        Of the prepared pixels; None where nothing is copied.
    codes, offsets : PixelNumbers, optional
    """

    product: PixelwiseProduct
    task: TaskContext
    target: tirx.Buffer | None
    codes: PixelNumbers | None = None
    offsets: PixelNumbers | None = None

    def write_all(self, rows: int, width: int) -> None:
        """Write all pixels of some rows."""
        if self.task.memory.pixel_count is not None:
            with T.serial(0, self.task.memory.pixel_count[0]) as pixel:
                self.write(pixel // width, pixel % width, pixel)
        else:
            with T.grid(rows, width) as (row, column):
                self.write(row, column, row * width + column)

    def write(self, row: Expr, column: Expr, pixel: Expr) -> None:
        """Write a pixel of the image, or one of the padding: its words are 0.

        Parameters
        ----------
        row, column : expression
            Counted from the first under the windows of the task.
        pixel : expression
            Number of the prepared one.
        """
        layer, task = self.product.layer, self.task
        _, height, width, _ = layer.input_shape
        top, left, bottom, right = layer.geometry.padding
        source_row = task.first_row * layer.geometry.strides[0] + row - top
        source_column = column - left
        inside = []
        if top or bottom:
            inside += [source_row >= 0, source_row < height]
        if left or right:
            inside += [source_column >= 0, source_column < width]
        number = (task.image * height + source_row) * width + source_column

        def of_image() -> None:
            self._put(_pixel(layer, task.memory.source, number), pixel)

        if not inside:
            of_image()
            return
        with T.If(tirx.all(*inside)):
            with T.Then():
                of_image()
            with T.Else():
                self._put(_pixel(layer), pixel)

    def _put(self, words: PixelCodes, pixel: Expr) -> None:
        product = self.product
        if self.target is not None:
            base = pixel * product.prepared[1]
            # Products that are asked to read bytes take both.
            product.prepare_pixel(cast("PixelWords", words), self.target, base)
        if self.codes:
            coefficients = product.layer.geometry.act_coefficients
            self.codes.put(pixel, words.code_sum(coefficients, product.isa))
        if self.offsets:
            self.offsets.put(pixel, product.pixel_offset(cast("PixelWords", words)))


def _pixel(layer: ConvLayer, source: tirx.Buffer | None = None, number: Expr = 0) -> PixelCodes:
    """A pixel of the input by its number; without a source, one of the padding."""
    channels = layer.input_shape[3]
    if layer.reads_bytes:
        return PixelBytes(channels, source, 0 if source is None else T.Bind(number * channels))
    per_plane = -(-channels // WORD_BITS)
    size = layer.act_bits * per_plane
    return PixelWords(per_plane, source, 0 if source is None else T.Bind(number * size))
