"""The loop nest of every convolution kernel.

::

    for rows, some at once, of every image (and parts of the channels):      # in parallel
        prepare the input rows under their windows: pad, unpack or make tables
        for every block of output channels, row, and tile of neighbouring pixels:
            sums of the tile in registers; the epilogue writes them out
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ...encoding import WORD_BITS
from ...layer import ConvLayer
from ..kernel import Kernel
from ..tir import flat
from .geometry import padded_blocks, padded_width, prepared_rows
from .pixel_words import PixelWords
from .tile import Tile
from .window_sums import WindowSums

FEW_PIXELS = 32  # See `_Nest.counts`.
SLACK = 64  # Elements behind the last prepared pixel that whole vectors may write.


def conv2d_kernel(
    layer: ConvLayer, product, epilogue, shapes: tuple[tuple, tuple], parallel: bool
) -> Kernel:
    """Write the kernel of a layer.

    Parameters
    ----------
    layer : ConvLayer
        As the kernel sees it, see `window.flattened`.
    product : Xnor, Lut, Int8, Planar or Depthwise
    epilogue : ComparedPlanes, AffinePlanes, SearchedPlanes, Integers or Floats
    shapes : (input shape, output shape)
        Of the tensors, as the caller has them.
    parallel : bool
    """
    nest = _Nest(layer, product, epilogue, parallel)
    of_product, of_epilogue = product.constants, epilogue.constants
    constants = [*of_product, *of_epilogue, *nest.extra]
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        source = T.arg("planes", T.buffer(shapes[0], product.source_dtype))
        residual = None
        if layer.has_residual:
            residual = T.arg("residual", T.buffer(shapes[1], "float32"))
        arguments = [
            T.arg(f"constant{i}", T.buffer(value.shape, str(value.dtype)))
            for i, value in enumerate(constants)
        ]
        out = T.arg("out", T.buffer(shapes[1], epilogue.out_dtype))
        with _imported(product.isa.functions):
            nest.write(source, residual, arguments, len(of_product), out)
    return Kernel(builder.get(), constants)


def _imported(functions: str):
    """Scope in which functions given as LLVM IR can be called."""
    if not functions:
        return nullcontext()
    return T.attr(tirx.const(0, "int32"), "pragma_import_llvm", functions)


class _Nest:
    """Loops around products and epilogues; also what both may ask about the tile at hand."""

    def __init__(self, layer: ConvLayer, product, epilogue, parallel: bool):
        self.layer, self.product, self.epilogue = layer, product, epilogue
        self.tile: Tile = product.tile
        self.is_parallel = parallel
        _, row_class, column_class = layer.border
        self.has_classes = max(epilogue.classes) > 1
        self.classes = [row_class, column_class] if self.has_classes else []
        # Were it known that there are so few pixels, LLVM would trace each byte from where it is
        # unpacked to where it is used, which takes it minutes.
        pixels = prepared_rows(layer, self.tile.rows) * padded_width(layer)
        self.counts = [np.array([pixels], np.int32)] if pixels <= FEW_PIXELS else []
        self.blocks_in_group = padded_blocks(layer, product.block)
        self.blocks = layer.geometry.groups * self.blocks_in_group
        self.needs_act_sum = product.raw.has_act_sum
        self.needs_offset = getattr(product, "needs_offset", False)
        self.needs_copy = any(layer.geometry.padding) or product.name != "xnor"

    @property
    def extra(self) -> list[np.ndarray]:
        """Constants of the nest itself."""
        return [*self.classes, *self.counts]

    def write(self, source, residual, arguments, count: int, out) -> None:
        """Write the body of the function; the first `count` arguments are the product's."""
        self.words = _words(self.layer.input_shape[3])  # In every plane of an input pixel.
        sizes = [_elements(buffer) for buffer in (source, *arguments, out)]
        self.source = flat(source, sizes[0], self.product.source_dtype)
        flats = [flat(b, n, str(b.dtype)) for b, n in zip(arguments, sizes[1:-1])]
        last = len(flats) - len(self.classes) - len(self.counts)
        self.constants, self.finishing = flats[:count], flats[count:last]
        self.class_buffers = flats[last : last + len(self.classes)]
        self.count_buffers = flats[last + len(self.classes) :]
        self._out_argument = out
        self._aliases: dict[tuple, object] = {}
        self.residual = None if residual is None else flat(residual, sizes[-1], "float32")
        self.out = self.alias(out, str(out.dtype))
        height, is_dynamic = self.layer.output_size[0], self.layer.has_dynamic_batch
        batch = source.shape[0] if is_dynamic else self.layer.input_shape[0]
        tasks = batch * (height // self.tile.rows * self.tile.splits)
        self._declare_aliases()
        loop = T.parallel if self.is_parallel and (is_dynamic or tasks > 1) else T.serial
        with loop(0, tasks) as task:
            per_image = height // self.tile.rows
            self.image = T.Bind(task // (per_image * self.tile.splits))
            self.first_row = T.Bind(task // self.tile.splits % per_image * self.tile.rows)
            self._task(task % self.tile.splits)

    def _declare_aliases(self) -> None:
        """Declare other views of memory outside of all loops."""
        for dtype in ("uint8", "uint16", "uint32", "uint64"):
            self.alias(self._out_argument, dtype)
            for buffer in self.finishing:
                if str(buffer.dtype) == "uint8":
                    self.alias(buffer, dtype)

    def alias(self, buffer, dtype: str):
        """The memory of a buffer as a row of another type."""
        key = (buffer.data, dtype)
        if key not in self._aliases:
            size = _elements(buffer) * _size(str(buffer.dtype))
            if isinstance(size, int):
                size = max(size, _size(dtype))
            self._aliases[key] = flat(buffer, size // _size(dtype), dtype)
        return self._aliases[key]

    def _task(self, split) -> None:
        self._prepare()
        per_split = self.blocks // self.tile.splits
        width = self.layer.output_size[1]
        with (
            T.serial(0, per_split) as block,
            T.serial(0, self.tile.rows) as row,
        ):
            self.block = block + split * per_split if self.tile.splits > 1 else block
            self.group = self.block // self.blocks_in_group if self.layer.geometry.groups > 1 else 0
            self.block_in_group = self.block - self.group * self.blocks_in_group
            self.row = row
            self._bind_row_class()
            if hasattr(self.product, "begin_row"):
                self.product.begin_row(self)
            whole, rest = divmod(width, self.tile.pixels)
            if whole:
                with T.serial(0, whole) as column:
                    self._tile(column * self.tile.pixels, self.tile.pixels)
            if rest:
                self._tile(whole * self.tile.pixels, rest)

    def _bind_row_class(self) -> None:
        """Read the class of a row once: LLVM can't know that outputs don't overwrite it."""
        if self.has_classes:
            number = self.class_buffers[0][self.first_row + self.row]
            self._row_class = T.Bind(number * self.epilogue.classes[1])

    def _tile(self, column, pixels: int) -> None:
        self.column, self.pixels = column, pixels
        self._act_sums: dict[int, object] = {}
        self._border_classes: dict[int, object] = {}
        for p, parts in enumerate(self.product.sums(self)):
            self.epilogue.finish(self, p, parts)

    # What products and epilogues ask.

    def address(self, i, j, p: int):
        """Where the prepared input under tap (i, j) of the tile's p-th pixel begins."""
        geometry = self.layer.geometry
        row = self.row * geometry.strides[0] + i * geometry.dilation[0]
        column = (self.column + p) * geometry.strides[1] + j * geometry.dilation[1]
        return self._base + (row * padded_width(self.layer) + column) * self._pixel_size

    def out_pixel(self, p: int):
        """Number of the tile's p-th output pixel."""
        height, width = self.layer.output_size
        return ((self.image * height + self.first_row) + self.row) * width + self.column + p

    def border_class(self, p: int):
        """Number of the border class of the tile's p-th pixel."""
        if not self.has_classes:
            return 0
        if p not in self._border_classes:
            columns = self.class_buffers[1]
            self._border_classes[p] = T.Bind(self._row_class + columns[self.column + p])
        return self._border_classes[p]

    def act_sum(self, p: int):
        """U: sum of the activation codes under the window of the tile's p-th pixel."""
        if p not in self._act_sums and hasattr(self.product, "act_sum"):
            self._act_sums[p] = T.Bind(self.product.act_sum(self, p))
        if p not in self._act_sums:
            self._act_sums[p] = T.Bind(self._codes.under(self.row, self.column + p))
        return self._act_sums[p]

    def offset(self, p: int):
        """Sum of the product's `pixel_offset` under the window of the tile's p-th pixel."""
        return T.Bind(self._offsets.under(self.row, self.column + p))

    def store_plane(self, p: int, bit: int, channel: int, lanes: int, value) -> None:
        """Write the bits of neighbouring channels of one plane, as one integer."""
        groups, words = self.layer.geometry.groups, _words(self.layer.out_channels)
        plane = self.out_pixel(p) * self.layer.out_bits + bit
        per_group = self.layer.out_channels // groups
        first = self.group * per_group + self.block_in_group * self.product.block + channel
        target = self.alias(self._out_argument, f"uint{lanes}")
        index = plane * (words * WORD_BITS // lanes) + first // lanes
        padded = self.blocks_in_group * self.product.block
        T.buffer_store(target, value, [index])
        is_last = channel + lanes >= self.product.block
        if groups == 1 and is_last and padded < words * WORD_BITS:
            octets = self.alias(self._out_argument, "uint8")
            with T.serial(0, (words * WORD_BITS - padded) // 8) as rest:
                T.buffer_store(
                    octets, tirx.const(0, "uint8"), [plane * (words * 8) + padded // 8 + rest]
                )

    # Preparing the input.

    def _prepare(self) -> None:
        """Make the rows under the task's windows ready, and their sums of codes."""
        layer = self.layer
        if hasattr(self.product, "prepare"):
            self.product.prepare(self)
            return
        rows, width = prepared_rows(layer, self.tile.rows), padded_width(layer)
        dtype, self._pixel_size = self.product.prepared
        if self.needs_copy:
            self.prepared = T.alloc_buffer((rows * width * self._pixel_size + SLACK,), dtype)
            self._base = 0
        else:
            first = self.image * layer.input_shape[1] + self.first_row * layer.geometry.strides[0]
            self.prepared = self.source
            self._base = T.Bind(first * (width * self._pixel_size))
        self._codes = WindowSums(layer, self.tile.rows) if self.needs_act_sum else None
        self._offsets = WindowSums(layer, self.tile.rows) if self.needs_offset else None
        added = [sums for sums in (self._codes, self._offsets) if sums]
        if self.needs_copy or added:
            self._prepare_pixels(rows, width)
        for sums in added:
            sums.add_up()

    def _prepare_pixels(self, rows: int, width: int) -> None:
        if self.counts:
            with T.serial(0, self.count_buffers[0][0]) as pixel:
                self._prepare_pixel(pixel // width, pixel % width, pixel)
        else:
            with T.grid(rows, width) as (row, column):
                self._prepare_pixel(row, column, row * width + column)

    def _prepare_pixel(self, row, column, pixel) -> None:
        """Prepare a pixel of the image, or one of the padding: its words are 0."""
        _, height, width, _ = self.layer.input_shape
        top, left, bottom, right = self.layer.geometry.padding
        source_row = self.first_row * self.layer.geometry.strides[0] + row - top
        source_column = column - left
        inside = []
        if top or bottom:
            inside += [source_row >= 0, source_row < height]
        if left or right:
            inside += [source_column >= 0, source_column < width]
        size = self.layer.act_bits * self.words
        start = ((self.image * height + source_row) * width + source_column) * size
        if not inside:
            self._prepare_words(PixelWords(self.words, self.source, T.Bind(start)), pixel)
            return
        with T.If(tirx.all(*inside)):
            with T.Then():
                self._prepare_words(PixelWords(self.words, self.source, T.Bind(start)), pixel)
            with T.Else():
                self._prepare_words(PixelWords(self.words), pixel)

    def _prepare_words(self, words: PixelWords, pixel) -> None:
        if self.needs_copy:
            self.product.prepare_pixel(words, self.prepared, pixel * self._pixel_size)
        if self._codes:
            total = words.code_sum(self.layer.geometry.act_coefficients, self.product.isa)
            self._codes.put(pixel, total)
        if self._offsets:
            self._offsets.put(pixel, self.product.pixel_offset(words))


def _elements(buffer):
    """Number of elements, an expression where the batch is dynamic."""
    first, *others = buffer.shape
    first = int(first) if isinstance(first, tirx.IntImm) else first
    return first * math.prod(map(int, others))


def _words(channels: int) -> int:
    return -(-channels // WORD_BITS)


def _size(dtype: str) -> int:
    return np.dtype(dtype).itemsize
