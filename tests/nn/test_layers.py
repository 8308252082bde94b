import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tvm_bitenc.nn import (
    QActivation,
    QConv1d,
    QConv2d,
    QConvTranspose1d,
    QConvTranspose2d,
    QLinear,
    QMatMul,
    mbn,
    q_k,
)
from tvm_bitenc.nn.layers import GAUSSIAN_HALF_STEP

ALL_BITS = range(1, 9)
BIT_PAIRS = [(1, 1), (1, 2), (2, 2), (3, 1), (4, 4), (8, 8)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(layer):
    """Give the layer weights and a bias that aren't tiny, with some far outliers."""
    with torch.no_grad():
        layer.weight.normal_()
        layer.weight[0, 0] *= 10
        layer.bias.normal_()
    return layer.eval()


def numpy_conv2d(x, w, stride, padding, dilation, groups):
    """Integer convolution, one output position at a time."""
    x = np.pad(x.astype(np.int64), ((0, 0), (0, 0), *((p, p) for p in padding)))
    out_channels, depth, kh, kw = w.shape
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, (kh, kw))]
    oh, ow = ((n - e) // s + 1 for n, e, s in zip(x.shape[2:], extent, stride))
    y = np.zeros((len(x), out_channels, oh, ow), np.int64)
    for c, i, j in np.ndindex(out_channels, oh, ow):
        first = c // (out_channels // groups) * depth
        top, left = i * stride[0], j * stride[1]
        window = x[:, first : first + depth, top : top + extent[0], left : left + extent[1]]
        y[:, c, i, j] = (window[..., :: dilation[0], :: dilation[1]] * w[c]).sum((1, 2, 3))
    return y


def integers_of(tensor):
    array = tensor.detach().numpy()
    assert array.dtype == np.float32 and (array == np.rint(array)).all()
    return array.astype(np.int64)


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("input_range", [1.0, 16.0, 0.3])
def test_activation_levels(bits, input_range):
    x = torch.linspace(-1.5, 1.5, 3001) * input_range
    top = 2**bits - 1
    tanh = QActivation(bits, "tanh", input_range=input_range).eval()
    assert np.array_equal(np.unique(integers_of(tanh.integers(x))), np.arange(-top, top + 1, 2))
    assert tanh.half_step == pytest.approx(input_range / top)
    relu = QActivation(bits, "relu", input_range=input_range).eval()
    assert np.array_equal(np.unique(integers_of(relu.integers(x))), np.arange(0, 2 * top + 1, 2))
    assert relu.half_step == pytest.approx(input_range / top / 2)
    for act, low in ((tanh, -input_range), (relu, 0)):
        error = (act(x) - x.clamp(low, input_range)).abs().max()
        assert error <= act.half_step * 1.0001
        assert torch.equal(act(x), act.integers(x) * act.half_step)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_tanh_activation_is_q_k(bits):
    x = torch.linspace(-1.2, 1.2, 1001)
    assert_close(QActivation(bits, "tanh")(x), q_k(x, bits))


def test_activation_defaults_and_sign_of_zero():
    assert [QActivation(k).kind for k in ALL_BITS] == ["tanh"] + ["relu"] * 7
    assert QActivation(1)(torch.tensor([-0.1, -0.0, 0.0])).tolist() == [-1, 1, 1]


@pytest.mark.parametrize("kind, low", [("tanh", -2.0), ("relu", 0.0)])
def test_activation_gradient(kind, low):
    x = torch.tensor([-2.1, low, 0.7, 2.0, 2.1], requires_grad=True)
    QActivation(3, kind, input_range=2.0)(x).sum().backward()
    assert_close(x.grad, torch.tensor([0.0, 1, 1, 1, 0]))


def test_mbn_route_of_activation():
    x = torch.linspace(-0.99, 0.99, 100, requires_grad=True)
    act = QActivation(2, "tanh", route="mbn", input_range=4.0)
    trained = act(4 * x)
    assert_close(trained, 4 * mbn(x, 2))
    assert_close(act.eval()(4 * x), trained)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (trained, 4 * mbn(x, 2))]
    assert_close(*gradients)


@pytest.mark.parametrize("weight_bits, act_bits", BIT_PAIRS)
@pytest.mark.parametrize(
    "stride, padding, dilation, groups",
    [(1, 0, 1, 1), (2, 1, 1, 1), ((1, 2), (2, 1), (1, 1), 2), (1, 2, 2, 4)],
)
def test_conv2d_equals_integer_convolution(
    weight_bits, act_bits, stride, padding, dilation, groups
):
    geometry = (stride, padding, dilation, groups)
    bits = dict(weight_bits=weight_bits, act_bits=act_bits)
    layer = randomise(QConv2d(4, 8, 3, *geometry, **bits))
    x = torch.randn(2, 4, 9, 8)
    pairs = [g if isinstance(g, tuple) else (g, g) for g in geometry[:3]]
    act, weight = integers_of(layer.act.integers(x)), integers_of(layer.weight_integers())
    assert set(np.unique(weight) % 2) == {1} and np.abs(weight).max() < 2**weight_bits
    sums = numpy_conv2d(act, weight, *pairs, groups).astype(np.float32)
    expected = sums * layer.out_scale.numpy() + layer.bias.detach().numpy()[:, None, None]
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


@pytest.mark.parametrize("weight_bits, act_bits", BIT_PAIRS)
def test_linear_equals_integer_product(weight_bits, act_bits):
    layer = randomise(QLinear(33, 7, weight_bits=weight_bits, act_bits=act_bits))
    x = torch.randn(5, 33)
    sums = integers_of(layer.act.integers(x)) @ integers_of(layer.weight_integers()).T
    expected = sums.astype(np.float32) * layer.out_scale.numpy() + layer.bias.detach().numpy()
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


def test_wide_convolution_is_exact():
    layer = randomise(QConv2d(64, 64, 3, padding=1, weight_bits=4, act_bits=4))
    x = torch.randn(2, 64, 8, 8)
    act, weight = layer.act.integers(x).double(), layer.weight_integers().double()
    sums = nn.functional.conv2d(act, weight, padding=1).float()
    assert torch.equal(layer(x), sums * layer.out_scale + layer.bias[:, None, None])


def test_scales_multiply_to_real_values():
    layer = randomise(QConv2d(4, 8, 3, weight_bits=4, act_bits=4))
    x = torch.rand(1, 4, 5, 5)
    weight = layer.weight_integers() * layer.weight_scale[:, None, None, None]
    expected = nn.functional.conv2d(layer.act(x), weight, layer.bias)
    assert_close(layer(x), expected)
    assert layer.weight_scale.shape == (8,) and layer.out_scale.shape == (8, 1, 1)


@pytest.mark.parametrize("bits", GAUSSIAN_HALF_STEP)
def test_half_steps_are_the_best_for_a_gaussian(bits):
    x = np.linspace(-8, 8, 160001)
    density = np.exp(-x * x / 2)

    def error(half_step):
        top = 2**bits - 1
        level = half_step * np.clip(2 * np.floor(x / half_step / 2) + 1, -top, top)
        return (density * (x - level) ** 2).sum()

    best = GAUSSIAN_HALF_STEP[bits]
    assert error(best) < min(error(best * 0.995), error(best * 1.005))


def test_half_step_of_1_bit_is_the_mean_magnitude():
    layer = randomise(QLinear(100, 3, weight_bits=1, act_bits=1))
    assert_close(layer.weight_scale, layer.weight.detach().abs().mean(1))


def test_straight_through_gradients_of_a_layer():
    layer = QLinear(4, 1, bias=False, weight_bits=2, act=QActivation(2, "tanh"))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -0.2, 0.3, 20.0]]))
    x = torch.tensor([[0.2, -0.9, 2.0, -2.0]], requires_grad=True)
    layer(x).backward()
    weight = layer.weight_integers() * layer.weight_scale
    assert_close(layer.weight.grad, layer.act(x).detach())  # also of the clipped 20.0
    assert_close(x.grad, weight.detach() * torch.tensor([1.0, 1, 0, 0]))


def test_a_clipped_weight_comes_back():
    layer = QLinear(16, 1, bias=False, weight_bits=2, act=QActivation(2, "tanh"))
    with torch.no_grad():
        layer.weight.fill_(0.1)[0, 0] = 2.0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        layer(nn.functional.one_hot(torch.tensor([0]), 16).float()).backward()
        optimizer.step()
    assert layer.weight[0, 0] < 0


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_mbn_route_of_weights(bits):
    layer = QConv2d(3, 4, 3, weight_bits=bits, act_bits=bits, weight_route="mbn")
    twin = QConv2d(3, 4, 3, weight_bits=bits, act_bits=bits)
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 6, 6)
    trained = layer(x)
    assert torch.equal(trained, twin(x))
    (grad,) = torch.autograd.grad(trained.sum(), layer.weight)
    (straight,) = torch.autograd.grad(twin(x).sum(), twin.weight)
    top = 2**bits - 1
    position = (layer.weight / layer.weight_scale[:, None, None, None] / top).detach()
    position.requires_grad_()
    (slope,) = torch.autograd.grad(mbn(position.clamp(-1, 1), bits).sum(), position)
    slope = torch.where(position.abs() > 1, 1.0, slope)
    assert_close(grad, straight * slope, rtol=1e-4, atol=1e-4)
    assert torch.equal(layer.eval()(x), trained)


def test_gradients_are_finite_for_a_channel_of_zeros():
    layer = QConv2d(3, 4, 3, weight_bits=2, act_bits=2)
    with torch.no_grad():
        layer.weight[1] = 0
    y = layer(torch.randn(1, 3, 5, 5))
    y.square().sum().backward()
    assert y.isfinite().all() and layer.weight.grad.isfinite().all()


def test_two_forwards_before_one_backward():
    layer = QLinear(8, 2, weight_bits=2, act_bits=2)
    (layer(torch.randn(1, 8)).sum() + layer(torch.randn(1, 8)).sum()).backward()


def test_scales_follow_the_weight_in_training_and_are_constant_in_eval():
    layer = QLinear(8, 2, weight_bits=2, act_bits=2)
    before = layer.weight_scale
    with torch.no_grad():
        layer.weight.mul_(2)
    assert_close(layer.eval().weight_scale, 2 * before)
    with torch.no_grad():
        layer.weight.mul_(2)
    layer.eval()(torch.randn(1, 8))
    assert_close(layer.weight_scale, 2 * before)
    layer.update_scales()
    assert_close(layer.weight_scale, 4 * before)


def test_state_dict_restores_an_eval_model():
    layer = randomise(QConv2d(3, 4, 3, weight_bits=2, act_bits=2))
    other = QConv2d(3, 4, 3, weight_bits=2, act_bits=2).eval()
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 3, 5, 5)
    assert torch.equal(other(x), layer(x)) and torch.equal(copy.deepcopy(layer)(x), layer(x))


def ops(program):
    return [str(n.target) for n in program.graph.nodes if n.op == "call_function"]


WEIGHT_OPS = ["aten.reshape.default", "aten.div.Tensor", "bitenc.bitenc_quantize.default"]
INPUT_OPS = ["aten.clamp.default", "aten.mul.Tensor", "bitenc.bitenc_quantize.default"]


@pytest.mark.parametrize("route, kind", [("qnn", "relu"), ("mbn", "tanh")])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_export(route, kind, bits):
    act = QActivation(bits, kind, route)
    conv = QConv2d(3, 4, 3, padding=1, weight_bits=bits, act=act, weight_route=route)
    linear = QLinear(5, 4, bias=False, weight_bits=bits, act=act, weight_route=route)
    scale, bias = ["aten.mul.Tensor"], ["aten.reshape.default", "aten.add.Tensor"]
    for layer, x, product, tail in (
        (randomise(conv), torch.randn(2, 3, 6, 5), "aten.conv2d.default", scale + bias),
        (linear.eval(), torch.randn(2, 5), "aten.linear.default", scale),
    ):
        program = torch.export.export(layer, (x,))
        assert ops(program) == INPUT_OPS + WEIGHT_OPS + [product] + tail
        assert torch.equal(program.module()(x), layer(x))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: QActivation(9), "1 to 8 bits"),
        (lambda: QActivation(2.5), "1 to 8 bits"),
        (lambda: QActivation(2, "gelu"), "'relu', 'tanh'"),
        (lambda: QActivation(2, route="lsq"), "'qnn', 'mbn'"),
        (lambda: QActivation(2, "relu", route="mbn"), "kind='tanh'"),
        (lambda: QActivation(2, input_range=0), "positive"),
        (lambda: QLinear(2, 2, weight_bits=0, act_bits=1), "1 to 8 bits"),
        (lambda: QLinear(2, 2, weight_bits=1), "act_bits= or act="),
        (lambda: QLinear(2, 2, weight_bits=1, act_bits=1, act=QActivation(1)), "act_bits= or act="),
        (lambda: QLinear(2, 2, weight_bits=1, act_kind="relu", act=QActivation(1)), "act_kind"),
        (lambda: QLinear(2, 2, weight_bits=1, act_bits=1, weight_route="x"), "'qnn', 'mbn'"),
        (lambda: QConv2d(2, 2, 3, padding_mode="circular", weight_bits=1, act_bits=1), "zeros"),
    ],
)
def test_errors_name_the_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("weight_bits, act_bits", BIT_PAIRS)
def test_conv1d_is_a_conv2d_of_one_row(weight_bits, act_bits):
    bits = dict(weight_bits=weight_bits, act_bits=act_bits)
    row, image = QConv1d(4, 8, 3, 2, 1, **bits), QConv2d(4, 8, (1, 3), 2, (0, 1), **bits)
    randomise(row)
    image.load_state_dict({k: v for k, v in row.state_dict().items() if v.ndim < 2}, strict=False)
    image.weight.data = row.weight.data[:, :, None]
    image.train().eval()
    x = torch.randn(2, 4, 9)
    assert torch.equal(row(x), image(x[:, :, None])[:, :, 0])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layer_class", [QConvTranspose1d, QConvTranspose2d])
def test_transposed_convolutions_have_a_scale_per_output_channel(layer_class, groups):
    layer = layer_class(4, 6, 3, 2, 1, 1, groups=groups, weight_bits=2, act_bits=2)
    randomise(layer)
    weight = integers_of(layer.weight_integers())
    assert set(np.unique(np.abs(weight))) == {1, 3} and layer.weight_scale.shape == (6,)
    for channel in range(6):
        group, within = divmod(channel, 6 // groups)
        own = layer.weight[group * 4 // groups : (group + 1) * 4 // groups, within].double()
        half_step = own.square().mean().sqrt() * GAUSSIAN_HALF_STEP[2]
        assert layer.weight_scale[channel] == half_step.float()
    x = torch.randn(2, 4, *[5] * (layer.weight.ndim - 2))
    convolve = getattr(torch.nn.functional, f"conv_transpose{layer.weight.ndim - 2}d")
    sums = convolve(layer.act.integers(x), torch.tensor(weight).float(), None, 2, 1, 1, groups)
    bias = layer.bias.reshape(layer.out_scale.shape)
    assert torch.equal(layer(x), sums * layer.out_scale + bias)


@pytest.mark.parametrize("layer_class", [QConv1d, QConvTranspose1d, QConvTranspose2d])
def test_weights_of_other_convolutions_learn(layer_class):
    layer = layer_class(4, 6, 3, weight_bits=2, act_bits=2).train()
    x = torch.rand(2, 4, *[5] * (layer.weight.ndim - 2))
    layer(x).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and layer.bias.grad.abs().sum() > 0


def test_matmul_of_two_activations():
    layer, (a, b) = QMatMul(3), (torch.randn(2, 4, 5), torch.randn(2, 5, 6))
    first, second = layer.first.integers(a), layer.second.integers(b)
    assert torch.equal(layer(a, b), first @ second * (layer.first.half_step**2))
    own = QMatMul(first=QActivation(2, "relu"), second=QActivation(4, "tanh", input_range=2.0))
    assert (own.first.bits, own.second.bits) == (2, 4)
    for wrong in (dict(), dict(act_bits=2, first=own.first), dict(first=own.first)):
        with pytest.raises(ValueError, match="either act_bits=, or first= and second="):
            QMatMul(**wrong)


@pytest.mark.parametrize("layer_class", [QConvTranspose1d, QConvTranspose2d])
def test_transposed_convolutions_take_a_size_as_torchs_do(layer_class):
    layer = randomise(layer_class(4, 6, 3, 2, 1, weight_bits=2, act_bits=2))
    plain = getattr(nn, layer_class.__name__[1:])(4, 6, 3, 2, 1)
    spatial = layer.weight.ndim - 2
    x = torch.randn(2, 4, *[5] * spatial)
    for size in ([10] * spatial, [9] * spatial, None):
        assert layer(x, size).shape == plain(x, size).shape
    larger = layer(x, [10] * spatial)[(..., *[slice(9)] * spatial)]
    assert torch.equal(larger, layer(x))
    with pytest.raises(ValueError, match="output size"):
        layer(x, [20] * spatial)
