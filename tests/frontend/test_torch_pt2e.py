"""Quantize and dequantize ops of PT2E: by hand, and as torchao's flow makes them."""

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  Registers the ops.

import tvm_bitenc as be
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.transform import no_lowering

ops = torch.ops.quantized_decomposed
RANGES = [(torch.uint8, 0, 255), (torch.int8, -128, 127), (torch.int8, -8, 7), (torch.int8, -7, 7)]


def there_and_back(x, scale, zero, low, high, dtype):
    integers = ops.quantize_per_tensor(x, scale, zero, low, high, dtype)
    return ops.dequantize_per_tensor(integers, scale, zero, low, high, dtype)


PHASES = (Phase.explicit, Phase.generate)  # To shrink takes a compilation per step.


@st.composite
def grids(draw):
    dtype, low, high = draw(st.sampled_from(RANGES))
    # A scale in double precision: its reciprocal isn't that of the float32 scale.
    return draw(st.floats(2.0**-12, 8.0)), draw(st.integers(low, high)), low, high, dtype


@settings(max_examples=2, deadline=None, phases=PHASES)
@given(found=st.lists(grids(), min_size=6, max_size=6, unique=True))
def test_per_tensor(found, same_as_torch, near_ties):
    quantizers = [lambda x, grid=grid: there_and_back(x, *grid) for grid in found]
    x = np.concatenate([near_ties(scale, zero, -40, 40) for scale, zero, *_ in found])
    layers = same_as_torch(quantizers, x)
    assert [row.act_bits for row in layers] == [(g[3] - g[2]).bit_length() for g in found]


def test_tensors_as_scales(same_as_torch, near_ties):
    scale, zero = torch.tensor(0.05), torch.tensor(3)

    def quantizer(x):
        integers = ops.quantize_per_tensor.tensor(x, scale, zero, -8, 7, torch.int8)
        return ops.dequantize_per_tensor.tensor(integers, scale, zero, -8, 7, torch.int8)

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", scale), self.register_buffer("zero", zero)

        def forward(self, x):
            integers = ops.quantize_per_tensor.tensor(x, self.scale, self.zero, -8, 7, torch.int8)
            return ops.dequantize_per_tensor.tensor(
                integers, self.scale, self.zero, -8, 7, torch.int8
            )

    x = torch.from_numpy(near_ties(0.05, 3))
    mod = be.from_torch(Bare(), (x,))
    assert np.array_equal(be.build(mod)(x), quantizer(x))


class Integers(nn.Module):
    def forward(self, x):
        return ops.quantize_per_tensor(x, 0.1, 3, -8, 7, torch.int8)


def test_integers_as_output(near_ties, same):
    x = torch.from_numpy(near_ties(0.1, 3))
    assert same(be.build(be.from_torch(Integers(), (x,)))(x), Integers()(x).numpy())


class Frozen(nn.Module):
    """Weights stored as integers, as `convert_pt2e` leaves them."""

    def __init__(self, largest=7):
        super().__init__()
        self.register_buffer("integers", torch.arange(-8, 8, dtype=torch.int8).reshape(4, 4))
        self.integers[3, 3] = largest
        self.register_buffer("scales", torch.tensor([0.5, 0.25, 1.0, 2.0]))
        self.register_buffer("zeros", torch.zeros(4, dtype=torch.int64))

    def forward(self, x):
        w = ops.dequantize_per_channel(self.integers, self.scales, self.zeros, 0, -8, 7, torch.int8)
        return nn.functional.linear(there_and_back(x, 0.125, 1, 0, 15, torch.uint8), w)


def test_stored_integers(same):
    x = torch.randn(3, 4)
    lib = be.build(be.from_torch(Frozen(), (x,)))
    assert same(lib(x), Frozen()(x).numpy())
    (row,) = lib.report().layers
    assert (row.weight_bits, row.act_bits) == (4, 4)


def test_stored_integers_outside_of_their_range():
    with pytest.raises(UnsupportedError, match="holds integers -8 to 8.*range -8 to 7"):
        be.from_torch(Frozen(8), (torch.randn(3, 4),))


def quantized_by_torchao(model, x, act=(0, 255), weight=(-8, 7)):
    """Run torchao's prepare, calibrate, convert."""
    torchao = pytest.importorskip("torchao.quantization.pt2e", reason="pip install torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

    epsilon = 2**-12
    act_spec = QuantizationSpec(
        torch.uint8,
        torchao.MinMaxObserver.with_args(eps=epsilon),
        *act,
        torch.per_tensor_affine,
    )
    weight_spec = QuantizationSpec(
        torch.int8,
        torchao.PerChannelMinMaxObserver.with_args(eps=epsilon),
        *weight,
        torch.per_channel_symmetric,
        ch_axis=0,
    )

    class Inputs(Quantizer):
        def annotate(self, graph_module):
            for node in graph_module.graph.nodes:
                if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
                    specs = {node.args[0]: act_spec, node.args[1]: weight_spec}
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map=specs, _annotated=True
                    )
            return graph_module

        def validate(self, graph_module):
            pass

    prepared = prepare_pt2e(torch.export.export(model, (x,)).module(), Inputs())
    prepared(x)
    return convert_pt2e(prepared)


@pytest.mark.filterwarnings("ignore")
def test_torchao():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(72, 5),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    converted = quantized_by_torchao(model, x, act=(0, 15))
    mod = be.from_torch(converted, (x,))
    lib, expected = be.build(mod), converted(x).detach().numpy()
    rows = lib.report().layers
    assert [(r.name, r.weight_bits, r.act_bits, r.out_bits) for r in rows] == [
        ("0", 4, 4, 4),
        ("5", 4, 4, 32),
    ]
    for options in (dict(), dict(pipeline=no_lowering)):
        close = np.abs(be.build(mod, **options)(x) - expected).max()
        assert close < 1e-5 * np.abs(expected).max()
