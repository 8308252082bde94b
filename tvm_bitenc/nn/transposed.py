"""Transposed convolutions for quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from .layers import QActivation, QuantizedLayer


class _TransposedConvolution(QuantizedLayer):
    """Constructor and mathematics of `QConvTranspose1d` and `QConvTranspose2d`."""

    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    _output_padding: Callable[..., list[int]]
    _convolve: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        *,
        weight_bits: int,
        act_bits: int | None = None,
        act_kind: str | None = None,
        act: QActivation | None = None,
        weight_route: str = "qnn",
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
        )
        self._init_quantizers(weight_bits, act_bits, act_kind, act, weight_route)

    def _out_channels_first(self, weight: Tensor) -> Tensor:
        in_channels, per_group, *taps = weight.shape
        grouped = weight.reshape(self.groups, in_channels // self.groups, per_group, *taps)
        return grouped.transpose(1, 2).reshape(self.out_channels, -1, *taps)

    def _along_weight(self, per_channel: Tensor) -> Tensor:
        in_channels, per_group, *taps = self.weight.shape
        grouped = per_channel.reshape(self.groups, 1, per_group)
        every = grouped.expand(self.groups, in_channels // self.groups, per_group)
        return every.reshape(in_channels, per_group, *[1] * len(taps))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Float32 (N, out_channels, OH, OW) from (N, in_channels, H, W), or of one axis less."""
        sizes = (self.stride, self.padding, self.kernel_size, len(self.kernel_size), self.dilation)
        more = self._output_padding(x, output_size, *sizes)
        window = (self.stride, self.padding, more, self.groups, self.dilation)
        return self._finish(self._convolve(*self._operands(x), None, *window))


class QConvTranspose2d(_TransposedConvolution, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with M-bit weights that quantizes its input to K bits first.

    Mathematics, keyword arguments, attributes and errors are those of `QConv2d`; there is one half
    step of the weight per output channel here as well.
    """

    _convolve = staticmethod(functional.conv_transpose2d)


class QConvTranspose1d(_TransposedConvolution, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d`, quantized as `QConvTranspose2d` is."""

    _convolve = staticmethod(functional.conv_transpose1d)
