"""QDQ models: hand-made ones, and what ONNX Runtime's quantizer writes, against ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder
from tvm_bitenc.transform import no_lowering

ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
rng = np.random.default_rng(0)
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}


def kind(dtype: str) -> int:
    return TensorProto.DataType.Value(dtype.upper())


def tensor(name: str, values, dtype: str) -> onnx.TensorProto:
    array = np.asarray(values)
    return numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(kind(dtype))), name)


def model_of(nodes, weights, x_shape, outputs, opset=21, x_kind=TensorProto.FLOAT):
    values = [helper.make_tensor_value_info("x", x_kind, x_shape)]
    results = [helper.make_tensor_value_info(*output) for output in outputs]
    graph = helper.make_graph(nodes, "test", values, results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(model)
    return model


def pair(x: str, y: str, parameters: list[str], **attributes) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear in a row."""
    q = helper.make_node("QuantizeLinear", [x, *parameters], [f"{y}_q"], f"{y}_q", **attributes)
    return [q, helper.make_node("DequantizeLinear", [f"{y}_q", *parameters], [y], y, **attributes)]


def unlowered(model, x):
    result = be.build(be.from_onnx(model), pipeline=no_lowering)(x)
    return result if isinstance(result, tuple) else (result,)


def reference(model, x):
    """Outputs of ONNX Runtime, node by node as the graph says."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": x})


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
def test_pairs_of_every_dtype(opset):
    """Ties, their neighbours and saturation; without a zero point the codes are uint8."""
    halves = (np.arange(-600, 600) / 2).astype(np.float32)
    x = np.concatenate([halves, np.nextafter(halves, np.float32(np.inf)), [3e38, -3e38]])
    x = x.astype(np.float32)
    nodes, weights, outputs = [], [], []
    for dtype in RANGES if opset >= 21 else ("int8", "uint8"):
        low, high = RANGES[dtype]
        for scale, zero in [(1.0, low), (0.1, high), (1.0, (low + high) // 2), (1 / 3, low + 3)]:
            name = f"{dtype}_{len(outputs)}"
            weights += [tensor(f"{name}_s", scale, "float"), tensor(f"{name}_z", zero, dtype)]
            nodes += pair("x", name, [f"{name}_s", f"{name}_z"])
            outputs.append((name, TensorProto.FLOAT, x.shape))
    weights.append(tensor("s", 0.5, "float"))
    nodes += pair("x", "plain", ["s"])
    outputs.append(("plain", TensorProto.FLOAT, x.shape))
    model = model_of(nodes, weights, x.shape, outputs, opset)
    expected = reference(model, x)
    for (name, *_), a, b in zip(outputs, unlowered(model, x), expected):
        assert np.array_equal(a, b), name


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_pairs_per_channel(axis):
    x = rng.normal(size=(3, 3, 3)).astype(np.float32) * 20
    weights = [tensor("s", [0.1, 0.5, 0.25], "float"), tensor("z", [0, 0, 0], "int8")]
    nodes = pair("x", "y", ["s", "z"], axis=axis)
    model = model_of(nodes, weights, x.shape, [("y", TensorProto.FLOAT, x.shape)])
    (expected,) = reference(model, x)
    assert np.array_equal(unlowered(model, x)[0], expected)


def test_integers_of_a_model_are_the_codes():
    """As outputs, behind ops that move them, and between two different scales."""
    x = (rng.normal(size=(2, 6)) * 60).astype(np.float32)
    weights = [tensor("s", 0.7, "float"), tensor("z", -3, "int8"), tensor("t", 1.3, "float")]
    q, moved = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), "moved"
    nodes = [
        q,
        helper.make_node("Transpose", ["q"], [moved]),
        helper.make_node("DequantizeLinear", [moved, "s", "z"], ["y"]),
        helper.make_node("DequantizeLinear", ["q", "t", "z"], ["other"]),
    ]
    outputs = [("q", TensorProto.INT8, (2, 6)), ("y", 1, (6, 2)), ("other", 1, (2, 6))]
    model = model_of(nodes, weights, x.shape, outputs)
    for a, b in zip(unlowered(model, x), reference(model, x)):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def conv_model(weight_dtype, per_channel, x_kind=TensorProto.FLOAT, opset=21):
    """Conv with int32 bias, Relu, requantization, Gemm: as quantizers of networks write it."""
    low, high = RANGES[weight_dtype]
    shape, channels = (4, 3, 3, 3), 4 if per_channel else 1
    scale = rng.uniform(0.5, 1, channels).astype(np.float32) / 64
    axis = dict(axis=0) if per_channel else {}
    z = np.zeros(channels) if per_channel else 0
    weights = [
        tensor("xs", 0.25, "float"), tensor("xz", 128, "uint8"),
        tensor("w", rng.integers(low, high + 1, shape), weight_dtype),
        tensor("ws", scale if per_channel else scale[0], "float"), tensor("wz", z, weight_dtype),
        tensor("b", rng.integers(-500, 500, 4), "int32"),
        tensor("bs", (0.25 * scale) if per_channel else 0.25 * scale[0], "float"),
        tensor("ys", 0.5, "float"), tensor("yz", 3, "uint8"),
        tensor("m", rng.integers(-8, 8, (5, 36)), "int8"), tensor("ms", 0.1, "float"),
        tensor("mz", 1, "int8"),
    ]  # fmt: skip
    first = pair("x", "a", ["xs", "xz"])
    if x_kind != TensorProto.FLOAT:
        first = [helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["a"], "a")]
    nodes = [
        *first,
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], "wf", **axis),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bf"], "bf", **axis),
        helper.make_node("Conv", ["a", "wf", "bf"], ["c"], "conv", auto_pad="SAME_UPPER",
                         strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        *pair("r", "y", ["ys", "yz"]),
        helper.make_node("Flatten", ["y"], ["f"], "flatten"),
        helper.make_node("DequantizeLinear", ["m", "ms", "mz"], ["mf"], "mf"),
        helper.make_node("Gemm", ["f", "mf"], ["out"], "head", transB=1, alpha=0.5),
    ]  # fmt: skip
    return model_of(nodes, weights, (1, 3, 5, 6), [("out", 1, (1, 5))], opset, x_kind)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weight_dtype", RANGES)
def test_layers_are_lowered_and_named(weight_dtype, per_channel):
    model = conv_model(weight_dtype, per_channel)
    x = rng.normal(size=(1, 3, 5, 6)).astype(np.float32) * 8
    lib = be.build(be.from_onnx(model))
    bits = 4 if "4" in weight_dtype else 8
    found = [(n.name, n.weight_bits, n.act_bits, n.out_bits) for n in lib.report().layers]
    assert found == [("conv", bits, 8, 8), ("head", 4, 8, 32)]  # -8 ... 7 in int8.
    (expected,) = reference(model, x)
    np.testing.assert_allclose(lib(x), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(unlowered(model, x)[0], expected, rtol=1e-5, atol=1e-5)


def test_an_input_of_integers_is_quantized():
    model = conv_model("int8", False, TensorProto.UINT8)
    x = rng.integers(0, 256, (1, 3, 5, 6), dtype=np.uint8)
    lib = be.build(be.from_onnx(model))
    assert not lib.report().float_layers
    (expected,) = reference(model, x)
    np.testing.assert_allclose(lib(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("spatial", [1, 2])
def test_layers_of_other_shapes_keep_their_channels(op, spatial):
    """Transposed weights have their output channels on axis 1, and so their scales."""
    kernel, axis = (3,) * spatial, int(op == "ConvTranspose")
    shape = (4, 4, *kernel)
    weights = [
        tensor("xs", 0.25, "float"), tensor("xz", 2, "uint4"),
        tensor("w", rng.integers(-8, 8, shape), "int4"), tensor("wz", np.zeros(4), "int4"),
        tensor("ws", [0.5, 0.25, 1.0, 2.0], "float"),
    ]  # fmt: skip
    nodes = [
        *pair("x", "a", ["xs", "xz"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], "wf", axis=axis),
        helper.make_node(op, ["a", "wf"], ["y"], "layer", strides=[2] * spatial),
    ]
    x = rng.normal(size=(2, 4, *(7,) * spatial)).astype(np.float32)
    sizes = (2, 4, *((15,) if axis else (3,)) * spatial)
    model = model_of(nodes, weights, x.shape, [("y", 1, sizes)])
    lib = be.build(be.from_onnx(model))
    assert {row.name for row in lib.report().layers} == {"layer"} and not lib.report().float_layers
    np.testing.assert_array_equal(lib(x), reference(model, x)[0])  # Scales are powers of two.


def float_model(path):
    """Convolution, batch-norm, residual add, depthwise-separable block, pools, linear."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.body = nn.Conv2d(8, 8, 3, padding=1)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=2)
            self.pointwise, self.head = nn.Conv2d(8, 16, 1), nn.Linear(16, 10)

        def forward(self, x):
            x = torch.relu(self.norm(self.first(x)))
            x = torch.relu(x + self.body(x))
            x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
            x = nn.functional.max_pool2d(x, 2)
            return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    torch.manual_seed(0)
    network = Network().eval()
    network.norm.running_mean.normal_(), network.norm.running_var.uniform_(0.5, 2)
    options = dict(opset_version=17, input_names=["x"], dynamo=False)
    torch.onnx.export(network, (torch.zeros(1, 3, 16, 16),), str(path), **options)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("options", [
    # 7 bits: without VNNI its kernel of unsigned by signed bytes saturates sums of 8.
    dict(activation_type="QUInt8", weight_type="QInt8", reduce_range=True),
    dict(activation_type="QInt8", weight_type="QInt8", per_channel=True),
    dict(activation_type="QUInt8", weight_type="QUInt8"),
], ids=["u8s8", "s8s8_per_channel", "u8u8"])  # fmt: skip
def test_what_onnx_runtimes_quantizer_writes(options, tmp_path):
    """Its integer kernels multiply sums by one float32 factor where the graph multiplies twice, and
    add biases as integers: near a tie the code behind may differ, by one."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    inputs = np.random.default_rng(0).normal(size=(16, 1, 3, 16, 16)).astype(np.float32)

    class Batches(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(inputs[:8])

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"x": batch}

    float_path, path = tmp_path / "float.onnx", tmp_path / "qdq.onnx"
    float_model(float_path)
    types = {k: QuantType[v] if isinstance(v, str) else v for k, v in options.items()}
    quantize_static(float_path, path, Batches(), quant_format=QuantFormat.QDQ, **types)
    lib = be.build(be.from_onnx(path))
    assert len(lib.report().layers) == 5 and not lib.report().float_layers
    last = onnx.load(path).graph.node[-1]  # DequantizeLinear, so its input are the output codes.
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer}
    session = ort.InferenceSession(path)
    for x in inputs[8:]:
        (expected,) = session.run(None, {"x": x})
        codes, reference = (np.rint(y / weights[last.input[1]]) for y in (lib(x), expected))
        assert np.abs(codes - reference).max() <= 1
        assert np.mean(codes != reference) <= 0.1


@pytest.mark.parametrize("is_quantized", [True, False])
def test_a_part_that_a_split_of_constants_leaves_out(is_quantized):
    g, rng = ModelBuilder(17), np.random.default_rng(0)
    codes = rng.integers(-3, 4, (4, 6))
    weight = g.constant(codes, "int8" if is_quantized else "float32")
    if is_quantized:
        weight = g.add("DequantizeLinear", weight, *g.grid(0.5, 0, "int8"))
    part, _ = g.add("Split", weight, g.constant([4, 2], "int64"), outputs=2, axis=1)
    g.nodes[-1].output[1] = ""
    clipped = g.add("Clip", "x", "", g.constant(1.0, "float32"))
    out = g.add("MatMul", clipped, part)
    x = rng.normal(size=(2, 4)).astype("float32")
    wanted = np.minimum(x, 1) @ (codes[:, :4] * (0.5 if is_quantized else 1)).astype("float32")
    mod = be.from_onnx(g.model({"x": ("float32", (2, 4))}, {out: ("float32", (2, 4))}))
    assert np.allclose(be.build(mod)(x), wanted, atol=1e-6)


def test_weights_that_are_quantized_by_their_values():
    """Alpha times signs, stored as floats, behind a quantized input."""
    signs = np.where(rng.standard_normal((8, 3, 3, 3)) > 0, 1, -1)
    alpha = rng.uniform(0.1, 1, (8, 1, 1, 1))
    weights = [
        *(tensor("s", 0.1, "float"), tensor("z", 0, "uint8")),
        tensor("w", signs * alpha, "float"),
    ]
    nodes = pair("x", "a", ["s", "z"])
    nodes.append(helper.make_node("Conv", ["a", "w"], ["y"], "conv"))
    model = model_of(nodes, weights, (1, 3, 6, 6), [("y", TensorProto.FLOAT, (1, 8, 4, 4))])
    x = rng.uniform(0, 25, (1, 3, 6, 6)).astype(np.float32)
    lib = be.build(be.from_onnx(model))
    assert [(row.weight_bits, row.act_bits) for row in lib.report().layers] == [(1, 8)]
    (expected,) = reference(model, x)
    assert np.abs(lib(x) - expected).max() < 1e-5 * np.abs(expected).max()
