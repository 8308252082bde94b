"""A first layer that reads the bit planes of an image, each by weights of its own (2305.02885)."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from .layers import _IntegerGrid
from .quantize_op import check_bits
from .scaled import ScaledModule


class BitPlaneConv2d(ScaledModule):
    r"""Convolution of an image's bit planes with binary weights of their own.

    .. math:: y_c = \delta_c \sum_{i} 2^i\, (\mathrm{sign}(W_{i,c}) * \mathrm{plane}_i(x)) + b_c

    A plane holds bit i of every number, 0 or 1. The sum is one of integers: exact in float32, in
    any order, for up to 2^24 / (2^bits - 1) taps. Padding adds 0 to it. Its scale,
    :math:`\delta_c = \mathrm{mean} |W_{i,c}| / (2^{bits} - 1)`, is that of a convolution of an
    image in 0 ... 1. In eval mode it is constant.

    Signs have straight-through gradients: that of a weight is that of its sign from -1 to 1, and 0
    outside. An image, whose bits these are, has none.

    The compiler makes one layer of it whose weight planes are the bits of a multi-bit code: it
    needs no multiplier. With `groups` it stays one layer as well.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        As in `torch.nn.Conv2d`; padding is a number or two.
    bits : int
        Planes of a number, 1..8.

    Attributes
    ----------
    weight : Parameter of float32
        Shape (bits, out_channels, in_channels / groups, kernel_h, kernel_w), lowest plane first.
    bias : Parameter of float32, shape (out_channels,), or None
    out_scale : Tensor of float32, shape (out_channels, 1, 1)
        :math:`\delta`.

    Raises
    ------
    ValueError
        For bits outside 1..8, padding by name, or groups that don't divide the channels.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    out_scale: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        bits: int = 8,
    ):
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"BitPlaneConv2d: groups = {groups} doesn't divide {in_channels} and"
                f" {out_channels} channels. Use a divisor of both."
            )
        if isinstance(padding, str):
            raise ValueError(f"BitPlaneConv2d: padding = {padding!r}. Use a number or two.")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.bits = check_bits(bits)
        shape = bits, out_channels, in_channels // groups, *self.kernel_size
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.sign = _IntegerGrid(1, symmetric=True)
        self.register_buffer("out_scale", torch.ones(out_channels, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and bias as `torch.nn.Conv2d` draws them."""
        bound = 1 / math.sqrt(self.weight[0, 0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        self.update_scales()

    @torch.no_grad()
    def update_scales(self) -> None:
        """Recompute `out_scale`, as happens in training and on leaving it by itself."""
        mean = self.weight.double().abs().mean((0, 2, 3, 4)) / (2**self.bits - 1)
        # A new tensor: an earlier forward may still need the old one for its backward.
        self.out_scale = mean.clamp_min(1e-30).float().reshape(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the bits of an image.

        Parameters
        ----------
        x : Tensor of uint8 or of float, shape (N, in_channels, H, W)
            Numbers from 0 to 2^bits - 1; of a float, the integer part counts.

        Returns
        -------
        Tensor of float32, shape (N, out_channels, OH, OW)
        """
        if self.training:
            self.update_scales()
        with _without_autocast(x.device.type):
            signs = self.sign(self.weight.float())
            window = self.stride, self.padding, self.dilation, self.groups
            y = functional.conv2d(self._plane(x, 0), signs[0], None, *window)
            for i in range(1, self.bits):
                y = y + 2**i * functional.conv2d(self._plane(x, i), signs[i], None, *window)
            y = y * self.out_scale
            return y if self.bias is None else y + self.bias.float().reshape(-1, 1, 1)

    def _plane(self, x: Tensor, i: int) -> Tensor:
        if x.is_floating_point():
            return torch.remainder(torch.floor(x.float() / 2**i), 2)
        return ((x >> i) & 1).float()

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size},"
            f" stride={self.stride}, padding={self.padding}, groups={self.groups}, bits={self.bits}"
        )


def _without_autocast(device: str) -> contextlib.AbstractContextManager:
    """Sums of planes are integers, beyond what 16-bit floats hold."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
