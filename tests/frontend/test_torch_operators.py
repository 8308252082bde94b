"""Operators give torch's values, dtypes and shapes; what a converter doesn't honour is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tvm import relax

import tvm_bitenc as be
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.frontend.torch.operators import OPERATORS


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def check(function, *inputs):
    """Compile a function of tensors and compare all it returns with torch."""
    expected = [y for y in function(*inputs) if y is not None]
    results = be.build(be.from_torch(Function(function), inputs), threads=1)(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    assert len(results) == len(expected)
    for i, (y, e) in enumerate(zip(results, expected)):
        e = e.detach().resolve_neg().numpy()
        assert (y.dtype, y.shape) == (e.dtype, e.shape), i
        assert np.allclose(y, e, rtol=1e-4, atol=1e-5, equal_nan=True), i


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(2, 6, 8, 8)


def test_constant_indices_from_the_end(images):
    check(
        lambda x: (
            x[:, -1],
            x[..., -3],
            x[:, [0, -1]],
            x[:, torch.tensor([[0, -1], [2, -3]])],
            x[:, -3:-1, ::2],
            x.index_select(1, torch.tensor([1, 5])),
            x.index_fill(-1, torch.tensor([-1, 0]), 2.0),
            torch.take(x, torch.tensor([0, -1, 5])),
            x.narrow(2, -3, 2),
            x[:, [1, 2], :, [0, -2]],
            x[[1, 0], :, [1, -2]],
            x[:, :, [1, -2], [3, 0]],
        ),
        images,
    )


def test_running_indices_from_the_end(images):
    check(
        lambda x, i: (
            x[:, i],
            x[i[:2], :, i[:2]],
            torch.take(x, i),
            x.index_put((i[:1],), torch.tensor(3.0)),
            x.index_put((i[:1], i[1:2]), torch.tensor(3.0), accumulate=True),
        ),
        images,
        torch.tensor([-1, 0, -2]),
    )


def test_running_indices_outside_mean_the_nearest_inside(images):
    indices = torch.tensor([6, -7, 2**40, -(2**40)])
    lib = be.build(be.from_torch(Function(lambda x, i: x[:, i]), (images, indices)), threads=1)
    assert np.array_equal(lib(images, indices), images[:, [5, 0, 5, 0]].numpy())


@pytest.mark.parametrize(
    "function, index",
    [
        (lambda x: x[:, torch.tensor([0, 6])], 6),
        (lambda x: x[torch.tensor([-3])], -3),
        (lambda x: x.index_select(1, torch.tensor([9])), 9),
    ],
    ids=["beyond", "before", "index_select"],
)
def test_constant_indices_outside_are_refused(images, function, index):
    program = torch.export.export(Function(function), (images,))
    with pytest.raises(UnsupportedError, match=rf"takes index {index} of an axis of"):
        be.from_torch(program)


def test_moves_along_indices():
    source, index = torch.randn(3, 4), torch.tensor([[0, 2, 1, 0], [2, 0, 0, 1]])
    check(
        lambda x, i: (
            x.gather(0, i),
            x.gather(1, i),
            x.scatter(0, i, 2.5),
            x.scatter(0, i, x * 2),
            x.scatter_add(1, i, x[:2]),
            x.scatter_reduce(0, i, x, "amax", include_self=False),
            x.scatter_reduce(0, i, x, "mean"),
            (x > 0).scatter(0, i, True),
        ),
        source,
        index,
    )


def test_arithmetic_promotes_as_torch_does(images):
    check(
        lambda x: (
            torch.sub(x, 2, alpha=0.5),
            torch.add(x, x.flip(0), alpha=-2),
            torch.rsub(x, 2, alpha=3),
            (x * 9).int() / 2,
            (x * 9).int() // 2,
            (x * 9).int() + 0.5,
            (x * 9).long() % 4,
            torch.div(x, 0.3, rounding_mode="floor"),
            torch.div(x, -0.3, rounding_mode="trunc"),
            torch.remainder(x, -0.7),
            torch.fmod(x, 0.7),
            (x > 0) + (x > 1),
            (x > 0) * 3,
            (x * 9).int() == 2.5,
            (x * 9).int() ** 3,
            (x * 9).int() >> 1,
            x.int().bool(),
            x.double() * 0.1,
        ),
        images,
    )


def test_functions(images):
    check(
        lambda x: (
            F.selu(x),
            F.celu(x, 1.5),
            F.elu(x, 0.7),
            F.gelu(x, approximate="tanh"),
            F.hardtanh(x, -0.3, 0.9),
            x.clamp(0.5, -0.5),
            x.clamp(min=0.2),
            (x * 9).int().clamp(max=2),
            torch.isclose(x, x.round(), 0.1, 0.1),
            x.log().isfinite(),
            x.log().nan_to_num(1.0, 2.0, 3.0),
            torch.log1p(x.abs() * 1e-6) * 1e6,
            torch.expm1(x * 1e-6) * 1e6,
            x.round(decimals=2),
            torch.where(x > 0, 1, 2.0),
            x.sign().signbit(),
            torch.copysign(x, x.flip(1)),
        ),
        images,
    )


def test_reductions(images):
    check(
        lambda x: (
            x.any(0, keepdim=True),
            (x > 2).any(),
            (x > -2).all(-1),
            x.argmax(1),
            x.argmin(),
            *x.max(1),
            *x[0].min(-1, keepdim=True),
            x.amax((-1, 1)),
            (x * 9).int().sum(1),
            (x > 0).sum(),
            x.mean((-1, 2), keepdim=True),
            x.var(1, correction=0),
            x.std((1, 2)),
            x.prod(3),
            x.cumsum(-2),
            torch.trapezoid(x, dim=-2),
            *x.sort(1, descending=True),
            *x.topk(2, 1, largest=False),
            *x.median(-1),
            torch.linalg.vector_norm(x, 3, (1, 2)),
        ),
        images,
    )


def test_pooling(images):
    check(
        lambda x: (
            F.avg_pool2d(x, 2, divisor_override=5),
            F.avg_pool2d(x, 3, 1, 1, True, False, 2),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.avg_pool3d(x, 2, divisor_override=3),
            F.avg_pool1d(x[0], 3, 2, 1, count_include_pad=False),
            F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            *F.max_pool2d(x, 3, 2, 1, return_indices=True),
            *F.max_pool2d(x, 2, dilation=2, return_indices=True),
            *F.max_pool1d(x[0], 2, return_indices=True),
            F.adaptive_avg_pool2d(x, (3, 5)),
            F.adaptive_avg_pool2d(x, 4),
            *F.adaptive_max_pool2d(x, (3, 5), return_indices=True),
        ),
        images,
    )


def test_unpooling_and_folding(images):
    check(
        lambda x: (
            F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
            F.fold(F.unfold(x, 3, padding=1, stride=2), (8, 8), 3, padding=1, stride=2),
            F.pixel_shuffle(x[:, :4], 2),
        ),
        images,
    )


def test_statistics_of_normalizations(images):
    gamma, beta = torch.randn(6), torch.randn(6)
    check(
        lambda x, gamma, beta: (
            *torch.native_group_norm(x, gamma, beta, 2, 6, 64, 3, 1e-5),
            *torch.native_layer_norm(x, (6, 8, 8), x[0], x[1], 1e-5),
            *torch.native_layer_norm(x, [8], None, None, 1e-3),
            F.instance_norm(x, weight=gamma, bias=beta),
            F.group_norm(x, 2),
        ),
        images,
        gamma,
        beta,
    )


def test_positions_of_resampling(images):
    check(
        lambda x: (
            F.interpolate(x[:, :, 0], 5, mode="linear"),
            F.interpolate(x, scale_factor=0.6, mode="bilinear"),
            F.interpolate(x, scale_factor=0.6, mode="bilinear", recompute_scale_factor=True),
            F.interpolate(x, (11, 5), mode="bicubic", align_corners=True),
            F.interpolate(x, scale_factor=(1.7, 0.5), mode="bicubic"),
            F.interpolate(x, (5, 13), mode="nearest-exact"),
            F.interpolate(x, (3, 5), mode="bilinear", antialias=True),
            F.interpolate(x[:, :, None], (2, 5, 7), mode="trilinear"),
        ),
        images,
    )


@pytest.mark.sweep(1)
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(images, mode):
    grid = torch.rand(2, 5, 3, 2) * 3 - 1.5
    check(
        lambda x, grid: (
            F.grid_sample(x, grid, mode, "zeros", align_corners=False),
            F.grid_sample(x, grid, mode, "reflection", align_corners=True),
            F.grid_sample(x, grid, mode, "border", align_corners=False),
        ),
        images,
        grid,
    )


def test_shapes(images):
    check(
        lambda x: (
            x.diagonal(1, -1, 2),
            x.unfold(2, 3, 2),
            x.repeat(1, 2, 1, 1),
            torch.roll(x, (1, -2), (1, 3)),
            F.pad(x, (1, -1, 0, 2), value=3.0),
            F.pad(x[0], (2, 1), mode="reflect"),
            torch.cat([x, x.int()], 1),
            *x.split([1, 2, 3], 1)[::2],
            x.permute(-1, 0, 2, 1).flatten(1),
            x[0, 0].tril(-1),
            x[:0].flatten(1) * 2,
        ),
        images,
    )


def test_constants_keep_their_dtype():
    large, fine = torch.tensor([2**40 + 1, -3]), torch.tensor([1 + 2.0**-40], dtype=torch.float64)
    model = Function(lambda x: (x.long() + large, x.double() + fine, large))
    x = torch.tensor([1.0, 2.0])
    results = be.build(be.from_torch(model, (x,)), threads=1)(x)
    for y, expected in zip(results, model(x)):
        assert y.dtype == expected.numpy().dtype and np.array_equal(y, expected.numpy())


def test_constants_with_a_negative_bit():
    negated = torch.view_as_complex(torch.randn(4, 2)).conj().imag
    assert negated.is_neg()
    check(lambda x: (x + negated, x * negated), torch.randn(4))


def test_a_tensor_without_axes_as_input():
    check(lambda x, t: (x / t, t + 1), torch.randn(2, 3), torch.tensor(2.5))


def test_none_among_the_outputs():
    check(lambda x: (x + 1, None), torch.randn(2, 3))


def test_a_number_among_the_outputs_is_refused():
    with pytest.raises(UnsupportedError, match=r"returns the number 3"):
        be.from_torch(Function(lambda x: (x, 3)), (torch.randn(2),))


@pytest.mark.parametrize("batch", [2, 5])
def test_dynamic_batch(batch):
    """A flatten by ``x.size(0)``, and a class token repeated for every image."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 6))

        def forward(self, x):
            token = self.token.expand(x.size(0), -1, -1)
            tokens = torch.cat([token, x.view(x.size(0), 4, -1)], 1)
            return tokens.reshape(x.shape[0], -1), tokens[:, 0]

    model, sizes = Tokens(), ({0: torch.export.Dim("n", min=1, max=64)},)
    program = torch.export.export(model, (torch.randn(3, 24),), dynamic_shapes=sizes)
    x = torch.randn(batch, 24)
    results = be.build(be.from_torch(program), threads=1)(x)
    for y, expected in zip(results, model(x)):
        assert np.array_equal(y, expected.detach().numpy())


def test_embedding(same):
    table, tokens = nn.Embedding(10, 4, padding_idx=0), torch.tensor([[1, 9], [0, 3]])
    lib = be.build(be.from_torch(table, (tokens,)), threads=1)
    assert same(lib(tokens), table(tokens).detach().numpy())


def replaced(monkeypatch, name, converter):
    monkeypatch.setitem(OPERATORS, name, converter)
    with pytest.raises(UnsupportedError) as caught:
        be.from_torch(nn.Sequential(Function(lambda x: torch.add(x, x, alpha=2))), [torch.ones(2)])
    return str(caught.value)


def test_an_argument_that_a_converter_overlooks_is_refused(monkeypatch):
    def careless(call):
        return call.emit(relax.op.add(call["self"], call["other"]))

    message = replaced(monkeypatch, "add.Tensor", careless)
    assert "add of layer '0': isn't taken with alpha=2" in message


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (lambda call, x: call.cast(x, "int32"), "is int32 here and float32 in torch"),
        (lambda call, x: call.emit(relax.op.reshape(x, (1, 2))), r"has shape"),
        (lambda call, x: (x, x), "no known shape"),
    ],
    ids=["dtype", "shape", "count"],
)
def test_what_a_converter_gives_is_checked(monkeypatch, wrong, complaint):
    def mistaken(call):
        call.read()
        return wrong(call, call["self"])

    message = replaced(monkeypatch, "add.Tensor", mistaken)
    assert "add of layer '0'" in message and complaint in message


def test_random_numbers_are_refused():
    with pytest.raises(UnsupportedError, match=r"rand.*no operator that is taken"):
        be.from_torch(Function(lambda x: x + torch.rand(3)), (torch.ones(3),))
