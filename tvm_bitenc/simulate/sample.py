"""Layers made up from a line of text, to see what one costs without a network."""

from __future__ import annotations

import re

import numpy as np

from ..branches import BranchGeometry
from ..encoding import Encoding
from ..errors import BitencError
from ..layer import ConvLayer

_SIZE = r"([1-9]\d*)"
_LAYER = re.compile(
    rf"{_SIZE}x{_SIZE} {_SIZE}->{_SIZE} @{_SIZE}(?:x{_SIZE})?(?:/{_SIZE})?(?: tiles={_SIZE})?"
)
_BITS = re.compile(r"W([1-8])A([1-8])")


def sample_layer(layer: str, bits: str, seed: int = 0) -> ConvLayer:
    """Return a convolution with random weights and thresholds, padded by half its kernel.

    Parameters
    ----------
    layer : str
        As reports print it: ``3x3 64->128 @28x28/2 tiles=4`` is kernel, channels in and out, output
        size and stride, and how many output channels share each set of weights.
    bits : str
        ``W2A4``: 2-bit weights, 4-bit activations, of the output as well.

    Raises
    ------
    BitencError
        If either can't be read.
    """
    window, widths = _LAYER.fullmatch(layer), _BITS.fullmatch(bits)
    if window is None or widths is None:
        wrong, example = (layer, "3x3 64->64 @56") if window is None else (bits, "W2A2")
        raise BitencError(f"layer {wrong!r}", "can't be read", f"Write it as {example}")
    kernel_h, kernel_w, channels, out_channels, height, width, stride, tiles = (
        int(value or 0) for value in window.groups()
    )
    width, stride, tiles = width or height, stride or 1, tiles or 1
    if out_channels % tiles:
        cause = f"{out_channels} output channels aren't {tiles} tiles"
        raise BitencError(f"layer {layer!r}", cause, "Give a divisor")
    weight, act = Encoding.signed(int(widths[1])), Encoding.unsigned(int(widths[2]))
    top, left = kernel_h // 2, kernel_w // 2
    geometry = BranchGeometry(
        act.integer_coefficients,
        weight.integer_coefficients,
        int(act.offset),
        (stride, stride),
        (top, left, top, left),
    )
    rng = np.random.default_rng(seed)
    shape = (out_channels // tiles, channels, kernel_h, kernel_w)
    codes = rng.integers(0, 2**weight.bits, shape)
    sums = np.sqrt(codes[0].size) * 2 ** (weight.bits + act.bits - 1)
    thresholds = rng.normal(0, sums, (2**act.bits - 1, out_channels)).astype(np.int32)
    return ConvLayer(
        f"{layer} {bits}",
        (1, (height - 1) * stride + 1, (width - 1) * stride + 1, channels),
        codes.astype(np.uint8),
        np.full(out_channels // tiles, int(weight.offset), np.int32),
        geometry,
        np.sort(thresholds, axis=0),
        np.ones(out_channels, np.int32),
        copies=tiles,
    )
