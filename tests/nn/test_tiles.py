"""Weights that are copies of one tile, against the formulas of arXiv 2407.12075 in numpy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tests.models import randomised
from tvm_bitenc.nn import QConv1d, QConv2d, QLinear, init_from

BITS = dict(weight_bits=1, act_bits=2)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tile_and_scales(weight, tiles):
    """Tile and scale of each output channel, one number at a time."""
    flat = weight.astype(np.float64).ravel()
    size = flat.size // tiles
    tile = [1 if sum(flat[j + i * size] for i in range(tiles)) > 0 else -1 for j in range(size)]
    means = [np.abs(flat[i * size : (i + 1) * size]).mean() for i in range(tiles)]
    if len(weight) % tiles:
        return np.array(tile), np.full(len(weight), np.abs(flat).mean())
    return np.array(tile), np.repeat(means, len(weight) // tiles)


LAYERS = {
    "conv2d": lambda p: QConv2d(6, 12, 3, padding=1, tiles=p, **BITS),
    "conv1d": lambda p: QConv1d(6, 12, 3, padding=1, tiles=p, **BITS),
    "linear": lambda p: QLinear(10, 12, tiles=p, **BITS),
}
INPUTS = {"conv2d": (2, 6, 5, 5), "conv1d": (2, 6, 9), "linear": (3, 10)}


@pytest.mark.parametrize("tiles", [1, 2, 4, 12, 8])  # 8 divides the weights, not the channels.
@pytest.mark.parametrize("name", LAYERS)
def test_the_formulas(name, tiles):
    if tiles == 8 and name == "conv1d":
        tiles = 9
    layer = LAYERS[name](tiles).eval()
    weight = layer.weight.detach().numpy()
    integers = layer.weight_integers().detach().numpy()
    if tiles > 1:
        tile, scales = tile_and_scales(weight, tiles)
        assert np.array_equal(integers.ravel(), np.tile(tile, tiles))
        assert np.allclose(layer.weight_scale.numpy(), scales, rtol=1e-6)
    else:
        assert np.array_equal(integers, np.where(weight >= 0, 1, -1)) and layer.tile is None


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_the_authors(name):
    """The identity to the scores, and those of the scales, which are means of magnitudes."""
    layer, x = LAYERS[name](4).train(), torch.rand(INPUTS[name])
    scores = layer.weight.detach().clone().requires_grad_()
    rows = scores.reshape(4, -1)
    signs = torch.where(rows.sum(0) > 0, 1.0, -1.0).expand(4, -1)
    straight = signs + (rows - rows.detach())
    weight = (straight * rows.abs().mean(1, keepdim=True)).reshape(layer.weight.shape)
    run = {"conv2d": functional.conv2d, "conv1d": functional.conv1d, "linear": functional.linear}
    window = {} if name == "linear" else dict(padding=1)
    want = run[name](layer.act(x), weight, layer.bias, **window)
    got = layer(x)
    torch.testing.assert_close(got, want)
    cotangent = torch.randn_like(want)
    got.backward(cotangent)
    want.backward(cotangent)
    torch.testing.assert_close(layer.weight.grad, scores.grad, rtol=1e-4, atol=1e-5)


def net(tiles=4):
    return nn.Sequential(
        QConv2d(3, 32, 3, padding=1, weight_bits=4, act_bits=4),
        nn.BatchNorm2d(32),
        QConv2d(32, 64, 3, padding=1, tiles=tiles, **BITS),
        nn.BatchNorm2d(64),
        QConv2d(64, 64, 3, padding=1, weight_bits=1, act_bits=1, tiles=tiles),
        nn.BatchNorm2d(64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        QLinear(64, 32, tiles=tiles, **BITS),
    )


def test_compiled_it_is_the_same_and_stores_a_tile(same):
    model, x = randomised(net()), torch.randn(1, 3, 8, 8)
    lib = be.build(be.from_torch(model, (x,)))
    assert same(lib(x), model(x).detach().numpy())
    layers = lib.report().to_dict()["layers"]
    stored = {layer["name"]: layer["stored_bytes"] for layer in layers}
    whole = be.build(be.from_torch(randomised(net(1)), (x,)), strategy="xnor").report().to_dict()
    plain = {layer["name"]: layer["stored_bytes"] for layer in whole["layers"]}
    tiled = {"2", "4", "8"}
    assert tiled <= set(stored)
    assert all(stored[name] * 4 == plain[name] for name in tiled)
    assert [layer["name"] for layer in layers if "tiles=4" in layer["shape"]] == ["2", "4", "8"]


def test_it_learns_and_is_saved(tmp_path):
    model = net().train()
    x, labels = torch.randn(64, 3, 8, 8), torch.arange(64) % 16
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(functional.cross_entropy(model(x), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    model.eval()
    twin = net().eval()
    twin.load_state_dict(copy.deepcopy(model).state_dict())
    assert torch.equal(twin(x), model(x))
    again = init_from(net(), model).eval()
    assert torch.equal(again[2].tile, model[2].tile)
    assert "tiles=4" in repr(model)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(tiles=5), "tiles = 5, which doesn't divide 648 weights. Use a divisor of the 12"),
        (dict(tiles=0), "tiles = 0"),
        (dict(tiles=2.0), "tiles = 2.0, which doesn't divide"),
        (dict(tiles=2, weight_bits=2), "Tiles are signs: use weight_bits=1"),
        (dict(tiles=2, weight_route="mbn"), "weight_route='qnn'"),
    ],
)
def test_what_cannot_be_tiled(options, message):
    with pytest.raises(ValueError, match=message):
        QConv2d(6, 12, 3, **{**BITS, **options})
