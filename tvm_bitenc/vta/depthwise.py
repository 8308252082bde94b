"""Depthwise layers: bits of activations choose numbers."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..encoding import WORD_BITS
from ..layer import ConvLayer
from . import isa
from .constants import Constants
from .passes import Pass, passes_of_planes


class DepthwiseConstants(Constants):
    r"""A layer whose channels have windows of their own.

    A bit of an activation plane chooses between two numbers v0 and v1 for each weight w, so that
    all planes of the weights count in one step. As -2 v, with the plane c of -1 and +1 they count

    .. math:: c (v_0 - v_1) - (v_0 + v_1), \qquad w = v_0 - v_1
    """

    @property
    def is_depthwise(self) -> bool:  # noqa: D102
        return True

    @cached_property
    def weight_planes(self) -> list[int]:
        """One, of numbers."""
        return [0]

    @property
    def branches(self) -> int:
        """How many pairs of planes there are."""
        return self.layer.geometry.branch_count

    @cached_property
    def factor(self) -> np.ndarray:
        """Numbers contain the weights' offsets: int64 zeros, of each output channel."""
        return np.zeros(len(self.layer.weight_codes), np.int64)

    def _passes(self, together: int) -> list[Pass]:
        """A pass for each activation plane."""
        return passes_of_planes(self.layer.geometry.act_coefficients)

    def channels_read(self, first: int) -> range:
        """Input channels of the word in which that of an output channel lies."""
        size = min(self.depth, WORD_BITS)
        word = first // size * size
        return range(word, word + size)

    @cached_property
    def numbers(self) -> np.ndarray:
        """v0 and v1 of each weight, one of them 0: int64 (2, out_channels, 1, height, width)."""
        integers = self.layer.weight_integers.astype(np.int64)
        return np.stack([np.maximum(integers, 0), np.maximum(-integers, 0)])

    @cached_property
    def border(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `ConvLayer.border`; the planes of a tap outside the image are -1."""
        layer, (_, *classes) = self.layer, self.layer.border
        top, inside = sum(layer.geometry.act_coefficients), layer.integers_inside
        total = layer.weight_integers.sum(axis=(1, 2, 3), dtype=np.int64)
        outside = total - inside + self.numbers.sum(axis=(0, 2, 3, 4))
        table = layer.geometry.act_offset * inside + top * outside
        return (table.astype(np.int32), *classes)

    def weight_words(self, channels: slice) -> np.ndarray:
        """Both numbers of each weight, as of `Constants.weight_words`."""
        first, second = self.numbers[:, channels]
        numbers = (first | second << isa.LOOKUP_BITS).reshape(len(first), -1).T
        words = np.zeros((*numbers.shape, self.depth // 8), np.uint8)
        words[..., :4] = np.ascontiguousarray(numbers, "<u4")[..., None].view(np.uint8)
        return self._in_rows(words)


def is_depthwise(layer: ConvLayer) -> bool:
    """Whether each output channel reads the input channel of its own number alone."""
    channels = len(layer.weight_codes) == layer.geometry.groups == layer.input_shape[3]
    return channels and layer.geometry.groups > 1 and layer.geometry.is_product
