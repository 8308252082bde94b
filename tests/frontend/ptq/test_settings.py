"""What a user may ask for, and what is refused at once."""

import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, UnsupportedError


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(weight_bits=0), r"weight_bits: bits = 0 is outside 1\.\.8"),
        (dict(act_bits=9), r"act_bits: bits = 9 is outside 1\.\.8"),
        (dict(weight_bits=2.5), r"weight_bits: bits = 2\.5 is outside"),
        (dict(act_bits="4"), r"act_bits: bits = '4' is outside"),
        (dict(first_last_bits=16), r"first_last_bits: bits = 16 is outside"),
        (dict(bits={"0": (2, 0)}), r"bits of layer '0': bits = 0 is outside"),
        (dict(bits={"0": 3}), r"bits of layer '0': 3 isn't a pair"),
        (dict(rounding="up"), r"rounding 'up'.*nearest.*bias.*adaround"),
        (dict(bits="best"), r"bits='best'.*\"auto\""),
        (dict(bits="auto"), r"needs one budget, and 0 are given.*weight_bytes="),
        (dict(bits="auto", error=0.1, latency=1), r"needs one budget, and 2 are given"),
        (dict(error=0.1), r"error is a budget.*Add bits=\"auto\""),
        (dict(bits="auto", weight_bytes=0), r"budget weight_bytes=0 is empty"),
        (dict(bits="auto", error=float("nan")), r"budget error=nan is empty"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(options, message):
    model = nn.Sequential(nn.Linear(2, 2)).eval()
    with pytest.raises(BitencError, match=message):
        be.quantize(model, [torch.rand(1, 2)], progress=False, **options)


def test_bits_out_of_range_are_unsupported():
    with pytest.raises(UnsupportedError):
        be.quantize(nn.Linear(2, 2).eval(), [torch.rand(1, 2)], 9)


@pytest.mark.parametrize("model", [3, None, "", [], nn.Linear])
def test_what_is_no_model_is_named(model):
    with pytest.raises(BitencError, match=r"is no model|doesn't exist"):
        be.quantize(model, [torch.rand(1, 2)])
