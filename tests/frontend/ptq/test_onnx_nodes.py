"""Nodes of quantized layers: `Quant` as the QONNX executor computes it, shared where it may be."""

from collections import Counter

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.frontend.ptq.grids import weight_encoding
from tvm_bitenc.frontend.ptq.layer import Layer, QuantizedLayer

onnx = pytest.importorskip("onnx", reason="pip install onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tvm_bitenc.frontend.ptq.onnx_nodes import quantized_model  # noqa: E402

RANDOM = np.random.default_rng(0)
WEIGHTS = [RANDOM.normal(size=(4, 3, 1, 1)).astype(np.float32) for _ in range(3)]


def model_of():
    """Three 1x1 convolutions of x; the sum of all."""
    nodes = [helper.make_node("Conv", ["x", f"w{i}"], [f"y{i}"], f"conv{i}") for i in range(3)]
    nodes.append(helper.make_node("Sum", ["y0", "y1", "y2"], ["y"], "sum"))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 5, 5])
        for name, channels in (("x", 3), ("y", 4))
    ]
    stored = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(WEIGHTS)]
    graph = helper.make_graph(nodes, "test", [values[0]], [values[1]], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    return model


def quantized(i, act, bits=3, bias=True):
    window = dict(strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1))
    layer = Layer(f"conv{i}", "x", f"y{i}", WEIGHTS[i], None, **window)
    weight = weight_encoding(WEIGHTS[i], bits)
    offsets = RANDOM.normal(size=4).astype(np.float32) if bias else None
    return QuantizedLayer(layer, act, weight, weight.quantize(WEIGHTS[i]), offsets)


ACTS = Encoding(4, 0.3, 7.0), Encoding(2, 0.9, 1.5)


def test_tensors_have_one_quantizer_per_grid():
    layers = [quantized(0, ACTS[0]), quantized(1, ACTS[0], bias=False), quantized(2, ACTS[1])]
    model = quantized_model(model_of(), layers, is_runnable=True)
    onnx.checker.check_model(model)
    assert not {tensor.name for tensor in model.graph.initializer} & {"w0", "w1", "w2"}
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts == {"Quant": 5, "Conv": 3, "Mul": 5, "Add": 2, "Sum": 1}
    assert {node.name for node in model.graph.node if node.op_type == "Conv"} == {
        "conv0",
        "conv1",
        "conv2",
    }


def test_without_layers_nothing_changes():
    assert quantized_model(model_of(), [], is_runnable=True) == model_of()


def test_onnx_runtime_and_the_qonnx_executor_agree():
    qonnx = pytest.importorskip("qonnx.core.modelwrapper", reason="pip install qonnx")
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    layers = [quantized(i, ACTS[i % 2], bits) for i, bits in enumerate((1, 3, 8))]
    x = RANDOM.normal(size=(1, 3, 5, 5)).astype(np.float32)
    runnable = quantized_model(model_of(), layers, is_runnable=True)
    session = onnxruntime.InferenceSession(runnable.SerializeToString())
    (found,) = session.run(None, {"x": x})
    plain = quantized_model(model_of(), layers, is_runnable=False)
    assert not plain.functions
    wrapped = cleanup_model(qonnx.ModelWrapper(plain))
    (expected,) = execute_onnx(wrapped, {wrapped.graph.input[0].name: x}).values()
    # ONNX Runtime multiplies the scale into the weights; a wrong code would differ far more.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
