"""The torch op `bitenc::bitenc_quantize`: float32 in, float32 on the grid of a code out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROUNDINGS = ("half_even", "sign")


def quantize(
    x: Tensor,
    scale: Tensor | float,
    zero_point: Tensor | float,
    bits: int,
    axis: int = -1,
    rounding: str = "half_even",
) -> Tensor:
    r"""Round to the nearest level of a grid; the compiler reproduces it bit for bit.

    In float32 and in this order, with ties to even,

    .. math:: u = \mathrm{clamp}(\mathrm{round}(x / s + z), 0, 2^k - 1), \qquad y = (u - z)\, s

    or, for ``rounding="sign"``, u = 1 where x >= 0 and 0 elsewhere.

    The gradient is straight-through: 1 from the lowest to the highest level, 0 outside. Scale and
    zero point get none.

    Parameters
    ----------
    x : Tensor of float32
    scale, zero_point : Tensor of float32 or float
        s > 0 and z: 0-d, or 1-d with one entry per channel.
    bits : int
        k, 1..8.
    axis : int
        Axis of the channels of a 1-d scale or zero point; -1 where both are 0-d.
    rounding : {"half_even", "sign"}
        ``sign`` is for 1 bit only.

    Returns
    -------
    Tensor of float32, same shape as x

    Raises
    ------
    ValueError
        For another dtype, bits outside 1..8, an unknown rounding, or a scale or zero point that
        doesn't fit `axis`.
    """
    scale, zero_point = (
        value if isinstance(value, Tensor) else torch.tensor(value, dtype=x.dtype, device=x.device)
        for value in (scale, zero_point)
    )
    return torch.ops.bitenc.bitenc_quantize(x, scale, zero_point, bits, axis, rounding)


@torch.library.custom_op("bitenc::bitenc_quantize", mutates_args=())
def _quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, axis: int, rounding: str
) -> Tensor:
    _check(x, scale, zero_point, bits, axis, rounding)
    scale, zero_point = (_along(value, x.ndim, axis) for value in (scale, zero_point))
    if rounding == "sign":
        code = (x >= 0).to(x.dtype)
    else:
        code = (x / scale).add_(zero_point).round_().clamp_(0, 2**bits - 1)
    return code.sub_(zero_point).mul_(scale)  # In place: training is bound by memory here.


@_quantize.register_fake
def _fake(
    x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, axis: int, rounding: str
) -> Tensor:
    _check(x, scale, zero_point, bits, axis, rounding)
    return torch.empty_like(x)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, scale, zero_point, ctx.bits, ctx.axis, _ = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _straight_through(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, *grid = ctx.saved_tensors
    scale, zero_point = (_along(value, x.ndim, ctx.axis) for value in grid)
    lowest, highest = -zero_point * scale, (2**ctx.bits - 1 - zero_point) * scale
    inside = (lowest <= x).logical_and_(x <= highest)
    return grad * inside, None, None, None, None, None


_quantize.register_autograd(_straight_through, setup_context=_save)
# As torch's losses do, it takes 16-bit floats under autocast.
for _device in ("cpu", "cuda"):
    _quantize.register_autocast(_device, torch.float32)


def check_bits(bits: int) -> int:
    """Return `bits` if it is an integer in 1..8, else raise `ValueError`."""
    if not (isinstance(bits, int) and 1 <= bits <= 8):
        raise ValueError(f"quantize: bits = {bits!r} is outside 1..8. Use 1 to 8 bits.")
    return bits


def _check(
    x: Tensor, scale: Tensor, zero_point: Tensor, bits: int, axis: int, rounding: str
) -> None:
    check_bits(bits)
    dtypes = [value.dtype for value in (x, scale, zero_point)]
    if any(dtype != torch.float32 for dtype in dtypes):
        raise ValueError(
            f"quantize: x, scale, zero_point are {dtypes}. Convert them to float32 (`.float()`)."
        )
    if rounding not in ROUNDINGS or (rounding == "sign" and bits != 1):
        raise ValueError(
            f"quantize: rounding {rounding!r} at {bits} bits. Use 'half_even', or 'sign' at 1 bit."
        )
    for value in (scale, zero_point):
        fits = 0 <= axis < x.ndim and tuple(value.shape) == (x.shape[axis],)
        if value.ndim and not fits:
            raise ValueError(
                f"quantize: a scale or zero point of shape {tuple(value.shape)} doesn't match "
                f"axis {axis} of x {tuple(x.shape)}. Give one number, or one per channel and the "
                "axis of the channels."
            )


def _along(values: Tensor, ndim: int, axis: int) -> Tensor:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)]) if values.ndim else values
