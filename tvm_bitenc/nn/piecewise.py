r"""Piecewise approximation of weights and activations (PA-Net, Zhu et al., arXiv 2008.03520).

Weights are cut at endpoints, which follow from their mean and deviation, into pieces. All weights
of a piece are one coefficient, the mean of the piece, and those around the mean of all are 0.
Activations are a sum of steps with trained places :math:`v_j` and heights :math:`\beta_j`:

.. math:: a = \sum_j \beta_j\, [x > v_j]

Both are planes of bits. Coefficients are integers of 8 bits times a scale, so that sums of products
are integers.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .scaled import ScaledModule

MAX_STEPS = 8
TOP_LEVEL, TOP_WEIGHT = 255, 127  # Largest integers: of 8 bits without a sign, and with one.


class PiecewiseActivation(ScaledModule):
    r"""Sum of steps whose places and heights are trained.

    The gradient of a step is that of a ramp of its height around its place, half way to the
    neighbouring steps on either side: evenly spaced steps pass gradients straight through. Heights
    get the gradient of the sum as it is.

    Parameters
    ----------
    steps : int
        1..8.
    input_range : float
        At first the steps are those that round [0, input_range] to `steps` + 1 levels.

    Attributes
    ----------
    bounds, heights : Parameter of float32, shape (steps,)
        :math:`v_j` and :math:`\beta_j`. A height below the scale counts as the scale.
    coefficients : Tensor of float32, shape (steps,)
        Heights as integers from 1 on, whose sum is 255 at most.
    scale : Tensor of float32, shape ()
        Height of the integer 1.

    Raises
    ------
    ValueError
        For an argument outside these sets.
    """

    coefficients: Tensor
    scale: Tensor

    def __init__(self, steps: int, input_range: float = 1.0):
        super().__init__()
        if not (isinstance(steps, int) and 1 <= steps <= MAX_STEPS):
            raise ValueError(f"PiecewiseActivation: steps = {steps!r}. Use 1 to {MAX_STEPS}.")
        if not input_range > 0:
            raise ValueError(
                f"PiecewiseActivation: input_range = {input_range}. Use a positive number."
            )
        height = float(input_range) / steps
        self.bounds = nn.Parameter((torch.arange(steps) + 0.5) * height)
        self.heights = nn.Parameter(torch.full((steps,), height))
        self.register_buffer("coefficients", None)
        self.register_buffer("scale", None)
        self.update_scales()

    @torch.no_grad()
    def update_scales(self) -> None:
        """Recompute `coefficients` and `scale` from the heights."""
        heights = self.heights.double().clamp_min(0)
        # Each rounds up by 1/2 at most, or to 1: the sum stays within 8 bits.
        scale = (heights.sum() / (TOP_LEVEL - len(heights))).clamp_min(1e-30)
        self.scale = scale.float()
        self.coefficients = (heights / scale).round().clamp_min(1).float()

    def integers(self, x: Tensor) -> Tensor:
        """Levels as multiples of `scale`, float32: whole numbers from 0 to 255."""
        coefficients = self.coefficients
        if self.training:
            self.update_scales()
            real = self.heights / self.scale
            coefficients = self.coefficients + (real - real.detach())  # Adds 0, and the gradient.
        return cast("Tensor", _Steps.apply(x.float(), self.bounds, coefficients))

    def forward(self, x: Tensor) -> Tensor:
        """Levels of x, same shape, float32."""
        return self.integers(x) * self.scale

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"{len(self.bounds)}"


class PiecewiseConv2d(ScaledModule, nn.Conv2d):
    r"""`torch.nn.Conv2d` of weights cut into pieces, which makes its input a sum of steps first.

    .. math:: y = s_a s_w \sum a\, w + b

    with integers a in 0 ... 255 and w in -127 ... 127: the sum is one of integers, exact in float32
    up to 2^24. The compiler packs both into planes, one for each step and piece at most.

    The gradient of the weight is that of the convolution by the pieces' coefficients: it passes
    straight through the cut. Of `act`, see `PiecewiseActivation`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in `torch.nn.Conv2d`; `padding_mode` must be "zeros".
    weight_pieces : int
        2, 4, 6 or 8 beside the piece that is 0. Their endpoints lie a standard deviation apart.
    act_steps : int, optional
        Steps of the input, 1..8.
    act : PiecewiseActivation, optional
        What makes the input a sum of steps, in place of `act_steps`.

    Attributes
    ----------
    coefficients : Tensor of float32, shape (weight_pieces + 1,)
        Integers of the pieces, lowest first.
    weight_scale : Tensor of float32, shape ()
        :math:`s_w`: the largest coefficient is 127 times it.

    Raises
    ------
    ValueError
        For arguments outside these sets, or both or neither of `act_steps` and `act`.
    """

    endpoints: Tensor
    coefficients: Tensor
    weight_scale: Tensor

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
        weight_pieces: int = 4,
        act_steps: int | None = None,
        act: PiecewiseActivation | None = None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f"PiecewiseConv2d: padding_mode = {padding_mode!r}. Use 'zeros'.")
        if weight_pieces not in (2, 4, 6, 8):
            raise ValueError(f"PiecewiseConv2d: weight_pieces = {weight_pieces!r}. Use 2, 4, 6, 8.")
        if (act is None) == (act_steps is None):
            raise ValueError("PiecewiseConv2d: give either act_steps= or act=.")
        window = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        super().__init__(*window)
        self.weight_pieces = weight_pieces
        self.act = PiecewiseActivation(act_steps) if act_steps is not None else cast("Any", act)
        for name in ("endpoints", "coefficients", "weight_scale"):
            self.register_buffer(name, None)
        self.update_scales()

    @torch.no_grad()
    def update_scales(self) -> None:
        """Recompute endpoints and coefficients from the weight.

        That happens by itself in training and on leaving it. Call this after changing the weight in
        eval mode.
        """
        weight, count = self.weight.double(), self.weight_pieces
        places = torch.arange(count, device=weight.device) - (count - 1) / 2
        self.endpoints = (weight.mean() + places * weight.std(correction=0)).float()
        piece = torch.bucketize(self.weight, self.endpoints).flatten()
        sums, sizes = (
            torch.zeros(count + 1, dtype=weight.dtype, device=weight.device).index_add_(0, piece, v)
            for v in (weight.flatten(), torch.ones_like(weight).flatten())
        )
        means = sums / sizes.clamp_min(1)
        means[count // 2] = 0
        scale = (means.abs().max() / TOP_WEIGHT).clamp_min(1e-30)
        self.weight_scale, self.coefficients = scale.float(), (means / scale).round().float()

    def weight_integers(self) -> Tensor:
        """Coefficient of each weight's piece, float32, same shape."""
        integers = self.coefficients[torch.bucketize(self.weight, self.endpoints)]
        if not self.training:
            return integers
        in_scales = self.weight / self.weight_scale
        return integers + (in_scales - in_scales.detach())  # Adds 0, and the gradient.

    def forward(self, x: Tensor) -> Tensor:
        """Float32 (N, out_channels, OH, OW) from (N, in_channels, H, W), or without N."""
        if self.training:
            self.update_scales()
        operands = self.act.integers(x), self.weight_integers()
        window: Any = (self.stride, self.padding, self.dilation, self.groups)
        sums = functional.conv2d(*operands, None, *window)
        y = sums * (self.act.scale * self.weight_scale)
        return y if self.bias is None else y + self.bias.reshape(-1, 1, 1)

    def extra_repr(self) -> str:
        """Arguments for `repr`."""
        return f"{super().extra_repr()}, weight_pieces={self.weight_pieces}"


class _Steps(torch.autograd.Function):
    """Sum of steps, with the gradients of `PiecewiseActivation`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bounds: Tensor, coefficients: Tensor) -> Tensor:
        ctx.save_for_backward(x, bounds, coefficients)
        total = (x > bounds[0]).float() * coefficients[0]
        for i in range(1, len(bounds)):
            total = total + (x > bounds[i]).float() * coefficients[i]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bounds, coefficients = ctx.saved_tensors
        (grad,), of_x = grads, torch.zeros_like(x)
        of_bounds, of_coefficients = torch.zeros_like(bounds), torch.zeros_like(coefficients)
        for i, (start, end) in enumerate(_ramps(bounds)):
            inside = (start < x) & (x <= end)
            through = grad * inside * (coefficients[i] / (end - start))
            of_x += through
            of_bounds[i] = -through.sum()
            of_coefficients[i] = (grad * (x > bounds[i])).sum()
        return of_x, of_bounds, of_coefficients


def _ramps(bounds: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Where the ramp of each step starts and ends: half way to its neighbours, or as far alone."""
    places, order = bounds.sort()
    if len(bounds) == 1:
        return [(places[0] - 0.5, places[0] + 0.5)]
    gaps = places.diff().clamp_min(torch.finfo(places.dtype).eps)
    gaps = torch.cat([gaps[:1], gaps, gaps[-1:]]) / 2
    starts, ends = torch.empty_like(bounds), torch.empty_like(bounds)
    starts[order], ends[order] = places - gaps[:-1], places + gaps[1:]
    return list(zip(starts, ends))
