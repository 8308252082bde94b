"""torch.compile(backend="bitenc"): numbers, recompilation, refusals."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.ao.quantization import FakeQuantize, disable_observer

from tvm_bitenc.decode import tomllib
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.frontend import dynamo
from tvm_bitenc.frontend.torch.modules import exportable
from tvm_bitenc.nn import QConv2d, QLinear

ROOT = Path(__file__).parents[2]
fake = torch.fake_quantize_per_tensor_affine


@pytest.fixture(autouse=True)
def fresh():
    """No graphs of other tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Fake(nn.Module):
    """Fake-quantize with scales of two, so that torch's float convolution is exact."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        w = fake(self.conv.weight, 0.0625, 0, -8, 7)
        return self.norm(nn.functional.conv2d(fake(x, 0.125, 3, 0, 15), w, self.conv.bias))


def model_of_nn():
    torch.manual_seed(0)
    return nn.Sequential(
        QConv2d(3, 8, 1, weight_bits=2, act_bits=3),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        QLinear(8 * 16, 4, weight_bits=1, act_bits=2),
    )


@pytest.mark.parametrize("make", [Fake, model_of_nn])
@torch.no_grad()
def test_numbers_are_torchs(make):
    model, x = make().eval(), torch.randn(2, 3, 4, 4)
    counter = CompileCounterWithBackend("bitenc")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for batch in (x, torch.randn(2, 3, 4, 4)):
        y = compiled(batch)
        assert isinstance(y, torch.Tensor) and torch.equal(y, model(batch))
    assert counter.frame_count == 1


@torch.no_grad()
def test_by_name_and_with_options():
    model, x = model_of_nn().eval(), torch.randn(1, 3, 4, 4)
    options = {"strategy": "xnor", "threads": 1, "target": "native"}
    compiled = torch.compile(model, backend="bitenc", options=options)
    assert torch.equal(compiled(x), model(x))


def test_libraries_of_one_graph(monkeypatch):
    builds = []
    build = dynamo.build
    monkeypatch.setattr(dynamo, "build", lambda *a, **k: builds.append(1) or build(*a, **k))
    model = model_of_nn().eval()
    compiled = torch.compile(model, backend="bitenc")
    with torch.no_grad():
        for batch in (2, 3, 4, 3, 4):  # From the second on, torch.compile has one dynamic graph.
            x = torch.randn(batch, 3, 4, 4)
            assert torch.equal(compiled(x), model(x))
        assert len(builds) == 3
        model[0].bias.add_(1)  # The constants in the library are stale now.
        assert torch.equal(compiled(x), model(x))
        assert len(builds) == 4


@torch.no_grad()
def test_numbers_as_inputs_are_refused():
    compiled = torch.compile(model_of_nn().eval(), backend="bitenc", dynamic=True)
    with pytest.raises(Exception, match=r"Python float.*dynamic=False"):
        compiled(torch.randn(2, 3, 4, 4))


def test_several_inputs_and_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = QLinear(8, 4, weight_bits=2, act_bits=2)

        def forward(self, x, y):
            return self.fc(x), self.fc(y) + 1

    model, x, y = Two().eval(), torch.randn(2, 8), torch.randn(3, 8)
    with torch.no_grad():
        results = torch.compile(model, backend="bitenc")(x, y)
        assert all(map(torch.equal, results, model(x, y)))


def test_no_gradients():
    model, x = model_of_nn().eval(), torch.randn(2, 3, 4, 4)
    y = torch.compile(model, backend="bitenc")(x)
    assert torch.equal(y, model(x))
    with pytest.raises(UnsupportedError, match="computes no gradients.*Train the model uncompiled"):
        y.sum().backward()
    with torch.inference_mode():
        assert torch.equal(torch.compile(model, backend="bitenc")(x), model(x))


@torch.no_grad()
def test_training_mode_is_refused():
    compiled = torch.compile(model_of_nn().train(), backend="bitenc")
    with pytest.raises(Exception, match=r"is in training mode.*model\.eval\(\)"):
        compiled(torch.randn(2, 3, 4, 4))


@torch.no_grad()
def test_nothing_quantized():
    model, x = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), torch.randn(2, 8)
    with pytest.raises(Exception, match=r"(?s)nothing in the graph is quantized.*fullgraph=True"):
        torch.compile(model, backend="bitenc")(x)
    compiled = torch.compile(model, backend="bitenc", options={"allow_float": True})
    assert torch.allclose(compiled(x), model(x), atol=1e-6)
    with pytest.raises(Exception, match="has no layer at all"):
        torch.compile(nn.ReLU(), backend="bitenc")(x)


@torch.no_grad()
def test_modules_that_cut_a_model_apart():
    class Modules(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = FakeQuantize(quant_min=0, quant_max=15)
            self.weight = FakeQuantize(quant_min=-8, quant_max=7, dtype=torch.qint8)
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return nn.functional.linear(self.act(x), self.weight(self.fc.weight))

    model, x = Modules(), torch.randn(3, 8)
    model(x), model.apply(disable_observer), model.eval()
    expected = model(x)
    with pytest.raises(Exception, match="cuts it apart.*FakeQuantize"):
        torch.compile(model, backend="bitenc")(x)
    torch._dynamo.reset()
    with exportable(model):
        y = torch.compile(model, backend="bitenc", fullgraph=True)(x)
    assert torch.allclose(y, expected, atol=1e-6)


def test_unknown_options_are_named():
    graph = torch.fx.symbolic_trace(nn.ReLU())
    with pytest.raises(BitencError, match=r"options \['strategie'\].*Use .*'strategy'"):
        dynamo.bitenc(graph, [torch.randn(2)], options={"strategie": "xnor"})


def test_the_entry_point_names_the_backend():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    path = project["entry-points"]["torch_dynamo_backends"]["bitenc"]
    module, name = path.split(":")
    assert module == dynamo.__name__ and getattr(dynamo, name) is dynamo.bitenc
    installed = entry_points(group="torch_dynamo_backends", name="bitenc")
    assert installed or "bitenc" in torch._dynamo.list_backends()


def test_a_second_batch_size_of_a_functional_fake_quantize():
    """Torch traces it with a symbolic size, for which it has no shape of fake-quantize itself."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x, factor):
            weight = fake(self.layer.weight, 0.125, 0, -8, 7)
            return nn.functional.linear(fake(x, 0.125, 0, -8, 7), weight) * factor

    model = Model().eval()
    compiled = torch.compile(model, backend="bitenc", fullgraph=True)
    with torch.no_grad():
        for batch, factor in ((2, 1.0), (5, 1.0), (7, 3)):
            x = torch.randn(batch, 6)
            assert torch.allclose(compiled(x, factor), model(x, factor), atol=1e-5)
