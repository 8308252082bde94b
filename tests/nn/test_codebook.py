"""Convolutions of few kernels, as torch users train and keep them, and compiled."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tests.models import randomised
from tvm_bitenc.nn import CodebookConv2d, QConv2d, QLinear, anneal_codebooks, init_from
from tvm_bitenc.nn.codewords import LATENT_INTERVAL, most_frequent

SELECTS = ("nearest", "permute")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def made(select="nearest", codewords=16, act_bits=2):
    """A convolution with a codebook, or a plain one of the same bits."""
    options = dict(padding=1, act_bits=act_bits)
    if select is None:
        return QConv2d(32, 32, 3, weight_bits=1, **options)
    return CodebookConv2d(32, 32, 3, codewords=codewords, select=select, **options)


def net(select="nearest", codewords=16):
    """A network of two convolutions with codebooks between others."""
    return nn.Sequential(
        QConv2d(3, 32, 3, padding=1, weight_bits=4, act_bits=4),
        nn.BatchNorm2d(32),
        made(select, codewords),
        nn.BatchNorm2d(32),
        made(select, codewords, act_bits=1),
        nn.BatchNorm2d(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        QLinear(32, 16, weight_bits=8, act_bits=8),
    )


def trained(model, autocast=False, steps=LATENT_INTERVAL + 1):
    """The model and its losses, after some steps on a few random images."""
    x, labels = torch.rand(16, 3, 4, 4), torch.arange(16)
    choices = [p for name, p in model.named_parameters() if ".choice." in name]
    others = [p for name, p in model.named_parameters() if ".choice." not in name]
    groups = [dict(params=others), dict(params=choices, lr=2.0)]
    optimizer = torch.optim.Adam(groups, 1e-2)
    model.train()
    losses = []
    for step in range(steps):
        anneal_codebooks(model, step / steps)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses.append(functional.cross_entropy(model(x), labels))
        losses[-1].backward()
        optimizer.step()
    return model.eval(), losses


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("codewords", [16, 32, 64])
def test_its_weights_are_codewords(select, codewords):
    layer = made(select, codewords).eval()
    integers = layer.weight_integers().reshape(-1, 9)
    assert torch.equal(integers, layer.choice.kernels[layer.index.flatten()])
    assert len(integers.unique(dim=0)) <= codewords
    means = layer.weight.double().abs().mean((1, 2, 3))
    torch.testing.assert_close(layer.weight_scale, means.float())
    assert f"codewords={codewords}, select={select!r}" in repr(layer)


def test_gradients_are_the_authors():
    """Of SNN: to weights within [-1, 1], times alpha; in some steps to latent kernels as well."""
    layer, x = made().train(), torch.rand(2, 32, 5, 5)
    with torch.no_grad():
        layer.weight[0] *= 30  # Some are beyond 1 then.
        layer.choice.steps += LATENT_INTERVAL - 1
    weight, latent = (
        p.detach().clone().requires_grad_() for p in (layer.weight, layer.choice.latent)
    )
    kernels = latent.detach().sign()
    distances = (weight.detach().reshape(-1, 1, 9) - kernels).norm(dim=2)
    one_hot = functional.one_hot(distances.argmin(1), 16).float()
    straight = weight.clamp(-1, 1) + (one_hot @ latent).reshape(weight.shape)
    binary = (one_hot @ kernels).reshape(weight.shape) + straight - straight.detach()
    alpha = weight.abs().mean((1, 2, 3), keepdim=True).detach()
    want = functional.conv2d(layer.act(x), alpha * binary, layer.bias, padding=1)
    got = layer(x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    cotangent = torch.randn_like(want)
    got.backward(cotangent)
    want.backward(cotangent)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.choice.latent.grad, latent.grad, rtol=1e-4, atol=1e-5)
    assert (weight.grad == 0).any() and (latent.grad != 0).all()


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("select", SELECTS)
def test_it_learns(select, autocast):
    model = net(select)
    start = model[2].choice.kernels
    model, losses = trained(model, autocast)
    assert losses[-1] < 0.7 * losses[0]
    assert all(
        p.dtype == torch.float32 for p in model.state_dict().values() if p.is_floating_point()
    )
    kernels = model[2].choice.kernels
    assert not torch.equal(kernels, start) and torch.equal(kernels.abs(), torch.ones(16, 9))


@pytest.mark.parametrize("select", SELECTS)
def test_16_bit_floats_under_autocast(select):
    layer, x = made(select).eval(), torch.rand(2, 32, 5, 5).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
    torch.testing.assert_close(got, layer(x.float()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("select", SELECTS)
def test_it_is_kept_as_torch_users_expect(select, tmp_path):
    model, _ = trained(net(select), steps=3)
    x = torch.rand(2, 3, 4, 4)
    want = model(x)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    twin = net(select).eval()
    twin.load_state_dict(torch.load(tmp_path / "model.pt"))
    assert torch.equal(twin(x), want)
    assert torch.equal(copy.deepcopy(model)(x), want)
    assert torch.equal(torch.export.export(model, (x,)).module()(x), want)
    assert torch.equal(model.train().eval()(x), want)
    model.train()(x)
    copy.deepcopy(model)  # No tensor of a graph is left in it.


@pytest.mark.parametrize("select", SELECTS)
def test_it_starts_from_others(select):
    model, _ = trained(net(select), steps=3)
    again = init_from(net(select), model).eval()
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(again(x), model(x))
    alone = init_from(made(select), model[2]).eval()  # The model is the layer.
    assert torch.equal(alone.weight_integers(), model[2].weight_integers())
    plain = init_from(net(None), model)
    assert torch.equal(plain[2].weight, model[2].weight)
    for start in (plain, net("permute" if select == "nearest" else "nearest"), net(select, 32)):
        layer = init_from(net(select), start)[2]
        frequent = most_frequent(start[2].weight.reshape(-1, 9), 16)
        assert torch.equal(layer.weight, start[2].weight)
        assert torch.equal(layer.choice.kernels, frequent)


@pytest.mark.parametrize("select", SELECTS)
def test_compiled_it_is_the_same(select, same):
    model, x = randomised(net(select)), torch.randn(1, 3, 8, 8)
    lib = be.build(be.from_torch(model, (x,)))
    assert same(lib(x), model(x).detach().numpy())
    rows = {row.name: row for row in lib.report().layers}
    assert [(rows[i].weight_bits, rows[i].act_bits) for i in ("2", "4")] == [(1, 2), (1, 1)]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(codewords=8), "8 codewords of 9 taps. Use one of .16, 32, 64."),
        (dict(kernel_size=5), "16 codewords of 25 taps"),
        (dict(kernel_size=2), "16 codewords of 4 taps"),
        (
            dict(select="random"),
            "CodebookConv2d: select 'random'. Use one of .'nearest', 'permute'",
        ),
        (dict(padding_mode="reflect"), "padding_mode 'reflect'"),
        (dict(act_bits=None), "give either act_bits= or act=."),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CodebookConv2d(6, 12, **{**dict(kernel_size=3, codewords=16, act_bits=2), **options})
