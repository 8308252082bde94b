"""QONNX models give the codes of the QONNX executor, lowered or not; Brevitas makes the models."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be
from tvm_bitenc.transform import no_lowering

oxe = pytest.importorskip("qonnx.core.onnx_exec", reason="pip install qonnx")
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402

GENERAL, BREVITAS = "qonnx.custom_op.general", "onnx.brevitas"
ROUNDING_MODES = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
rng = np.random.default_rng(0)


class Graph:
    """Nodes, weights and outputs of a model that is put together by hand."""

    def __init__(self, *input_shape: int):
        self.nodes, self.weights, self.outputs = [], [], []
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)

    def weight(self, values, dtype=np.float32) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, inputs, domain: str = "", **attributes) -> str:
        output = f"{op}_{len(self.nodes)}"
        node = helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def quant(self, x, scale=0.5, zero_point=0.0, bits=4, signed=1, narrow=0, mode="ROUND",
              domain=GENERAL) -> str:  # fmt: skip
        parameters = [self.weight(v) for v in (scale, zero_point, bits)]
        attributes = dict(signed=signed, narrow=narrow, rounding_mode=mode)
        return self.node("Quant", [x, *parameters], domain, **attributes)

    def output(self, name: str, *shape: int) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, opset: int = 13, qonnx_opset: int = 2) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "test", [self.input], self.outputs, self.weights)
        versions = {"": opset, GENERAL: qonnx_opset, BREVITAS: 1}
        opsets = [helper.make_opsetid(*item) for item in versions.items()]
        return helper.make_model(graph, opset_imports=opsets)


def executed(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor, as the QONNX executor computes it."""
    from qonnx.transformation.infer_shapes import InferShapes

    wrapper = ModelWrapper(model).transform(InferShapes())
    (name,) = (v.name for v in wrapper.graph.input if wrapper.get_initializer(v.name) is None)
    return oxe.execute_onnx(wrapper, {name: x}, return_full_exec_context=True)


def outputs_of(model: onnx.ModelProto, x: np.ndarray, **options) -> dict[str, np.ndarray]:
    result = be.build(be.from_onnx(model), **options)(x)
    result = result if isinstance(result, tuple) else (result,)
    return dict(zip([value.name for value in model.graph.output], result))


def edges(count: int = 64) -> np.ndarray:
    """Halves, their float32 neighbours, values far outside, and noise."""
    halves = (np.arange(-count, count) / 2).astype(np.float32)
    beside = [np.nextafter(halves, np.float32(end)) for end in (-np.inf, np.inf)]
    special = np.float32([-0.0, 1e-40, -1e-40, 3e38, -3e38, 300.25, -300.75])
    return np.concatenate([halves, *beside, special, rng.normal(size=200).astype(np.float32) * 9])


def test_every_quant_bit_for_bit(same):
    x = edges()
    graph = Graph(len(x))
    for mode in ROUNDING_MODES:
        for bits, signed, narrow in [(4, 1, 0), (4, 1, 1), (4, 0, 0), (4, 0, 1), (2, 1, 1)]:
            graph.output(graph.quant("x", 0.75, 0.0, bits, signed, narrow, mode), len(x))
        graph.output(graph.quant("x", 0.1, 3.0, 5, 0, mode=mode), len(x))
        graph.output(graph.quant("x", 0.1, -3.0, 5, 1, mode=mode, domain=BREVITAS), len(x))
    graph.output(graph.quant("x", 0.1, mode="ceil"), len(x))
    for bits in range(1, 9):
        graph.output(graph.quant("x", 1 / 3, bits=bits, signed=0), len(x))
        graph.output(graph.quant("x", 1 / 3, bits=bits, signed=1, narrow=int(bits == 8)), len(x))
    scale = graph.weight([0.3])
    graph.output(graph.node("BipolarQuant", ["x", scale], GENERAL), len(x))
    graph.output(graph.node("BipolarQuant", ["x", scale], BREVITAS), len(x))
    model = graph.model()
    expected, found = executed(model, x), outputs_of(model, x, pipeline=no_lowering)
    assert len(found) == 75
    wrong = [name for name in found if not np.array_equal(found[name], expected[name])]
    assert not wrong


@pytest.mark.parametrize("mode", ["FLOOR", "CEIL", "ROUND"])
def test_trunc_bit_for_bit(mode):
    x = np.arange(-80, 160).astype(np.float32) * np.float32(0.07)
    x = np.concatenate([x, x + np.float32(1e-4), x - np.float32(1e-4)])
    graph = Graph(len(x))
    for factor, bits, signed, narrow in [(4, 4, 0, 0), (4, 4, 1, 0), (1, 8, 0, 0), (16, 2, 1, 1)]:
        parameters = [0.07, 0.0, 8, np.float32(0.07) * np.float32(factor), bits]
        inputs = ["x", *map(graph.weight, parameters)]
        attributes = dict(signed=signed, narrow=narrow, rounding_mode=mode)
        graph.output(graph.node("Trunc", inputs, GENERAL, **attributes), len(x))
    model = graph.model()
    expected, found = executed(model, x), outputs_of(model, x, pipeline=no_lowering)
    for name in found:
        assert np.array_equal(found[name], expected[name]), name


MOVES = {
    "Identity": lambda g, w: g.node("Identity", [w]),
    "Transpose": lambda g, w: g.node("Transpose", [w], perm=[1, 0, 2, 3]),
    "Reshape": lambda g, w: g.node("Reshape", [w, g.weight([2, 2, 2, 9], np.int64)]),
    "Slice": lambda g, w: g.node("Slice", [w, *(g.weight(v, np.int64) for v in ([1], [3], [0]))]),
    "Unsqueeze": lambda g, w: g.node("Squeeze", [g.node("Unsqueeze", [w, g.weight([0], np.int64)]),
                                                 g.weight([0], np.int64)]),
}  # fmt: skip


def test_weights_behind_nodes_that_move_them():
    """Layers whose weights are moved before their quantizer, or after it with their scales."""
    values = rng.normal(size=(4, 2, 3, 3)).astype(np.float32)
    x = rng.integers(0, 16, (1, 4, 5, 5)).astype(np.float32)
    channels_first = np.float32([0.5, 0.25, 1.0, 2.0]).reshape(4, 1, 1, 1)
    graph = Graph(*x.shape)
    act = graph.quant("x", 1.0, bits=4, signed=0)
    for move in MOVES.values():
        before = graph.quant(move(graph, graph.weight(values)), 0.5, bits=3)
        after = move(graph, graph.quant(graph.weight(values), channels_first, bits=3))
        for weight in (before, after):  # Four filters of each, for one shape of layer.
            filters = graph.node("Reshape", [weight, graph.weight([-1, 1, 3, 3], np.int64)])
            bounds = [graph.weight(v, np.int64) for v in ([0], [4], [0])]
            picked = graph.node("Slice", [filters, *bounds])
            graph.output(graph.node("Conv", [act, picked], group=4), 1, 4, 3, 3)
    model = graph.model()
    expected, lib = executed(model, x), be.build(be.from_onnx(model))
    assert not lib.report().float_layers and len(lib.report().layers) == len(model.graph.output)
    for value, found in zip(model.graph.output, lib(x)):
        np.testing.assert_array_equal(found, expected[value.name])


def trained_like(model, x):
    """Statistics of a few batches in scales and batch-norms, then eval mode."""
    import torch

    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(8, *x.shape[1:]))
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.weight), torch.nn.init.normal_(part.bias)
    return model.eval()


def exported(model, x: np.ndarray, path) -> onnx.ModelProto:
    """A Brevitas model as `export_qonnx` writes it."""
    import torch
    from brevitas.export import export_qonnx

    export_qonnx(trained_like(model, x), torch.from_numpy(x), str(path), verbose=False)
    return onnx.load(path)


def cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model as the QONNX executor wants it."""
    from qonnx.util.cleanup import cleanup_model

    return cleanup_model(ModelWrapper(model)).model


def activations(model: onnx.ModelProto) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    """Scale and shape of what each quantizer of activations gives, by tensor name."""
    wrapper = ModelWrapper(model)
    kinds = {"Quant": 1, "BipolarQuant": 1, "Trunc": 4}
    return {
        node.output[0]: (
            wrapper.get_initializer(node.input[kinds[node.op_type]]),
            tuple(wrapper.get_tensor_shape(node.output[0])),
        )
        for node in model.graph.node
        if node.op_type in kinds and wrapper.get_initializer(node.input[0]) is None
    }


def with_probes(model: onnx.ModelProto, names: dict) -> onnx.ModelProto:
    """A 1x1 layer of weights 1 behind each quantizer, so that its codes are seen as sums.

    As an output of the model a quantizer would be left as it is; before a layer it is lowered.
    """
    graph = Graph(1)
    for i, (name, (_, shape)) in enumerate(names.items()):
        one = np.eye(shape[1]) if len(shape) == 2 else np.ones((shape[1], 1, 1, 1))
        weight = graph.quant(graph.weight(one), 1.0, bits=1, signed=0)
        op, group = ("MatMul", {}) if len(shape) == 2 else ("Conv", {"group": shape[1]})
        node = helper.make_node(op, [name, weight], [f"probe{i}"], name=f"probe{i}", **group)
        graph.nodes.append(node)
        graph.output(f"probe{i}", *shape)
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    renamed = {w.name: f"probe_{w.name}" for w in graph.weights}
    for weight in graph.weights:
        weight.name = renamed[weight.name]
    for node in graph.nodes:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        if node.op_type == "Quant":
            renamed[node.output[0]] = node.name = node.output[0] = f"probe_{node.output[0]}"
    probed.graph.node.extend(graph.nodes)
    probed.graph.initializer.extend(graph.weights)
    probed.graph.output.extend(graph.outputs)
    return probed


def check_against_executor(raw: onnx.ModelProto, x: np.ndarray):
    """All codes and the float output, of the raw and of the cleaned model; returns the layers."""
    model = cleaned(raw)
    context, names = executed(model, x), activations(model)
    expected = context[model.graph.output[0].name]
    unlowered = onnx.ModelProto()
    unlowered.CopyFrom(model)
    for name, (_, shape) in names.items():
        unlowered.graph.output.append(helper.make_tensor_value_info(name, 1, shape))
    found = outputs_of(unlowered, x, pipeline=no_lowering)
    probed = with_probes(model, names)
    lib = be.build(be.from_onnx(probed))
    result, *probes = lib(x)
    for (name, (scale, _)), probe in zip(names.items(), probes):
        codes = np.rint(context[name] / scale)
        assert np.abs(context[name] / scale - codes).max() < 1e-3, name
        assert np.array_equal(np.rint(found[name] / scale), codes), f"{name}, not lowered"
        assert np.array_equal(np.rint(probe / scale), codes), f"{name}, compiled"
    bound = 1e-5 * np.abs(expected).max()
    for floats in (result, found[model.graph.output[0].name], *outputs_of(raw, x).values()):
        assert np.abs(floats - expected).max() <= bound
    assert not lib.report().float_layers
    return [layer for layer in lib.report().layers if "probe" not in layer.name]


def quantized_layers():
    """Brevitas layers by a short name, with the bits of weights and of what follows."""
    import brevitas.nn as qnn
    from brevitas.quant import (
        Int8WeightPerChannelFloat,
        SignedBinaryActPerTensorConst,
        SignedBinaryWeightPerTensorConst,
        SignedTernaryWeightPerTensorConst,
    )
    from torch import nn

    def weights(bits):
        if bits == "ternary":
            return dict(weight_quant=SignedTernaryWeightPerTensorConst)
        if bits == 1:
            return dict(weight_quant=SignedBinaryWeightPerTensorConst)
        return dict(weight_quant=Int8WeightPerChannelFloat, weight_bit_width=bits)

    def activation(bits):
        if bits == 1:
            return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)
        return qnn.QuantReLU(bit_width=bits)

    def conv(inputs, outputs, kernel, bits, act_bits, **window):
        layer = qnn.QuantConv2d(inputs, outputs, kernel, bias=False, **weights(bits), **window)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation(act_bits))

    return qnn, nn, weights, activation, conv


def network(bits, act_bits, width=8):
    """8-bit first layer, a residual and a depthwise-separable block, average pool, linear head."""
    import torch
    from brevitas.quant import Int8ActPerTensorFloat, Int16Bias

    qnn, nn, weights, activation, conv = quantized_layers()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat)
            self.first = conv(3, width, 3, 8, act_bits, padding=1)
            self.body = conv(width, width, 3, bits, act_bits, padding=1)
            self.branch = qnn.QuantConv2d(width, width, 3, padding=1, **weights(bits))
            self.join = activation(act_bits)
            self.depthwise = conv(width, width, 3, bits, act_bits, groups=width, stride=2)
            self.pointwise = conv(width, 2 * width, 1, bits, act_bits)
            # An average of signs is seldom a sign: binary networks pool integers of more bits.
            self.before_pool = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
            self.pool = qnn.TruncAvgPool2d(2, bit_width=4, float_to_int_impl_type="floor")
            self.head = qnn.QuantLinear(
                2 * width, 5, bias=True, bias_quant=Int16Bias, **weights("ternary")
            )

        def forward(self, x):
            x = self.first(self.input(x))
            x = self.join(x + self.branch(self.body(x)))
            x = self.pointwise(self.depthwise(x))
            return self.head(torch.flatten(self.pool(self.before_pool(x)), 1))

    torch.manual_seed(0)
    return Network()


BITS = {
    "W1A1": (1, 1),
    "ternary": ("ternary", 2),
    "W2A2": (2, 2),
    "W3A5": (3, 5),
    "W4A3": (4, 3),
    "W8A8": (8, 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name == "W4A3" else pytest.mark.slow) for name in BITS
])  # fmt: skip
def test_brevitas_networks(name, tmp_path):
    pytest.importorskip("brevitas", reason="pip install brevitas onnxoptimizer")
    x = np.random.default_rng(1).normal(size=(1, 3, 7, 7)).astype(np.float32)
    layers = check_against_executor(exported(network(*BITS[name]), x, tmp_path / "net.onnx"), x)
    weight_bits, act_bits = (2 if n == "ternary" else n for n in BITS[name])
    inner = [(weight_bits, act_bits)] * 4
    assert [(layer.weight_bits, layer.act_bits) for layer in layers] == [(8, 8), *inner, (2, 4)]
    assert layers[1].out_bits == layers[3].out_bits == act_bits  # What only layers read is codes.
