"""How the CPU hands over an image: the bits under each window side by side in words.

A pixel of three channels fills three bits of a word of its own, which the array would count like a
full one for each tap of a kernel. Side by side, the 27 bits under a window of 3 x 3 take one word,
and the layer is one of 1 x 1 windows. Taps outside the image are code 0, as they are where the
accelerator finds them itself; the border constants of the layer don't change. Planes of a window
may lie side by side as well: two of 27 bits in a word.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from ..encoding import WORD_BITS
from ..layer import ConvLayer
from .passes import PlaneLayout

LEAST_GAIN = 4  # In words per window: below it the CPU's work isn't worth while.


@dataclass(frozen=True)
class WindowPacking:
    """Sizes of an image and of the windows on it.

    Parameters
    ----------
    batch, height, width, channels, bits : int
        Of the image; at most 64 channels.
    kernel_h, kernel_w, stride_y, stride_x, dilation_y, dilation_x : int
    top, left : int
        Padding in front of the image.
    out_height, out_width : int
        Windows on it.
    together : int
        How many planes of a window lie side by side, see `PlaneLayout`.
    """

    batch: int
    height: int
    width: int
    channels: int
    bits: int
    kernel_h: int
    kernel_w: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    top: int
    left: int
    out_height: int
    out_width: int
    together: int = 1

    @property
    def window_bits(self) -> int:
        """Bits of a window in each plane."""
        return self.kernel_h * self.kernel_w * self.channels

    @property
    def layout(self) -> PlaneLayout:
        """Where the planes of a window lie in its words."""
        return PlaneLayout(self.bits, self.window_bits, self.together)

    @property
    def image_words(self) -> int:
        """Words of the image's planes as they are."""
        return self.batch * self.height * self.width * self.bits

    @property
    def packed_words(self) -> int:
        """Words of all windows."""
        return self.batch * self.out_height * self.out_width * self.layout.words

    @property
    def is_worth_while(self) -> bool:
        """Whether windows take a fraction of the words to count, and no more memory."""
        is_less = LEAST_GAIN * self.layout.words <= self.kernel_h * self.kernel_w * self.bits
        return is_less and self.packed_words <= self.image_words

    def packed(self, planes: np.ndarray) -> np.ndarray:
        """Pack planes uint64 (N, H, W, bits, 1), of any shape: (N, out_h, out_w, words)."""
        shape = (self.batch, self.height, self.width, self.bits)
        padded = np.pad(planes.reshape(shape), [(0, 0), *self._padding, (0, 0)])
        padded &= np.uint64((1 << self.channels) - 1)
        windows = (self.batch, self.out_height, self.out_width, self.layout.words)
        found = np.zeros(windows, np.uint64)
        for tap, plane in np.ndindex(self.kernel_h * self.kernel_w, self.bits):
            i, j = divmod(tap, self.kernel_w)
            bits = padded[:, self._under(0, i), self._under(1, j), plane]
            word, shift = divmod(self.layout.place(plane) + tap * self.channels, WORD_BITS)
            found[..., word] |= bits << np.uint64(shift)
            if shift + self.channels > WORD_BITS:
                found[..., word + 1] |= bits >> np.uint64(WORD_BITS - shift)
        return found

    def _under(self, axis: int, tap: int) -> slice:
        """Rows or columns of the padded image under one row or column of the kernel."""
        stride, dilation, windows = (
            (self.stride_y, self.dilation_y, self.out_height),
            (self.stride_x, self.dilation_x, self.out_width),
        )[axis]
        return slice(tap * dilation, tap * dilation + (windows - 1) * stride + 1, stride)

    @property
    def _padding(self) -> list[tuple[int, int]]:
        """Rows and columns around the image, as far as windows reach."""
        last = self._under(0, self.kernel_h - 1).stop, self._under(1, self.kernel_w - 1).stop
        bottom, right = last[0] - self.top - self.height, last[1] - self.left - self.width
        return [(self.top, max(bottom, 0)), (self.left, max(right, 0))]


SIZES = len(WindowPacking.__dataclass_fields__)


def packing_of(layer: ConvLayer) -> WindowPacking | None:
    """How an image is handed over to a layer; None where its planes come as they are."""
    batch, height, width, channels = layer.input_shape
    geometry, (top, left) = layer.geometry, layer.geometry.padding[:2]
    found = WindowPacking(
        *(batch, height, width, channels, layer.act_bits, *layer.kernel_size),
        *(*geometry.strides, *geometry.dilation, top, left, *layer.output_size),
    )
    return found if layer.words == 1 and geometry.groups == 1 and found.is_worth_while else None


def encode(packing: WindowPacking | None) -> tuple[int, ...]:
    """Return its sizes as numbers; zeros for none."""
    return (0,) * SIZES if packing is None else astuple(packing)


def decode(sizes: tuple[int, ...]) -> WindowPacking | None:
    """Inverse of `encode`."""
    return WindowPacking(*sizes) if any(sizes) else None
