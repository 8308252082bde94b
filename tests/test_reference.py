"""The integer reference itself, against definitions written out with plain loops."""

import itertools

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding, pack
from tvm_bitenc.reference import branch_dot, conv2d, dense

rng = np.random.default_rng(0)


@pytest.mark.parametrize("act", [Encoding.unsigned(3), Encoding.ternary()])
@pytest.mark.parametrize("weight", [Encoding.symmetric(2), Encoding(2, 1.0, 0.0, (3, 1))])
def test_branch_sum_is_the_dot_product(weight, act):
    a = rng.integers(0, 2**act.bits, (5, 100), dtype=np.uint8)
    w = rng.integers(0, 2**weight.bits, (5, 100), dtype=np.uint8)
    branches = branch_dot(pack(a, act.bits), act, pack(w, weight.bits), weight, taps=100)
    assert np.array_equal(branches, (act.bipolar(a) * weight.bipolar(w)).sum(axis=1))


def loop_conv2d(a, w, stride, padding, dilation, groups):
    """The definition: one addition per tap that lies inside the image."""
    (batch, _, height, width), (outs, per_group, kh, kw) = a.shape, w.shape
    top, left, bottom, right = padding
    out_h = (height + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    acc = np.zeros((batch, outs, out_h, out_w), np.int64)
    places = itertools.product(*map(range, acc.shape), range(per_group), range(kh), range(kw))
    for n, o, y, x, c, i, j in places:
        row, column = y * stride[0] + i * dilation[0] - top, x * stride[1] + j * dilation[1] - left
        if 0 <= row < height and 0 <= column < width:
            channel = o // (outs // groups) * per_group + c
            acc[n, o, y, x] += int(a[n, channel, row, column]) * int(w[o, c, i, j])
    return acc


@pytest.mark.parametrize(
    "stride, padding, dilation, groups",
    [
        ((1, 1), (0, 0, 0, 0), (1, 1), 1),
        ((2, 1), (1, 0, 2, 1), (1, 1), 1),
        ((1, 2), (2, 1, 0, 3), (2, 1), 2),
        ((1, 1), (1, 1, 1, 1), (1, 2), 4),
    ],
)
def test_conv2d_against_loops(stride, padding, dilation, groups):
    act, weight = Encoding.symmetric(2, 0.5), Encoding(3, 1.0, [0, 1.5, 4, -2])
    a = rng.integers(0, 4, (2, 4, 4, 5), dtype=np.uint8)
    w = rng.integers(0, 8, (4, 4 // groups, 2, 3), dtype=np.uint8)
    acc = conv2d(a, act, w, weight, stride, padding, dilation, groups)
    real_a, real_w = 2 * act.dequantize(a) / 0.5, 2 * weight.dequantize(w)
    expected = loop_conv2d(real_a, real_w, stride, padding, dilation, groups)
    assert acc.dtype == np.int32 and np.array_equal(acc, expected)


def test_dense_is_the_sum_of_products():
    act, weight = Encoding.signed(4), Encoding.symmetric(3)
    a, w = (rng.integers(0, 8, shape, dtype=np.uint8) for shape in ((5, 30), (7, 30)))
    expected = np.rint(2 * act.dequantize(a) @ (2 * weight.dequantize(w)).T)
    assert np.array_equal(dense(a, act, w, weight), expected)
