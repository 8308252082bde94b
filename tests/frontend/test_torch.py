"""Imported torch models give torch's own numbers; what can't be imported says why."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.nn import QActivation, QConv2d, QLinear, quantize
from tvm_bitenc.transform.pipeline import no_lowering

TWO = dict(weight_bits=2, act_bits=2)


class Residual(nn.Module):
    """Two quantized convolutions beside a shortcut, pooling of both kinds, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = QConv2d(3, 16, 3, padding=1, weight_bits=8, act_bits=8)
        self.body = nn.Sequential(
            QConv2d(16, 16, 3, padding=1, bias=False, weight_bits=1, act_bits=2),
            nn.BatchNorm2d(16),
            QConv2d(16, 16, 3, padding=1, groups=2, **TWO),
        )
        self.pool = nn.MaxPool2d(2)
        self.head = QLinear(16, 5, weight_bits=4, act_bits=4)

    def forward(self, x):
        x = self.stem(x)
        x = self.pool(torch.relu(x + self.body(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


def all_kinds():
    """Every quantizer of `nn` in one chain: 1 bit, tanh, relu, the sines, strides, dilation."""
    return nn.Sequential(
        QConv2d(3, 8, 3, stride=2, weight_bits=3, act_bits=4, act_kind="tanh"),
        nn.BatchNorm2d(8),
        QConv2d(8, 8, 3, dilation=2, padding="same", weight_bits=1, act_bits=1),
        nn.BatchNorm2d(8),
        nn.MaxPool2d(2),
        QActivation(3, "tanh", route="mbn", input_range=2.0),
        nn.Flatten(),
        QLinear(8 * 3 * 3, 6, weight_bits=8, act_bits=8, weight_route="mbn"),
    )


def randomised(model):
    """Give batch-norms statistics as after training, gammas of both signs."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(), part.running_var.uniform_(0.1, 3)
            nn.init.normal_(part.weight), nn.init.normal_(part.bias)
    return model.eval()


needs_fma = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch rounds batch-norm twice on CPUs without FMA: run on one that has it",
)


@needs_fma
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_torchs_own(affine, same):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64, affine=affine)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.1, 3)
    if affine:
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(4, 64, 8, 8)
    lib = be.build(be.from_torch(norm.eval(), (x,)), pipeline=no_lowering)
    assert same(lib(x), norm(x).detach().numpy())


@needs_fma
@pytest.mark.parametrize("options", [dict(pipeline=no_lowering), dict()], ids=["oracle", "built"])
def test_every_quantizer_of_nn_is_torchs_own(options, same):
    torch.manual_seed(1)
    model, x = randomised(all_kinds()), torch.randn(2, 3, 14, 14)
    lib = be.build(be.from_torch(model, (x,)), **options)
    assert same(lib(x), model(x).detach().numpy())


def test_every_quantized_layer_is_lowered():
    report = be.build(be.from_torch(all_kinds().eval(), (torch.randn(2, 3, 14, 14),))).report()
    assert len(report.layers) == 3 and not report.float_layers


def test_residual_and_average_pooling():
    """An average sums floats in an order of its own; a sum at a level's edge may round off it."""
    torch.manual_seed(2)
    model, x = randomised(Residual()), torch.rand(2, 3, 8, 8)
    lib = be.build(be.from_torch(model, (x,)))
    oracle = be.build(be.from_torch(model, (x,)), pipeline=no_lowering)
    expected = model(x).detach().numpy()
    assert np.abs(oracle(x) - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(lib(x) - expected).max() < 1e-5 * np.abs(expected).max()


def test_layers_keep_their_names():
    model, x = Residual(), torch.rand(1, 3, 8, 8)
    rows = be.build(be.from_torch(model, (x,))).report().layers
    assert [row.name for row in rows] == ["stem", "body.0", "body.2", "head"]
    bits = [(row.weight_bits, row.act_bits) for row in rows]
    assert bits == [(8, 8), (1, 2), (2, 2), (4, 4)]


def test_an_exported_program_needs_no_example():
    layer, x = QLinear(8, 4, **TWO).eval(), torch.rand(3, 8)
    lib = be.build(be.from_torch(torch.export.export(layer, (x,))))
    assert np.array_equal(lib(x), layer(x).detach().numpy())


def test_a_lone_tensor_is_the_only_argument():
    mod = be.from_torch(QLinear(8, 4, **TWO), torch.rand(3, 8))
    assert [int(size) for size in mod["main"].params[0].ty.shape] == [3, 8]


def test_each_part_of_the_model_stays_in_its_mode():
    model = nn.Sequential(QConv2d(3, 4, 3, **TWO), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[1].eval()
    be.from_torch(model, (torch.rand(1, 3, 5, 5),))
    assert [part.training for part in model.modules()][:2] == [True, True]
    assert (model[1].training, model[2].training) == (False, True)


def test_no_warnings_from_inside_torch():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        be.from_torch(QLinear(8, 4, **TWO), (torch.rand(3, 8),))


@pytest.mark.parametrize(
    "layer, kind", [(nn.BatchNorm2d(3), "batch_norm"), (nn.Dropout(), "dropout")], ids=str
)
def test_training_mode_is_refused(layer, kind):
    program = torch.export.export(nn.Sequential(layer).train(), (torch.rand(2, 3, 4, 4),))
    with pytest.raises(UnsupportedError, match=rf"{kind}.*layer '0'.*training mode.*\.eval\(\)"):
        be.from_torch(program)


class Resized(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.how = how

    def forward(self, x):
        return nn.functional.interpolate(x, mode="nearest", **self.how)


@pytest.mark.parametrize(
    "how",
    [dict(scale_factor=2), dict(size=(9, 4)), dict(scale_factor=(0.5, 1.7)), dict(size=(3, 20))],
    ids=str,
)
def test_nearest_pixels_are_torchs_own(how, same):
    x = torch.rand(2, 3, 6, 7)
    lib = be.build(be.from_torch(Resized(**how), (x,)), pipeline=no_lowering)
    assert same(lib(x), Resized(**how)(x).numpy())


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


class TwoInputs(nn.Module):
    def forward(self, x, weight):
        return quantize(x, 1.0, 0.0, 2) @ quantize(weight, 1.0, 0.0, 2)


def test_what_torch_cannot_export():
    with pytest.raises(UnsupportedError, match=r"torch\.export fails.*data-dependent.*work first"):
        be.from_torch(Branching(), (torch.rand(1, 8),))


def test_an_operator_that_is_not_taken_is_named():
    with pytest.raises(
        UnsupportedError, match=r"_fft_r2c of layer .* no operator.*operators-torch"
    ):
        be.from_torch(Fourier(), (torch.rand(1, 8),))


def test_a_product_of_two_inputs(same):
    inputs = torch.rand(1, 8) * 3, torch.rand(8, 3) * 3
    lib = be.build(be.from_torch(TwoInputs(), inputs))
    assert same(lib(*inputs), TwoInputs()(*inputs).numpy()) and not lib.report().float_layers


def test_arguments_are_checked():
    with pytest.raises(BitencError, match=r"needs example_args.*tuple"):
        be.from_torch(QLinear(8, 4, **TWO))
    with pytest.raises(BitencError, match=r"str is no model.*torch\.nn\.Module"):
        be.from_torch("model.pt", (torch.rand(1, 8),))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_other_dtypes_are_named(dtype):
    x, layer = torch.rand(1, 8), nn.Sequential(QLinear(8, 4, **TWO))
    message = rf"{{}}.*is {dtype}.*float32.*\.float\(\)"
    with pytest.raises(UnsupportedError, match=message.format(r"example_args\[0\]")):
        be.from_torch(layer, (x.to(dtype),))
    with pytest.raises(UnsupportedError, match=message.format(r"0\.weight")):
        be.from_torch(layer.to(dtype), (x,))
    program = torch.export.export(nn.Linear(8, 4).to(dtype), (x.to(dtype),))
    with pytest.raises(UnsupportedError, match=message.format("p_weight")):
        be.from_torch(program)


def test_bits_are_checked_when_the_layer_is_made():
    for bits in (0, 9, 2.5):
        with pytest.raises(ValueError, match=r"outside 1\.\.8.*Use 1 to 8 bits"):
            QLinear(8, 4, weight_bits=bits, act_bits=2)
