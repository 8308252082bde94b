"""The integer reference of convolutions and dense layers: every other part is judged by it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike

from .bounds import accumulator_bound, check_accumulator
from .encoding import Encoding, planes


def branch_dot(
    act_words: np.ndarray, act: Encoding, weight_words: np.ndarray, weight: Encoding, taps: int
) -> np.ndarray:
    """Sum of v_a v_w over N taps, branch by branch, from packed words: the paper's equation.

    Parameters
    ----------
    act_words, weight_words : ndarray of uint64, shapes (..., K, words) and (..., M, words)
    taps : int
        N, without the padding bits of the last word.
    """
    total = np.int64(0)
    pairs = itertools.product(
        enumerate(act.integer_coefficients), enumerate(weight.integer_coefficients)
    )
    for (k, kappa_a), (m, kappa_w) in pairs:
        differing = np.bitwise_count(act_words[..., k, :] ^ weight_words[..., m, :])
        total = total + kappa_a * kappa_w * (taps - 2 * differing.sum(axis=-1, dtype=np.int64))
    return total


def pair(value: ArrayLike) -> tuple[int, int]:
    """(height, width) from one number or two."""
    height, width = np.broadcast_to(value, 2).tolist()
    return int(height), int(width)


def pads(padding: ArrayLike) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) from one number, (height, width) or all four."""
    if np.size(padding) == 4:
        top, left, bottom, right = np.ravel(padding).tolist()
        return int(top), int(left), int(bottom), int(right)
    return pair(padding) * 2


def conv2d(
    act_codes: np.ndarray,
    act: Encoding,
    weight_codes: np.ndarray,
    weight: Encoding,
    stride: ArrayLike = 1,
    padding: ArrayLike = 0,
    dilation: ArrayLike = 1,
    groups: int = 1,
    branches: ArrayLike | None = None,
) -> np.ndarray:
    r"""Integer reference of a convolution: sum over taps of (v_a + o_a)(v_w + o_w).

    Padding adds taps whose real value is 0, whether or not a code stands for it. With a branch
    matrix G, the tap of two codes with planes c adds

    .. math:: \sum_{m,k} G_{mk} c_m c_k + o_w v_a + o_a v_w + o_a o_w

    Parameters
    ----------
    act_codes : ndarray of uint8, shape (N, C, H, W)
    act : Encoding
        Per tensor.
    weight_codes : ndarray of uint8, shape (O, C / groups, KH, KW)
    weight : Encoding
        Per tensor or per output channel.
    stride, dilation : int or (height, width)
    padding : int, (height, width) or (top, left, bottom, right)
    groups : int
    branches : array_like of int, shape (weight bits, activation bits), optional
        Coefficient of each pair of planes, by default the product of the encodings' coefficients.

    Returns
    -------
    ndarray of int32, shape (N, O, OH, OW)

    Raises
    ------
    UnsupportedError
        If an accumulator could overflow int32.
    """
    check_accumulator(accumulator_bound(weight_codes, weight, act, branches), "conv2d")
    window = pair(stride), pads(padding), pair(dilation), groups
    a = act.integers(act_codes).astype(np.int64)
    w = weight.integers(weight_codes).astype(np.int64)
    if branches is None:
        return _convolve(a, w, *window).astype(np.int32)
    pairs = zip(planes(act_codes, act.bits), np.transpose(branches))
    signs = planes(weight_codes, weight.bits).astype(np.int64)
    total = sum(
        _convolve(plane.astype(np.int64), np.tensordot(column, signs, 1), *window)
        for plane, column in pairs
    )
    # The offsets' terms are those of the product of integers, less that of the plane sums.
    v_a, v_w = act.bipolar(act_codes), weight.bipolar(weight_codes)
    own = _convolve(a, w, *window) - _convolve(v_a.astype(np.int64), v_w, *window)
    return (total + own).astype(np.int32)


def _convolve(
    a: np.ndarray,
    w: np.ndarray,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """Convolution of integers, int64 NCHW and OIHW, padded with 0."""
    (stride_h, stride_w), (dilation_h, dilation_w) = stride, dilation
    top, left, bottom, right = padding
    a = np.pad(a, ((0, 0), (0, 0), (top, bottom), (left, right)))
    out_channels, _, kernel_h, kernel_w = w.shape
    window = (dilation_h * (kernel_h - 1) + 1, dilation_w * (kernel_w - 1) + 1)
    taps = np.lib.stride_tricks.sliding_window_view(a, window, axis=(2, 3))
    taps = taps[:, :, ::stride_h, ::stride_w, ::dilation_h, ::dilation_w]
    per_group = out_channels // groups
    outputs = [
        np.einsum(
            "nchwij,ocij->nohw", taps_g, w[g * per_group : (g + 1) * per_group], optimize=True
        )
        for g, taps_g in enumerate(np.split(taps, groups, axis=1))
    ]
    return np.concatenate(outputs, axis=1)


def dense(
    act_codes: np.ndarray, act: Encoding, weight_codes: np.ndarray, weight: Encoding
) -> np.ndarray:
    """Integer reference of a dense layer: int32 (N, O) from codes (N, I) and (O, I)."""
    check_accumulator(accumulator_bound(weight_codes, weight, act), "dense")
    a = act.integers(act_codes).astype(np.int64)
    return (a @ weight.integers(weight_codes).astype(np.int64).T).astype(np.int32)
