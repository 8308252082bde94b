"""Kernels that are few, as others spell them: found in the values, from torch and ONNX."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tvm_bitenc.target import load_target


def signed(x):
    return torch.where(x >= 0, 1.0, -1.0)


class Chosen(nn.Module):
    """The nearest codeword of each kernel, found in forward (Wang et al., arXiv 2110.09195)."""

    def __init__(self, codewords=16):
        super().__init__()
        generator = torch.Generator().manual_seed(codewords)
        self.weight = nn.Parameter(torch.randn(64, 32, 3, 3, generator=generator))
        self.latent = nn.Parameter(torch.randn(codewords, 9, generator=generator))

    def kernels(self):
        """Alpha times the codeword of each kernel."""
        codewords = signed(self.latent)
        kernels = self.weight.reshape(-1, 9)
        distance = ((kernels[:, None] - codewords) ** 2).sum(2)
        alpha = self.weight.abs().mean((1, 2, 3), keepdim=True)
        return alpha * codewords[distance.argmin(1)].reshape(self.weight.shape)

    def forward(self, x):
        return functional.conv2d(signed(x), self.kernels(), padding=1)


class Baked(nn.Module):
    """Such kernels as constants; `alpha` are powers of two, so that floats are exact."""

    def __init__(self, codewords=16):
        super().__init__()
        alpha = 2.0 ** -(torch.arange(64) % 3).reshape(64, 1, 1, 1)
        self.register_buffer("weight", alpha * signed(Chosen(codewords).kernels()).detach())

    def forward(self, x):
        return functional.conv2d(signed(x), self.weight, padding=1)


@pytest.fixture
def x():
    return torch.randn(2, 32, 7, 9, generator=torch.Generator().manual_seed(0))


def check(module, wanted, x):
    library = be.build(module, load_target("native"), strategy="codebook")
    row = library.report().layers[0]
    assert row.strategy == "codebook" and 4 / 9 < row.bits_per_weight < 5 / 9
    # Alpha inside float weights rounds otherwise than one factor behind an integer sum.
    np.testing.assert_allclose(library(x.numpy()), wanted, rtol=1e-5, atol=1e-5)
    return library


def test_chosen_in_forward(x):
    model = Chosen().eval()
    check(be.from_torch(model, (x,)), model(x).detach().numpy(), x)


@pytest.mark.parametrize("front_end", ["torch", "onnx"])
def test_baked_checkpoints(front_end, x, imported):
    model = Baked().eval()
    library = check(imported(model, x, front_end), model(x).numpy(), x)
    assert np.array_equal(library(x.numpy()), model(x).numpy())
