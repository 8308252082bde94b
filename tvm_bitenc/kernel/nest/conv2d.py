"""The loop nest of every convolution kernel.

::

    for rows, some at once, of every image (and parts of the channels):      # in parallel
        prepare the input rows under their windows: pad, unpack or make tables
        for every block of output channels, row, and tile of neighbouring pixels:
            sums of the tile in registers; the epilogue writes them out, once for all output
            channels that have these weights, or behind these loops, see `channel_sums.py`

Where input rows are dear to prepare, none is prepared twice for windows that overlap: they roll
through a buffer of as many rows as a window, see `rolls`. Rows are the outer loop then.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ...layer import ConvLayer
from ..contract import Epilogue, Prepared, Product, Sums, TaskContext, TileContext
from ..kernel import Kernel
from ..tir import Expr, imported
from .channel_sums import ChannelSums
from .geometry import FEW_PIXELS, padded_blocks, padded_width, prepared_rows
from .memory import Memory, declare_memory


def conv2d_kernel(
    layer: ConvLayer,
    product: Product,
    epilogue: Epilogue,
    shapes: tuple[tuple, tuple],
    parallel: bool,
) -> Kernel:
    """Write the kernel of a layer.

    Parameters
    ----------
    layer : ConvLayer
        As the kernel sees it, see `geometry.flattened`.
    product : Product
    epilogue : Epilogue
    shapes : (input shape, output shape)
        Of the tensors, as the caller has them.
    parallel : bool
    """
    of_product, of_epilogue = product.constants, epilogue.constants
    own = _own_constants(layer, product, epilogue)
    constants = [*of_product, *of_epilogue, *own.values()]
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
        with imported(product.isa.functions):
            ends = len(of_product), len(of_product) + len(of_epilogue)
            memory = declare_memory(
                source,
                residual,
                arguments[: ends[0]],
                arguments[ends[0] : ends[1]],
                dict(zip(own, arguments[ends[1] :])),
                out,
            )
            _Nest(layer, product, epilogue).write(memory, source.shape[0], parallel)
    return Kernel(builder.get(), constants)


def _own_constants(layer: ConvLayer, product: Product, epilogue: Epilogue) -> dict[str, np.ndarray]:
    """Constants of the loops themselves, by field of `Memory`."""
    found = {}
    if layer.channel_rows:
        found["row_numbers"] = ChannelSums(layer, product, epilogue.block).row_numbers
    if max(epilogue.classes) > 1:
        _, found["row_classes"], found["column_classes"] = layer.border
    # Were it known that there are so few pixels, LLVM would trace each byte from where it is
    # unpacked to where it is used, which takes it minutes.
    pixels = prepared_rows(layer, product.tile.rows) * padded_width(layer)
    if pixels <= FEW_PIXELS:
        found["pixel_count"] = np.array([pixels], np.int32)
    return found


class _Nest:
    """Loops around a product and an epilogue."""

    def __init__(self, layer: ConvLayer, product: Product, epilogue: Epilogue):
        self.layer, self.product, self.epilogue = layer, product, epilogue
        self.tile = product.tile
        self.blocks_in_group = padded_blocks(product.layer, product.block)
        self.blocks = layer.geometry.groups * self.blocks_in_group
        self.channel_sums = ChannelSums(layer, product, epilogue.block)

    def write(self, memory: Memory, batch: Expr, parallel: bool) -> None:
        """Write the body of the function: a task for some rows and blocks of every image."""
        height, is_dynamic = self.layer.output_size[0], self.layer.has_dynamic_batch
        batch = batch if is_dynamic else self.layer.input_shape[0]
        per_image, splits = height // self.tile.rows, self.tile.splits
        tasks = batch * (per_image * splits)
        loop = T.parallel if parallel and (is_dynamic or tasks > 1) else T.serial
        with loop(0, tasks) as number:
            image = T.Bind(number // (per_image * splits))
            first_row = T.Bind(number // splits % per_image * self.tile.rows)
            self._task(TaskContext(memory, image, first_row), number % splits)

    def _task(self, task: TaskContext, split: Expr) -> None:
        prepared, parts = self.product.prepare(task), self.blocks // self.tile.splits
        parts //= self.product.blocks_at_once
        kept = self.channel_sums.allocate() if self.layer.channel_rows else None
        if self.product.rolls:
            with T.serial(0, self.tile.rows) as row:
                self.product.prepare_row(task, prepared, row)
                with T.serial(0, parts) as part:
                    self._row(task, prepared, self._first(part, split), row, kept)
        else:
            with T.serial(0, parts) as part, T.serial(0, self.tile.rows) as row:
                self._row(task, prepared, self._first(part, split), row, kept)
        if kept is not None:
            self._finish_channels(task, prepared, kept)

    def _first(self, part: Expr, split: Expr) -> Expr:
        """Number of the first block of some that are made at once."""
        at_once = self.product.blocks_at_once
        block = part * at_once if at_once > 1 else part
        per_split = self.blocks // self.tile.splits
        return block + split * per_split if self.tile.splits > 1 else block

    def _row(
        self,
        task: TaskContext,
        prepared: Prepared,
        block: Expr,
        row: Expr,
        kept: tirx.Buffer | None,
    ) -> None:
        """Write one block of the channels of an output row, or keep its sums."""
        group = block // self.blocks_in_group if self.layer.geometry.groups > 1 else 0
        block_in_group = block - group * self.blocks_in_group
        row_class = self._row_class(task, row)
        self.product.begin_row(prepared, row)

        def tile(column: Expr, pixels: int) -> None:
            numbers = (block, group, block_in_group, row, column)
            self._tile(
                TileContext(self.layer, task, prepared, self.blocks, *numbers, pixels, row_class),
                kept,
            )

        whole, rest = divmod(self.layer.output_size[1], self.tile.pixels)
        if whole:
            with T.serial(0, whole) as column:
                tile(column * self.tile.pixels, self.tile.pixels)
        if rest:
            tile(whole * self.tile.pixels, rest)

    def _row_class(self, task: TaskContext, row: Expr) -> Expr | None:
        """Read the class of a row once: LLVM can't know that outputs don't overwrite it."""
        if task.memory.row_classes is None:
            return None
        number = task.memory.row_classes[task.first_row + row]
        return T.Bind(number * self.epilogue.classes[1])

    def _tile(self, tile: TileContext, kept: tirx.Buffer | None) -> None:
        for number, found in enumerate(self.product.sums_of_blocks(tile)):
            if kept is None:
                self._block(tile.of_block(number), found)
            else:
                self.channel_sums.keep(kept, tile.of_block(number), found)

    def _block(self, tile: TileContext, found: list[Sums]) -> None:
        copies = self.layer.copies
        if copies == 1:
            self._finish(tile, found)
            return
        found = [[T.Bind(value) for value in sums] for sums in found]
        with T.serial(0, copies) as copy:
            self._finish(tile.of_copy(copy, copies), found)

    def _finish_channels(self, task: TaskContext, prepared: Prepared, kept: tirx.Buffer) -> None:
        """Write all output channels of a task, whose sums are kept."""
        blocks, numbers = padded_blocks(self.layer, self.epilogue.block), task.memory.row_numbers
        assert numbers is not None
        with T.serial(0, self.tile.rows) as row:
            row_class = self._row_class(task, row)
            with T.grid(self.layer.output_size[1], blocks) as (column, block):
                place = (blocks, block, 0, block, row, column)
                tile = TileContext(self.layer, task, prepared, *place, 1, row_class)
                self.epilogue.finish(tile, 0, self.channel_sums.of(kept, numbers, tile))

    def _finish(self, tile: TileContext, found: list[Sums]) -> None:
        for p, sums in enumerate(found):
            self.epilogue.finish(tile, p, sums)
