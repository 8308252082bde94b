"""Whole networks compile, are exact against the module as imported, and leave little in float."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tvm_bitenc as be
from tests.models import LARGE, SLOW, SMALL, SqueezeExcite, randomised
from tvm_bitenc.transform import no_lowering

pytestmark = pytest.mark.usefixtures("one_thread")


def outputs(lib, x):
    result = lib(x)
    return result if isinstance(result, tuple) else (result,)


def check(make, shape, same):
    """Build a network, compare it with its module as imported, and return the model and library."""
    torch.manual_seed(0)
    model, x = randomised(make()), torch.randn(shape)
    mod = be.from_torch(model, (x,))
    lib = be.build(mod, threads=1)
    oracle = be.build(mod, threads=1, pipeline=no_lowering)
    for y, expected in zip(outputs(lib, x), outputs(oracle, x), strict=True):
        assert len(np.unique(expected)) > 8  # A constant would show nothing.
        assert same(y, expected)
    return model, x, lib


def all_macs(model, x):
    """Multiply-accumulates of every layer, float or not, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    "make, shape",
    [
        *(pytest.param(*SMALL[name], id=name) for name in SMALL),
        *(pytest.param(*SLOW[name], id=name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(*LARGE[name], id=f"large {name}", marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_networks_are_exact_and_their_macs_are_branches(make, shape, same):
    model, x, lib = check(make, shape, same)
    report = lib.report()
    assert {row.strategy for row in report.layers} <= {"xnor", "lut", "int8"}
    assert sum(row.macs for row in report.layers) >= 0.95 * all_macs(model, x)
    assert not report.float_layers


def test_what_squeeze_excite_and_softmax_leave_in_float_is_listed(same):
    """The weighing is a product of two float tensors, its last convolution has float weights."""
    _, _, lib = check(SqueezeExcite, (1, 3, 8, 8), same)
    report = lib.report()
    assert [row.name for row in report.layers] == ["stem.0", "squeeze", "head"]
    assert [layer.name for layer in report.float_layers] == ["excite"]
    assert {"sigmoid", "multiply", "mean", "softmax"} <= {ops.op for ops in report.float_ops}
