"""Quantized torch modules: what is quantized, with one quantizer per tensor, and exact compiled."""

import copy

import pytest
import torch
from torch import nn

import tvm_bitenc as be
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.frontend.ptq import report_of
from tvm_bitenc.frontend.ptq.torch_layers import InputQuantizer, IntegerConv, IntegerLinear
from tvm_bitenc.frontend.ptq.torch_model import TorchModel
from tvm_bitenc.transform.pipeline import no_lowering

SLOW = pytest.mark.slow  # Compiling takes seconds each.


def quantize(model, batches, *bits, **options):
    return be.quantize(model, batches, *bits, **{"progress": False, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    "bits",
    [
        (3, 5),
        pytest.param((8, 8), marks=SLOW),
        pytest.param((2, 1), marks=SLOW),
    ],
)
def test_compiled_numbers_are_those_of_the_module_as_imported(bits, mixed_without_gate, same):
    model, batches = mixed_without_gate
    result, x = quantize(model, batches, *bits), torch.randn(2, 3, 12, 12)
    mod = be.from_torch(result, (x,))
    built, oracle = be.build(mod), be.build(mod, pipeline=no_lowering)
    assert same(built(x), oracle(x))
    assert len(built.report().layers) == 5


def test_digits_compile_to_torchs_bits(digits, same):
    result = quantize(digits.model, digits.batches, 4, 4)
    images = digits.images[:50]
    lib = be.build(be.from_torch(result, (images,)))
    assert same(lib(images), result(images).numpy())
    assert not lib.report().float_layers


def test_layers_keep_their_names_and_gates_stay_float(mixed):
    model, batches = mixed
    result = quantize(model, batches, 4, 5)
    assert isinstance(result.stem, IntegerConv) and isinstance(result.head, IntegerLinear)
    report = report_of(result)
    rows = [(row.name, row.kind, row.weight_bits, row.act_bits) for row in report.layers]
    assert rows == [
        ("stem", "conv2d", 8, 8),
        ("depthwise", "depthwise", 4, 5),
        ("pointwise", "conv2d", 4, 5),
        ("grouped", "conv2d", 4, 5),
        ("head", "dense", 8, 8),
    ]
    assert [name for name, _ in report.float_layers] == ["squeeze", "excite"]
    built = be.build(be.from_torch(result, (batches[0],))).report()
    assert {row.name for row in built.layers} == {row[0] for row in rows}


def test_batch_norms_are_folded(mixed):
    result = quantize(*mixed)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in result.modules())


def test_the_float_model_stays_as_it_was(mixed):
    model, batches = mixed
    before, x = copy.deepcopy(model.state_dict()), batches[0]
    y = model(x)
    result = quantize(model, batches, 2, 2)
    assert torch.equal(model(x), y)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    own = {value.data_ptr() for value in model.state_dict().values()}
    assert own.isdisjoint(value.data_ptr() for value in result.state_dict().values())
    assert not result.training and not any(p.requires_grad for p in result.parameters())


class Shared(nn.Module):
    """One tensor read by two layers, one layer used twice, and sums of both."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = torch.relu(self.twice(x))
        x = self.a(x) + self.b(x)
        return self.twice(x)


def test_tensors_have_one_quantizer_each(same):
    torch.manual_seed(0)
    model, x = Shared().eval(), torch.randn(2, 4, 5, 5)
    result = quantize(model, [x], 3, 3, first_last_bits=None)
    quantizers = [part for part in result.modules() if isinstance(part, InputQuantizer)]
    assert len(quantizers) == 3
    assert len(report_of(result).layers) == 4
    built = be.build(be.from_torch(result, (x,)))
    assert same(built(x), result(x).numpy())
    split = quantize(model, [x], 3, 3, first_last_bits=None, bits={"a": (3, 2)})
    assert sum(isinstance(part, InputQuantizer) for part in split.modules()) == 4


def test_a_quantized_model_takes_other_batch_sizes_and_saves(mixed, tmp_path):
    model, batches = mixed
    result = quantize(model, batches, 4, 4)
    x = torch.randn(7, 3, 12, 12)
    torch.save(result.state_dict(), tmp_path / "state.pt")
    other = quantize(model, [torch.randn(1, 3, 12, 12)], 4, 4)
    assert not torch.equal(other(x), result(x))
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(other(x), result(x))


class OtherShapes(nn.Module):
    """Convolutions over one axis, transposed ones, and a dense layer on rows."""

    def __init__(self):
        super().__init__()
        self.row = nn.Conv1d(3, 8, 4, stride=2, padding="valid", dilation=2)
        self.same = nn.Conv1d(8, 8, 4, padding="same", groups=2)
        self.up = nn.ConvTranspose1d(8, 6, 3, stride=2, padding=1, output_padding=1)
        self.image = nn.ConvTranspose2d(1, 5, 2, stride=(1, 2), bias=False)
        self.rows = nn.Linear(26, 7)

    def forward(self, x):
        x = torch.relu(self.up(torch.relu(self.same(self.row(x)))))
        return self.rows(self.image(x.unsqueeze(1))[..., :26])


@pytest.mark.sweep(1)
@pytest.mark.parametrize("bits", [(8, 8), (2, 3)])
def test_layers_of_other_shapes(bits, same):
    torch.manual_seed(0)
    model, x = OtherShapes().eval(), torch.randn(2, 3, 33)
    result = quantize(model, [torch.randn(4, 3, 33) for _ in range(2)], *bits)
    rows = report_of(result).layers
    kinds = ["conv1d", "conv1d", "conv1d_transpose", "conv2d_transpose", "dense"]
    assert [row.kind for row in rows] == kinds
    assert rows[0].error == pytest.approx(rows[0].total_error, rel=1e-3)
    if bits == (8, 8):
        assert all(row.total_error < 1e-3 for row in rows)
    mod = be.from_torch(result, (x,))
    built = be.build(mod)
    assert same(built(x), be.build(mod, pipeline=no_lowering)(x))
    assert not built.report().float_layers


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3, 1, 1))
        self.conv = nn.Conv2d(4, 4, 1)
        self.reflected = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(4, 4, 2, groups=2)
        self.volume = nn.Conv3d(4, 4, 1)

    def forward(self, x):
        x = self.reflected(self.conv(nn.functional.conv2d(x, self.weight)))
        y = self.volume(self.up(x)[..., None])[..., 0]
        return y @ y.transpose(2, 3)


def test_what_stays_float_is_listed_with_its_reason():
    result = quantize(Functional().eval(), [torch.rand(2, 3, 5, 5)])
    reasons = dict(report_of(result).float_layers)
    assert [row.name for row in report_of(result).layers] == ["conv"]
    assert "use torch.nn's layer" in reasons["conv2d"]
    assert "'reflect'" in reasons["reflected"] and "groups" in reasons["up"]
    assert "Conv3d" in reasons["volume"]
    assert "two activations" in reasons["matmul"]


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_models_that_cannot_be_traced():
    with pytest.raises(UnsupportedError, match=r"torch\.fx can't trace.*export to ONNX"):
        quantize(Branching().eval(), [torch.rand(1, 3)])


def test_training_mode_is_named(mixed):
    model, batches = mixed
    model.stem_norm.train()
    with pytest.raises(BitencError, match=r"stem_norm is in training mode.*eval"):
        quantize(model, batches)
    with pytest.raises(BitencError, match=r"the model is in training mode.*eval"):
        quantize(model.train(), batches)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x).chunk(2, 1)


def test_other_devices_dtypes_and_outputs_are_named(mixed):
    model, batches = mixed
    with pytest.raises(BitencError, match=r"stem\.weight: is torch\.float64.*\.float\(\)"):
        quantize(copy.deepcopy(model).double(), batches)
    with pytest.raises(BitencError, match=r"stem\.weight: is on meta.*\.cpu\(\)"):
        quantize(copy.deepcopy(model).to("meta"), batches)
    with pytest.raises(UnsupportedError, match=r"no output of the model is a tensor"):
        quantize(Pair().eval(), [torch.rand(2, 4)])


def test_labels_among_the_calibration_data_are_named(mixed):
    model, batches = mixed
    with pytest.raises(BitencError, match=r"batch 0.*has 2 tensors.*takes 1.*without labels"):
        quantize(model, [(batches[0], torch.zeros(4))])
    with pytest.raises(BitencError, match=r"batch 1.*doesn't run"):
        quantize(model, [batches[0], batches[0][:, :2]])
    with pytest.raises(BitencError, match=r"batch 0: is a dictionary"):
        quantize(model, [{"x": batches[0]}])


def test_the_key_tells_models_and_data_apart(mixed):
    model, batches = mixed
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias[0] += 1
    strided = copy.deepcopy(model)
    strided.pointwise.padding = (1, 1)
    strided.depthwise.dilation, strided.depthwise.padding = (2, 2), "same"
    keys = [
        TorchModel(model, batches).key(),
        TorchModel(other, batches).key(),
        TorchModel(model, batches[:1]).key(),
    ]
    assert len(set(keys)) == 3 and TorchModel(model, list(batches)).key() == keys[0]
