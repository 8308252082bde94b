import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tvm_bitenc.nn import quantize

EDGES = torch.tensor([-9.0, -1.0, -0.5, -0.0, 0.0, 0.49, 0.5, 1.0, 1.5, 2.5, 3.49, 9.0])


def reference(x, scale, zero_point, bits):
    position = np.float32(x) / np.float32(scale) + np.float32(zero_point)
    code = np.clip(np.rint(position), 0, 2**bits - 1).astype(np.float32)
    return (code - np.float32(zero_point)) * np.float32(scale)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scale", [2.0, 0.1, 1 / 3])
def test_bit_exact_against_numpy(bits, scale):
    noise = 5 * torch.randn(2000, generator=torch.Generator().manual_seed(bits))
    for zero_point in (0.0, 2.0 ** (bits - 1), (2**bits - 1) / 2):
        ties = (torch.arange(2**bits) + 0.5 - zero_point) * scale
        above, below = (ties.nextafter(torch.tensor(end)) for end in (torch.inf, -torch.inf))
        x = torch.cat([EDGES, noise, ties, above, below])
        y = quantize(x, torch.tensor(scale), torch.tensor(zero_point), bits)
        np.testing.assert_array_equal(y.numpy(), reference(x.numpy(), scale, zero_point, bits))


def test_ties_round_to_even():
    y = quantize(torch.tensor([0.5, 1.5, 2.5, 3.5]), 1.0, 0.0, 3)
    assert y.tolist() == [0, 2, 2, 4]


def test_sign_of_zero_is_plus_one():
    y = quantize(torch.tensor([-1e-30, -0.0, 0.0, 1e-30]), 2.0, 0.5, 1, rounding="sign")
    assert y.tolist() == [-1, 1, 1, 1]
    rounded = quantize(torch.tensor([0.0]), 2.0, 0.5, 1)
    assert rounded.tolist() == [-1]  # a tie, to the even code 0: why "sign" exists


def test_per_channel_equals_channel_by_channel():
    x, scale = torch.randn(2, 3, 4), torch.tensor([0.1, 0.2, 0.5])
    zero_point = torch.tensor([0.0, 1.5, 2.0])
    y = quantize(x, scale, zero_point, 2, axis=1)
    for c in range(3):
        assert torch.equal(y[:, c], quantize(x[:, c], scale[c], zero_point[c], 2))


@pytest.mark.parametrize(
    "bits, zero_point, rounding, passes",
    [
        (2, 0.0, "half_even", [0, 0, 1, 1, 0]),  # levels 0 .. 6
        (2, 1.5, "half_even", [0, 1, 1, 0, 0]),  # levels -3 .. 3
        (1, 0.5, "sign", [0, 0, 1, 0, 0]),  # levels -1, 1
    ],
)
def test_gradient_is_straight_through_between_the_outer_levels(bits, zero_point, rounding, passes):
    x = torch.tensor([-3.1, -3.0, 0.5, 6.0, 6.1], requires_grad=True)
    grad = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    quantize(x, 2.0, zero_point, bits, rounding=rounding).backward(grad)
    assert_close(x.grad, grad * torch.tensor(passes), rtol=0, atol=0)


def test_gradient_per_channel_and_none_for_the_grid():
    x = torch.tensor([[2.0, 4.0], [2.0, 4.0]], requires_grad=True)
    scale = torch.tensor([1.0, 2.0], requires_grad=True)
    quantize(x, scale, torch.tensor(0.0), 2, axis=0).sum().backward()
    assert x.grad.tolist() == [[1, 0], [1, 1]]
    assert scale.grad is None


def test_registration():
    args = (torch.randn(3, 4, requires_grad=True), torch.ones(3), torch.zeros(3), 2, 0, "half_even")
    torch.library.opcheck(torch.ops.bitenc.bitenc_quantize, args)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(bits=0), "1 to 8 bits"),
        (dict(bits=9), "1 to 8 bits"),
        (dict(x=torch.zeros(2, 3, dtype=torch.float64)), "float32"),
        (dict(scale=torch.tensor(1)), "float32"),
        (dict(rounding="sign"), "'sign' at 1 bit"),
        (dict(rounding="floor"), "half_even"),
        (dict(scale=torch.ones(3)), "axis of the channels"),
        (dict(scale=torch.ones(3), axis=0), "axis of the channels"),
        (dict(zero_point=torch.zeros(2, 3)), "axis of the channels"),
    ],
)
def test_errors_name_the_cure(changes, message):
    arguments = dict(x=torch.zeros(2, 3), scale=1.0, zero_point=0.0, bits=2) | changes
    with pytest.raises(ValueError, match=message):
        quantize(**arguments)
