"""Fixtures of the front ends' tests."""

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be


class Behind(nn.Module):
    """What quantizers make of x, each behind a 1x1 convolution that changes nothing."""

    def __init__(self, quantizers):
        super().__init__()
        self.quantizers = list(quantizers)
        self.parts = nn.ModuleList(q for q in self.quantizers if isinstance(q, nn.Module))
        self.weight = nn.Parameter(torch.ones(1, 1, 1, 1))

    def forward(self, x):
        weight = torch.where(self.weight > 0.5, 1.0, 0.0)
        return tuple(nn.functional.conv2d(q(x), weight) for q in self.quantizers)


def _check(quantizers, x):
    """Compile the quantizers, compare every number with torch's, and return the layers."""
    model, x = (
        Behind(quantizers).eval(),
        torch.as_tensor(x, dtype=torch.float32).reshape(1, 1, -1, 1),
    )
    expected = [y.detach().numpy() for y in model(x)]
    lib = be.build(be.from_torch(model, (x,)))
    report, results = lib.report(), lib(x)
    assert not report.float_layers, report
    for y, e in zip(results if isinstance(results, tuple) else (results,), expected):
        wrong = np.flatnonzero(y != e)
        assert not len(wrong), (x.reshape(-1)[wrong[:5]], y.reshape(-1)[wrong[:5]])
    return report.layers


@pytest.fixture(scope="session")
def same_as_torch():
    """``same_as_torch(quantizers, x)``: every number equals torch's; returns the layers."""
    return _check


@pytest.fixture
def imported(tmp_path):
    """``imported(model, x, front_end)``: a model by ``"torch"``, or by a file of ``"onnx"``."""

    def make(model, x, front_end):
        if front_end == "torch":
            return be.from_torch(model, (x,))
        path = tmp_path / "model.onnx"
        torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=17)
        return be.from_onnx(path)

    return make


def _near_ties(scale, zero_point=0.0, low=-300, high=300):
    """Floats at, just below and just above every tie of a grid, and far outside."""
    ties = (np.arange(low, high) + 0.5 - zero_point).astype(np.float32) * np.float32(scale)
    near = [np.nextafter(ties, np.float32(d)) for d in (-np.inf, np.inf)]
    outside = np.float32([0, -0.0, 1e-30, -1e-30, 1e6, -1e6, 3e38, -3e38])
    return np.concatenate([ties, *near, ties * 0.37, outside])


@pytest.fixture(scope="session")
def near_ties():
    """``near_ties(scale)``: inputs where roundings of all kinds differ."""
    return _near_ties
