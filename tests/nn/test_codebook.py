"""Convolutions of few kernels, as torch users train and keep them, and compiled."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tests.models import randomised
from tvm_bitenc.nn import CodebookConv2d, QConv2d, QLinear, anneal_codebooks, init_from
from tvm_bitenc.nn.codewords import kernel_numbers

SELECTS = ("nearest", "permute")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def made(select="nearest", codewords=16, act_bits=2):
    """A convolution of the codebook, or a plain one of the same bits."""
    options = dict(padding=1, act_bits=act_bits)
    if select is None:
        return QConv2d(32, 64, 3, weight_bits=1, **options)
    return CodebookConv2d(32, 64, 3, codewords=codewords, select=select, **options)


def net(select="nearest", codewords=16, act_bits=2):
    """A network of one convolution of the codebook between others."""
    return nn.Sequential(
        QConv2d(3, 32, 3, padding=1, weight_bits=4, act_bits=4),
        nn.BatchNorm2d(32),
        made(select, codewords, act_bits),
        nn.BatchNorm2d(64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        QLinear(64, 16, weight_bits=8, act_bits=8),
    )


def trained(model, steps=27, autocast=False):
    """The model and its losses, after some steps on a few random images."""
    x, labels = torch.rand(32, 3, 6, 6), torch.arange(32) % 16
    optimizer = torch.optim.Adam(model.train().parameters(), 1e-2)
    losses = []
    for step in range(steps):
        anneal_codebooks(model, step / steps)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses.append(functional.cross_entropy(model(x), labels))
        losses[-1].backward()
        optimizer.step()
    return model, losses


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("codewords, bits", [(16, 4), (32, 5), (64, 6)])
def test_a_layer_is_a_table_and_its_indices(select, codewords, bits):
    layer = made(select, codewords)
    model, losses = trained(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())[:1], 0)
    integers = model.eval()[0].weight_integers().reshape(-1, 9)
    assert losses == [] and 2**bits == codewords
    assert torch.equal(integers, layer.choice.kernels[layer.index.flatten()])
    assert len(integers.unique(dim=0)) <= codewords
    means = layer.weight.double().abs().mean((1, 2, 3))
    torch.testing.assert_close(layer.weight_scale, means.float())
    assert f"codewords={codewords}, select={select!r}" in repr(layer)


@pytest.mark.parametrize("select", SELECTS)
def test_it_learns_and_its_codewords_move(select):
    model = net(select)
    start = model[2].choice.kernels.clone()
    model, losses = trained(model)
    assert losses[-1] < 0.7 * losses[0]
    kernels = model.eval()[2].choice.kernels
    assert not torch.equal(kernels, start)
    assert len(kernel_numbers(kernels).unique()) == 16


@pytest.mark.parametrize("select", SELECTS)
def test_under_autocast(select):
    model, losses = trained(net(select), autocast=True)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
    layer = model.eval()[2]
    x = torch.rand(2, 32, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight_integers().abs(), torch.ones_like(layer.weight))
        got = layer(x.bfloat16())
    torch.testing.assert_close(got, layer(x), rtol=2e-2, atol=2e-2)
