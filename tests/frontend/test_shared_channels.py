"""Output channels that share weights, as others spell them: found in the values, in any order."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tvm_bitenc as be
from tvm_bitenc.target import load_target

DISTINCT = 20


def signed(x):
    return torch.where(x >= 0, 1.0, -1.0)


def levels(generator, kind):
    """Distinct filters, of signs or of three levels."""
    drawn = torch.randn(DISTINCT, 192, 3, 3, generator=generator)
    return signed(drawn) if kind == "signs" else torch.round(drawn).clamp(-1, 1)


class Repeated(nn.Module):
    """Filters that channels take in any order, a factor and a sign for each, then signs again.

    Factors are powers of two, so that floats are exact.
    """

    def __init__(self, kind):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        index = torch.randperm(64, generator=generator) % DISTINCT
        sign = signed(torch.randn(64, generator=generator))
        alpha = sign * 2.0 ** -(torch.arange(64) % 3)
        self.register_buffer("filters", levels(generator, kind))
        self.register_buffer("weight", alpha.reshape(64, 1, 1, 1) * self.filters[index])
        self.register_buffer("alpha", alpha.reshape(64, 1, 1, 1))
        self.register_buffer("index", index)
        self.second = nn.Parameter(torch.randn(8, 64, 1, 1, generator=generator))

    def kernels(self):
        return self.weight

    def forward(self, x):
        x = functional.conv2d(signed(x), self.kernels(), padding=1)
        return functional.conv2d(signed(x - 3), signed(self.second))


class Chosen(Repeated):
    """The same, put together in forward."""

    def kernels(self):
        return self.alpha * self.filters[self.index]


@pytest.mark.parametrize("kind", ["signs", "three levels"])
@pytest.mark.parametrize(
    "make, front_end", [(Repeated, "torch"), (Chosen, "torch"), (Repeated, "onnx")]
)
def test_shared_in_any_order(make, front_end, kind, imported):
    model = make(kind).eval()
    x = torch.randn(2, 192, 7, 9, generator=torch.Generator().manual_seed(1))
    library = be.build(imported(model, x, front_end), load_target("native"), database=False)
    first = library.report().layers[0]
    assert f" rows={DISTINCT}" in first.shape
    assert np.array_equal(library(x.numpy()), model(x).detach().numpy())
