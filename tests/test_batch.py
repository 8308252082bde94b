"""A dynamic batch: one compilation, any number of samples, every number as for a fixed batch."""

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from torch.nn import functional
from tvm import relax, te, tirx

import tvm_bitenc as be
from tvm_bitenc.batch import largest_batch
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import BitencError, UnsupportedError
from tvm_bitenc.nn import QConv2d, QLinear
from tvm_bitenc.nn.quantize_op import quantize as quantized
from tvm_bitenc.op import quantize
from tvm_bitenc.runtime.specs import TensorSpec
from tvm_bitenc.strategy import STRATEGIES
from tvm_bitenc.target import Target, native_target
from tvm_bitenc.te.function import prim_func
from tvm_bitenc.transform import no_lowering

op = relax.op
TWO = dict(weight_bits=2, act_bits=2)
SIZES = (1, 5)


class Net(nn.Module):
    """A first layer of three channels, a residual, depthwise, dense and pooled layers."""

    def __init__(self):
        super().__init__()
        self.stem = QConv2d(3, 16, 1, weight_bits=8, act_bits=8)
        self.conv = QConv2d(16, 16, 3, padding=1, bias=False, **TWO)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = QConv2d(16, 16, 3, padding=1, groups=16, **TWO)
        self.point = QConv2d(16, 32, 1, **TWO)
        self.head, self.other = QLinear(32 * 3 * 3, 10, **TWO), nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.norm(self.conv(x))) + x
        x = torch.max_pool2d(self.point(self.depthwise(x)), 2)
        return self.head(x.flatten(1)), self.other(x.mean((2, 3))).softmax(-1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def dynamic(net):
    x = torch.rand(2, 3, 6, 6)
    batch = {0: torch.export.Dim("batch", max=64)}
    return be.from_torch(torch.export.export(net, (x,), dynamic_shapes=(batch,)))


@pytest.fixture(scope="module")
def runs(net):
    """Inputs of several batch sizes, and what the network gives as imported."""
    found = []
    for size in SIZES:
        x = torch.rand(size, 3, 6, 6)
        found.append((x, be.build(be.from_torch(net, (x,)), pipeline=no_lowering)(x)))
    return found


OPTIONS = [{"threads": 2}, *({"strategy": strategy} for strategy in STRATEGIES)]


@pytest.mark.sweep(1)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_batch(options, dynamic, runs, same):
    lib = be.build(dynamic, **options)
    for x, expected in [*runs, runs[0]]:
        assert all(map(same, lib(x), expected))
    assert lib.inputs[0].shape == ("batch", 3, 6, 6)
    assert [spec.shape for spec in lib.outputs] == [("batch", 10), ("batch", 5)]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kernels_for_any_cpu(strategy, dynamic, runs, same):
    generic = Target("generic", native_target().tvm_target, ("generic",))
    lib = be.build(dynamic, target=generic, strategy=strategy)
    assert all(same(a, b) for x, expected in runs for a, b in zip(lib(x), expected))


def test_the_library_takes_any_batch(dynamic, runs, same, tmp_path):
    path = be.build(dynamic).export_library(tmp_path / "net.so")
    loaded = be.load(path)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    for x, expected in runs:
        plain = machine["main"](tvm.runtime.tensor(x.numpy()))
        assert all(map(same, loaded(x), expected))
        assert all(same(a.numpy(), b) for a, b in zip(plain, expected))
    with pytest.raises(BitencError, match=r"'x'.*\(2, 3, 6, 7\).*float32 \(batch, 3, 6, 6\)"):
        loaded(np.zeros((2, 3, 6, 7), np.float32))
    assert loaded.largest_batch == be.build(dynamic).largest_batch


class Shapes(nn.Module):
    """Layers of other shapes, and what moves codes about."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, 8, 2)
        self.row = nn.Conv1d(8, 8, 3)

    def forward(self, x):
        def codes(x):
            return quantized(torch.relu(x), 0.25, 0.0, 4)

        def weight(layer):
            return quantized(layer.weight, 2.0**-5, 8.0, 4)

        x = codes(functional.conv2d(codes(x), weight(self.conv), padding=1))
        y = codes(functional.conv_transpose2d(x, weight(self.up), stride=2))
        z = torch.cat([y, functional.interpolate(x, scale_factor=2.0)], 1)
        a, b = functional.pad(z, (1, 0, 1, 0)).split([12, 12], 1)
        row = codes(functional.conv1d(y.flatten(2), weight(self.row), padding=1))
        kernel = weight(self.conv)[:, :1].repeat(1, 12, 1, 1)
        return functional.conv2d(a, kernel), b, torch.matmul(row, row.transpose(1, 2))


@pytest.mark.slow
def test_layers_of_other_shapes(same):
    torch.manual_seed(0)
    net, x = Shapes().eval(), 4 * torch.rand(3, 3, 8, 8)
    batch = {0: torch.export.Dim("batch")}
    lib = be.build(be.from_torch(torch.export.export(net, (x,), dynamic_shapes=(batch,))))
    assert len(lib.report().layers) == 8 and not lib.report().float_layers
    for sample in (x, x[:1]):
        fixed = be.build(be.from_torch(net, (sample,)), pipeline=no_lowering)
        assert all(map(same, lib(sample), fixed(sample)))


def qdq_model(batch):
    """A quantized ONNX model: convolution, global pooling, dense layer."""
    onnx = pytest.importorskip("onnx", reason="pip install 'tvm-bitenc[onnx]'")
    helper, rng = onnx.helper, np.random.default_rng(0)
    constants = {
        "scale": np.float32(0.25), "zero": np.uint8(0),
        "half": np.float32(0.125), "none": np.int8(0),
        "conv": rng.integers(-7, 8, (8, 3, 3, 3)).astype(np.int8),
        "dense": rng.integers(-7, 8, (4, 8)).astype(np.int8),
    }  # fmt: skip
    nodes = []

    def node(op, *inputs, **attributes):
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def levels(x):
        codes = node("QuantizeLinear", x, "scale", "zero")
        return node("DequantizeLinear", codes, "scale", "zero")

    def weight(name):
        return node("DequantizeLinear", name, "half", "none")

    x = node("Relu", node("Conv", levels("x"), weight("conv"), pads=[1] * 4))
    x = node("Flatten", node("GlobalAveragePool", levels(x)))
    node("Gemm", levels(x), weight("dense"), transB=1)
    nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 4])],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_symbolic_batch_of_an_onnx_model(same):
    lib = be.build(be.from_onnx(qdq_model("N")))
    assert lib.inputs[0].shape == ("batch", 3, 6, 6) and lib.outputs[0].shape == ("batch", 4)
    for size in SIZES:
        x = np.random.default_rng(size).uniform(-1, 9, (size, 3, 6, 6)).astype(np.float32)
        assert same(lib(x), be.build(be.from_onnx(qdq_model(size)), pipeline=no_lowering)(x))


def test_the_report_counts_one_sample(dynamic):
    report = be.build(dynamic).report()
    stem = report.layers[0]
    assert stem.shape == "1x1 3->16 @batch x 6x6" and stem.macs == 3 * 16 * 36
    assert [layer.macs for layer in report.float_layers] == [32 * 5]


def symbolic(module_of, shapes, body):
    """A module whose sizes 0 are the symbol n."""
    n = tirx.Var("n", "int64")
    return module_of([[n if size == 0 else size for size in shape] for shape in shapes], body)


def residual(b, x, y):
    a, c = (
        b.emit(quantize(value, Encoding.unsigned(2, scale)))
        for value, scale in ((x, 0.5), (y, 0.7))
    )
    total = b.emit(quantize(b.emit(op.add(a, c)), Encoding.unsigned(3, 0.5)))
    return [total, b.emit(op.nn.avg_pool2d(total, (2, 2), (2, 2)))]


def test_residual_and_pool_of_two_inputs(module_of, outputs_of, same):
    shapes = [(0, 70, 4, 4)] * 2
    lib = be.build(symbolic(module_of, shapes, residual))
    for size in SIZES:
        xs = np.random.default_rng(size).uniform(-1, 3, (2, size, 70, 4, 4)).astype(np.float32)
        fixed = module_of([xs[0].shape] * 2, residual)
        assert all(map(same, lib(*xs), outputs_of(fixed, xs, pipeline=no_lowering)))
    with pytest.raises(BitencError, match="'x1': has a batch of 3, and 'x0' one of 5. Give equal"):
        lib(xs[0], xs[1][:3])
    with pytest.raises(BitencError, match="'x0': has an empty batch"):
        lib(xs[0][:0], xs[1][:0])


def test_what_indices_reach(module_of):
    mod = symbolic(module_of, [(0, 70, 4, 4)] * 2, residual)
    lib = be.build(mod)
    assert 2**20 < lib.largest_batch <= (2**31 - 1) // (70 * 16)
    lib.largest_batch = 2
    x = np.zeros((3, 70, 4, 4), np.float32)
    with pytest.raises(BitencError, match="batch of 3, and indices of 32 bits reach 2. Give it in"):
        lib(x, x)
    assert largest_batch(module_of([(1, 2)], lambda b, x: b.emit(op.nn.relu(x)))) is None


def test_elements_of_the_largest_buffer_count():
    shape = relax.TensorType([tirx.Var("n", "int64"), 3, 100], "float32")

    def repeated(x):
        batch, *sizes = x.shape
        wide = te.compute((batch, *sizes, 10), lambda n, i, j, k: x[n, i, j])
        return te.compute(x.shape, lambda n, i, j: wide[n, i, j, 0])

    function = prim_func(repeated, [relax.Var("x", shape)])
    assert largest_batch(tvm.IRModule({"f": function})) == (2**31 - 1) // 3000


@pytest.mark.parametrize(
    "shapes, message",
    [
        ([(2, 3, 0, 4)], r"'x0': has the dynamic size n in dimension 2.*Export.*fixed"),
        ([(0, 3, 0, 4)], r"'x0': has the dynamic size n in dimension 2"),
        ([(2, 3), (2, 0)], r"'x1': has the dynamic size n in dimension 1"),
    ],
)
def test_other_dynamic_sizes_are_refused(shapes, message, module_of):
    with pytest.raises(UnsupportedError, match=message):
        be.build(symbolic(module_of, shapes, lambda b, *xs: [b.emit(op.nn.relu(x)) for x in xs]))


def test_batches_of_their_own_are_refused(module_of):
    shapes = [(tirx.Var(name, "int64"), 3) for name in "nm"]
    mod = module_of(shapes, lambda b, *xs: [b.emit(op.nn.relu(x)) for x in xs])
    with pytest.raises(UnsupportedError, match="'x1': has a batch m of its own beside"):
        be.build(mod)


def test_outputs_may_be_multiples_of_the_batch(module_of, same):
    mod = symbolic(module_of, [(0, 6)], lambda b, x: b.emit(op.reshape(x, (-1, 3))))
    lib = be.build(mod)
    assert lib.outputs[0].shape == ("batch * 2", 3)
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    assert same(lib(x), x.reshape(4, 3))


def test_a_spec_prints_its_shape():
    assert str(TensorSpec("x", ("batch", 3), "float32")) == "float32 (batch, 3)"
    assert str(TensorSpec("x", (7,), "int64")) == "int64 (7,)"
