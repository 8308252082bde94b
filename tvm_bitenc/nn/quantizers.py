"""The quantizers of arXiv 2106.09886: q_k and the trigonometric encoders of its MBN route."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from .quantize_op import check_bits, quantize


def hard_tanh(x: Tensor, limit: float = 1.0) -> Tensor:
    """HTanh: clip to [-limit, limit]; the gradient is 1 there, ends included, and 0 outside."""
    return torch.clamp(x, -limit, limit)


def hard_relu(x: Tensor, limit: float = 1.0) -> Tensor:
    """HReLU: clip to [0, limit]; the gradient is 1 there, ends included, and 0 outside."""
    return torch.clamp(x, 0.0, limit)


def q_k(x: Tensor, bits: int) -> Tensor:
    r"""The paper's k-bit quantizer on [-1, 1], with a straight-through gradient.

    .. math:: q_k(x) = 2 \left( \frac{\mathrm{round}((2^k-1)(x+1)/2)}{2^k-1} - \frac12 \right)

    For 1 bit it is sign(x), with sign(0) = +1.

    Parameters
    ----------
    x : Tensor of float32
        Clipped to [-1, 1] first.
    bits : int
        k, 1..8.

    Returns
    -------
    Tensor of float32
        Multiples of 1 / (2^k - 1).

    Raises
    ------
    ValueError
        For bits outside 1..8 or another dtype.
    """
    top = 2 ** check_bits(bits) - 1
    integers = quantize(hard_tanh(x) * top, 2.0, top / 2, bits, rounding=symmetric_rounding(bits))
    return integers / top


def symmetric_rounding(bits: int) -> str:
    """Rounding of the symmetric levels: 1 bit is the sign, which rounding would tie at 0."""
    return "sign" if bits == 1 else "half_even"


class _SignOfSine(torch.autograd.Function):
    """sign with sign(0) = +1 whose gradient is the identity, so that the sine's comes through."""

    @staticmethod
    def forward(ctx: FunctionCtx, sine: Tensor) -> Tensor:
        return torch.where(sine >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        return grad


def mbn_planes(x: Tensor, bits: int) -> tuple[Tensor, ...]:
    r"""{-1,+1} planes of the k-bit code of x, each the sign of one sine (multi-branch encoder).

    .. math:: \phi_m(x) = \mathrm{sign}(-\sin(\pi t / 2^m)), \qquad
              t = \frac{(2^k - 1) x + 2^k}{2}

    Why: the code that q_k rounds x to is u = floor(t). Bit m of u is set iff floor(t / 2^m) is
    odd, that is, iff :math:`\sin(\pi t / 2^m) < 0`. For k = 2 these are the paper's
    :math:`\phi_1 = \mathrm{sign}(\sin(\tfrac34 \pi x))` (there :math:`\phi_2`) and
    :math:`\phi_0 = \mathrm{sign}(-\sin(\tfrac32 \pi x))` (there :math:`\phi_1`); for k = 1,
    :math:`\mathrm{sign}(\sin(\tfrac12 \pi x)) = \mathrm{sign}(x)`.

    The gradient of plane m is that of its sine,
    :math:`-\frac{\pi (2^k - 1)}{2^{m+1}} \cos(\pi t / 2^m)`.

    Parameters
    ----------
    x : Tensor of float32
        In [-1, 1].
    bits : int
        k, 1..8.

    Returns
    -------
    tuple of k Tensors of float32
        Lowest plane first.

    Raises
    ------
    ValueError
        For bits outside 1..8.
    """
    t = ((2 ** check_bits(bits) - 1) * x + 2**bits) / 2
    return tuple(_SignOfSine.apply(-torch.sin(t * (math.pi / 2**m))) for m in range(bits))


def mbn_integers(x: Tensor, bits: int) -> Tensor:
    r"""Bipolar values :math:`v = \sum_m 2^m \phi_m(x)`: the odd integers of x in [-1, 1]."""
    return sum(2**m * plane for m, plane in enumerate(mbn_planes(x, bits)))


def mbn(x: Tensor, bits: int) -> Tensor:
    r"""q_k built from the planes: :math:`\frac{1}{2^k-1} \sum_m 2^m \phi_m(x)`.

    Equal to `q_k` except within float rounding of a tie. Its gradient is
    :math:`-\frac{\pi}{2} \sum_m \cos(\pi t / 2^m)`, with t as in `mbn_planes`.
    """
    return mbn_integers(x, bits) / (2**bits - 1)
