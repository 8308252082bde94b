"""The geometry that a kernel sees: images as rows, rows with padding, blocks of channels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...layer import ConvLayer
from .tile import divisors

FEW_PIXELS = 32  # Prepared ones: the loops' number is kept from LLVM, see `conv2d`.
NEAR_BITS = 5 << 18  # Of weights that the second-level cache holds beside prepared rows.


def flattened(layer: ConvLayer) -> ConvLayer:
    """Return a layer that reads and writes the same memory, seen as one long row where possible.

    A 1x1 convolution takes all pixels of all images as one row; a window as large as the image
    (a dense layer) takes each image as one pixel of a row with a 1 x (H W) window. More pixels in
    a row fill tiles better. Where the batch is dynamic every image is a row of its own.
    """
    batch, height, width, channels = layer.input_shape
    geometry, (kernel_h, kernel_w) = layer.geometry, layer.kernel_size
    if any(geometry.padding) or geometry.groups > 1:
        return layer
    if (kernel_h, kernel_w) == (1, 1) and geometry.strides == (1, 1):
        window, strides = (1, 1), (1, 1)
    elif (kernel_h, kernel_w) == (height, width):
        window, strides = (1, height * width), (1, height * width)
    else:
        return layer
    weight = layer.weight_codes.reshape(*layer.weight_codes.shape[:2], *window)
    return replace(
        layer,
        input_shape=(1, 1, batch * height * width, channels),
        weight_codes=weight,
        geometry=replace(geometry, strides=strides, dilation=(1, 1)),
    )


def in_rows(layer: ConvLayer, pixels: int) -> ConvLayer:
    """Return a layer of one row and one tap, see `flattened`, seen as rows of so many pixels."""
    batch, height, width, channels = layer.input_shape
    assert (batch, height, layer.kernel_size) == (1, 1, (1, 1)) and width % pixels == 0
    return replace(layer, input_shape=(1, width // pixels, pixels, channels))


def prepared_rows(layer: ConvLayer, rows: int) -> int:
    """Input rows under the windows of `rows` output rows."""
    geometry = layer.geometry
    return (rows - 1) * geometry.strides[0] + geometry.dilation[0] * (layer.kernel_size[0] - 1) + 1


def padded_width(layer: ConvLayer) -> int:
    """Input columns with padding."""
    return layer.input_shape[2] + layer.geometry.padding[1] + layer.geometry.padding[3]


def can_roll(layer: ConvLayer, rows: int) -> bool:
    """Whether windows of `rows` output rows overlap, so that prepared rows may be used again.

    Blocks of output channels are the inner loop then: their weights have to stay near.
    """
    overlap = prepared_rows(layer, 1) > layer.geometry.strides[0]
    are_few = prepared_rows(layer, rows) * padded_width(layer) <= FEW_PIXELS
    are_near = layer.weight_codes.size * layer.weight_bits <= NEAR_BITS
    return rows > 1 and overlap and are_near and not are_few


def rows_at_once(layer: ConvLayer, row_bytes: int, budget: int, tasks: int) -> int:
    """Rows to prepare together: as many as fit `budget` bytes and leave `tasks` parts to run.

    Parameters
    ----------
    row_bytes : int
        Size of a prepared input row.
    budget : int
    tasks : int
        Parts of the image wanted at least, if the image has as many rows.
    """
    height, batch = layer.output_size[0], layer.input_shape[0]
    fitting = [
        rows
        for rows in divisors(height)
        if prepared_rows(layer, rows) * row_bytes <= budget and batch * height // rows >= tasks
    ]
    return max(fitting, default=1)


def padded_blocks(layer: ConvLayer, block: int) -> int:
    """Blocks of `block` output channels that hold a group's."""
    return -(-(layer.out_channels // layer.geometry.groups) // block)


def blocks_at_once(layer: ConvLayer, block: int, most: int, splits: int = 1) -> int:
    """How many neighbouring blocks of a group, and of a split, a product makes at once.

    Parameters
    ----------
    layer : ConvLayer
    block : int
        Output channels of one.
    most : int
        What registers hold; one is made in any case.
    splits : int
        See `Tile`.
    """
    in_group = padded_blocks(layer, block)
    common = math.gcd(in_group, layer.geometry.groups * in_group // splits)
    return max(d for d in divisors(common) if d <= max(most, 1))


def by_block(values: np.ndarray, layer: ConvLayer, block: int) -> np.ndarray:
    """Pad the last axis, output channels, with 0 so that every group fills whole blocks.

    Returns
    -------
    ndarray, shape (..., groups * blocks * block)
    """
    groups = layer.geometry.groups
    grouped = values.reshape(*values.shape[:-1], groups, -1)
    missing = padded_blocks(layer, block) * block - grouped.shape[-1]
    grouped = np.pad(grouped, [(0, 0)] * (grouped.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(grouped.reshape(*values.shape[:-1], -1))
