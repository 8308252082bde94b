"""Layers for quantization-aware training: each quantizes its own input, then its weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .quantize_op import check_bits, quantize
from .quantizers import hard_relu, hard_tanh, mbn_integers, symmetric_rounding
from .scaled import ScaledModule
from .tiles import check_tiles, tile_of, tile_scales

if TYPE_CHECKING:
    pass  # Of typing itself from Python 3.11 on.

KINDS = ("relu", "tanh")
ROUTES = ("qnn", "mbn")

# Half step of 2^M uniform levels with the least squared error on a Gaussian of variance 1, by M
# (J. Max, "Quantizing for minimum distortion", 1960, continued to 8 bits).
GAUSSIAN_HALF_STEP = {
    2: 0.49784,
    3: 0.29301,
    4: 0.16760,
    5: 0.094069,
    6: 0.052031,
    7: 0.028434,
    8: 0.015381,
}


class _IntegerGrid(nn.Module):
    """Rounds to integers v + o that lie 2 apart: odd and symmetric, or even and from 0 up."""

    step: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, symmetric: bool):
        super().__init__()
        self.bits = check_bits(bits)
        self.rounding = symmetric_rounding(bits) if symmetric else "half_even"
        zero_point = (2**bits - 1) / 2 if symmetric else 0.0
        # Buffers, not literals: torch.export must see constants. They follow from `bits`.
        self.register_buffer("step", torch.tensor(2.0), persistent=False)
        self.register_buffer("zero_point", torch.tensor(zero_point), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return quantize(x, self.step, self.zero_point, self.bits, rounding=self.rounding)


class QActivation(nn.Module):
    r"""Quantized activation: clip, then round to one of 2^k levels.

    A level is :math:`\delta (v + o)`: the half step times an integer (see `integers`).

    Parameters
    ----------
    bits : int
        k, 1..8.
    kind : {"relu", "tanh"}, optional
        ``relu``: HReLU and the levels 0, 1, ..., 2^k - 1 over 2^k - 1. ``tanh``: HTanh and the
        symmetric levels of `q_k`, the sign for 1 bit. Default: ``tanh`` for 1 bit, else ``relu``.
    route : {"qnn", "mbn"}
        How gradients pass in training: straight through, or by the sines of `mbn` (``tanh``
        only). In eval mode, and so in an exported program, both are the op `bitenc_quantize`;
        the two routes agree except within float rounding of a level boundary.
    input_range : float
        r > 0: clip to [0, r] or [-r, r] instead of 1, and scale the levels by r.

    Attributes
    ----------
    top : int
        Largest integer: 2^k - 1 for ``tanh``, twice that for ``relu``.
    half_step : float
        :math:`\delta` = scale / 2 = r / top.

    Raises
    ------
    ValueError
        For an argument outside the sets above.
    """

    def __init__(
        self, bits: int, kind: str | None = None, route: str = "qnn", input_range: float = 1.0
    ):
        super().__init__()
        self.bits = check_bits(bits)
        self.kind = kind or ("tanh" if bits == 1 else "relu")
        self.route = route
        self.input_range = float(input_range)
        check_choice("QActivation: kind", self.kind, KINDS)
        check_choice("QActivation: route", route, ROUTES)
        if route == "mbn" and self.kind != "tanh":
            raise ValueError("QActivation: route 'mbn' has symmetric levels. Use kind='tanh'.")
        if not input_range > 0:
            raise ValueError(f"QActivation: input_range = {input_range}. Use a positive number.")
        self.grid = _IntegerGrid(bits, symmetric=self.kind == "tanh")
        self.top = (2**bits - 1) * (1 if self.kind == "tanh" else 2)
        self.half_step = self.input_range / self.top

    def integers(self, x: Tensor) -> Tensor:
        """v + o of each element, float32: odd in [-top, top] (``tanh``), even in [0, top]."""
        clip = hard_tanh if self.kind == "tanh" else hard_relu
        clipped = clip(x, self.input_range)
        if self.training and self.route == "mbn":
            return mbn_integers(clipped / self.input_range, self.bits)
        return self.grid(clipped * (self.top / self.input_range))

    def forward(self, x: Tensor) -> Tensor:
        """Levels nearest to x, same shape."""
        return self.integers(x) * self.half_step

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"{self.bits}, {self.kind!r}, route={self.route!r}, input_range={self.input_range}"


class QuantizedLayer(ScaledModule):
    """What `QConv2d` and `QLinear` share; a mixin in front of the float layer."""

    weight: Tensor
    weight_scale: Tensor
    out_scale: Tensor
    tile: Tensor | None

    def _init_quantizers(
        self,
        weight_bits: int,
        act_bits: int | None,
        act_kind: str | None,
        act: QActivation | None,
        weight_route: str,
        tiles: int = 1,
    ) -> None:
        name = type(self).__name__
        if act is not None and act_bits is None:
            if act_kind is not None:
                raise ValueError(f"{name}: act= has a kind of its own. Drop act_kind=.")
            self.act = act
        elif act is None and act_bits is not None:
            self.act = QActivation(act_bits, act_kind)
        else:
            raise ValueError(f"{name}: give either act_bits= or act=.")
        check_choice(f"{name}: weight_route", weight_route, ROUTES)
        self.weight_bits = check_bits(weight_bits)
        self.weight_route = weight_route
        self.weight_grid = _IntegerGrid(weight_bits, symmetric=True)
        self.tiles = check_tiles(name, tiles, self.weight, weight_bits, weight_route)
        self.register_buffer("tile", None)
        self.register_buffer("weight_scale", None)
        self.register_buffer("out_scale", None)
        self.update_scales()

    @torch.no_grad()
    def update_scales(self) -> None:
        r"""Recompute the half steps :math:`\delta_w` and `out_scale` from the weight.

        Both happen by themselves in training and on leaving it. Call this after changing the
        weight in eval mode.
        """
        # In float64, so that the result doesn't depend on the order of the sum.
        weight = self._out_channels_first(self.weight.double()).flatten(1)
        if self.tiles > 1:
            self.tile, half_step = tile_of(weight, self.tiles), tile_scales(weight, self.tiles)
        elif self.weight_bits == 1:
            half_step = weight.abs().mean(1)  # least squares for sign(weight), as in XNOR-Net
        else:
            half_step = weight.square().mean(1).sqrt() * GAUSSIAN_HALF_STEP[self.weight_bits]
        # New tensors, not copy_: an earlier forward may still need the old ones for its backward.
        self.weight_scale = half_step.clamp_min(1e-30).float()  # a channel of zeros: no 0 / 0
        out_scale = self.weight_scale * self.act.half_step
        self.out_scale = out_scale.reshape(-1, *[1] * (self.weight.ndim - 2))

    def _out_channels_first(self, weight: Tensor) -> Tensor:
        """The weight with its output channels on axis 0."""
        return weight

    def _along_weight(self, per_channel: Tensor) -> Tensor:
        """Values of output channels, shaped to broadcast with the weight."""
        return per_channel.reshape(-1, *[1] * (self.weight.ndim - 1))

    def weight_integers(self) -> Tensor:
        """Odd integers v of the weight, float32, same shape.

        The gradient of a weight beyond the outermost level is 1, so that it can come back.
        """
        if self.tile is not None:
            copies = self.weight_grid(self.tile).expand(self.tiles, -1).reshape(self.weight.shape)
            # Adds 0, and all of the gradient.
            return copies + (self.weight - self.weight.detach()) if self.training else copies
        in_half_steps = self.weight / self._along_weight(self.weight_scale)
        if not self.training:
            return self.weight_grid(in_half_steps)
        top = 2**self.weight_bits - 1
        clipped = hard_tanh(in_half_steps, top)
        if self.weight_route == "mbn":
            integers = mbn_integers(clipped / top, self.weight_bits)
        else:
            integers = self.weight_grid(clipped)
        beyond = in_half_steps - clipped
        return integers + (beyond - beyond.detach())  # adds 0, and the gradient outside

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            self.update_scales()
        return self.act.integers(x), self.weight_integers()

    def _finish(self, sums: Tensor) -> Tensor:
        scale = self.out_scale
        if self.training and self.tiles > 1:
            scale = scale + self._gradient_of_scales()
        y = sums * scale
        bias = cast("Tensor | None", self.bias)  # Torch declares that of a linear layer as set.
        return y if bias is None else y + bias.reshape(self.out_scale.shape)

    def _gradient_of_scales(self) -> Tensor:
        """0, with the gradient of what tiles are scaled by."""
        scales = tile_scales(self.weight, self.tiles) * self.act.half_step
        return (scales - scales.detach()).reshape(self.out_scale.shape)

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        tiles = f", tiles={self.tiles}" if self.tiles > 1 else ""
        return f"{super().extra_repr()}, weight_bits={self.weight_bits}{tiles}"


class _Convolution(QuantizedLayer):
    """Constructor and mathematics of `QConv1d` and `QConv2d`."""

    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    _convolve: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        weight_bits: int,
        act_bits: int | None = None,
        act_kind: str | None = None,
        act: QActivation | None = None,
        weight_route: str = "qnn",
        tiles: int = 1,
    ):
        name = f"{type(self).__name__}: padding_mode"
        check_choice(name, padding_mode, ("zeros",))
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias
        )
        self._init_quantizers(weight_bits, act_bits, act_kind, act, weight_route, tiles)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, OH, OW) from (N, in_channels, H, W), or of one axis less."""
        window = (self.stride, self.padding, self.dilation, self.groups)
        return self._finish(self._convolve(*self._operands(x), None, *window))


class QConv2d(_Convolution, nn.Conv2d):
    r"""`torch.nn.Conv2d` with M-bit weights that quantizes its input to K bits first.

    .. math:: y_c = \delta_a \delta_{w,c} \sum (v_a + o_a)\, v_w + b_c

    The sum is one of integers: exact in float32, in any order, for up to 2^24 / (2^M-1) / (2^K-1)
    taps (258 of W8A8). Padding adds 0 to it.

    The weight integers v_w are the M-bit symmetric code of weight / :math:`\delta_{w,c}`, with
    one half step per output channel that follows the weight: the mean absolute weight for 1 bit,
    the best for a Gaussian above. In eval mode the half steps are constant.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in `torch.nn.Conv2d`; `padding_mode` must be "zeros".
    weight_bits : int
        M, 1..8.
    act_bits : int, optional
        K, 1..8.
    act_kind : {"relu", "tanh"}, optional
        `kind` of the `QActivation` of the input; its default goes by `act_bits`.
    act : QActivation, optional
        Quantizer of the input, in place of `act_bits` and `act_kind`.
    weight_route : {"qnn", "mbn"}
        Gradients of the weight in training: straight through, or by the sines of `mbn`.
    tiles : int
        p: the weights, of one bit, are p copies of one tile, see `tvm_bitenc.nn.tiles`. They take a
        p-th of the memory, and of the time where p divides the output channels.

    Attributes
    ----------
    weight_scale : Tensor of float32, shape (out_channels,)
        Half steps :math:`\delta_w`.
    out_scale : Tensor of float32, shape (out_channels, 1, 1)
        :math:`\delta_a \delta_w`.

    Raises
    ------
    ValueError
        For arguments outside these sets, or both or neither of `act_bits` and `act`.
    """

    _convolve = staticmethod(functional.conv2d)


class QConv1d(_Convolution, nn.Conv1d):
    """`torch.nn.Conv1d` with M-bit weights that quantizes its input to K bits first.

    Mathematics, keyword arguments, attributes and errors are those of `QConv2d`, but `out_scale`
    has shape (out_channels, 1).
    """

    _convolve = staticmethod(functional.conv1d)


class QLinear(QuantizedLayer, nn.Linear):
    """`torch.nn.Linear` with M-bit weights that quantizes its input to K bits first.

    Mathematics, keyword arguments, attributes and errors are those of `QConv2d`, but `out_scale`
    has shape (out_features,).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_bits: int,
        act_bits: int | None = None,
        act_kind: str | None = None,
        act: QActivation | None = None,
        weight_route: str = "qnn",
        tiles: int = 1,
    ):
        super().__init__(in_features, out_features, bias)
        self._init_quantizers(weight_bits, act_bits, act_kind, act, weight_route, tiles)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (..., out_features) from (..., in_features)."""
        return self._finish(functional.linear(*self._operands(x)))


def check_choice(what: str, value: str, choices: Iterable[str]) -> None:
    """Raise `ValueError` unless a value is one of some choices."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{what} {value!r}. Use one of {choices}.")
