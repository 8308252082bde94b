"""Whole networks as ONNX Runtime's quantizers write them, in each of their formats."""

import numpy as np
import onnx
import pytest

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder, onnx_runtime

pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
F32 = np.float32


class Builder(ModelBuilder):
    """Float layers of random weights."""

    def __init__(self):
        super().__init__(17)
        self.rng = np.random.default_rng(0)

    def weight(self, *shape):
        return self.constant(self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])), F32)

    def conv(self, x, inputs, outputs, size=3, **attributes):
        weight, bias = self.weight(outputs, inputs, size, size), self.weight(outputs)
        return self.add("Conv", x, weight, bias, pads=[size // 2] * 4, **attributes)


def cnn():
    g = Builder()
    y = g.add("Relu", g.conv("x", 3, 8))
    y = g.add("Relu", g.add("Add", y, g.conv(y, 8, 8)))
    y = g.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = g.add("Concat", g.conv(y, 8, 4, 1), g.add("LeakyRelu", g.conv(y, 8, 4), alpha=0.1), axis=1)
    y = g.add("Mul", y, g.add("Sigmoid", g.conv(y, 1, 8, group=8)))
    y = g.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = g.add("Flatten", g.add("GlobalAveragePool", y))
    y = g.add("Gemm", y, g.weight(8, 6), g.weight(6))
    return g.model({"x": (F32, (1, 3, 8, 8))}, {y: (F32, (1, 6))})


def transformer_block():
    g, width, shape = Builder(), 16, (1, 5, 16)

    def split(x):
        heads = g.add("Reshape", x, g.constant([1, 5, 2, 8]))
        return g.add("Transpose", heads, perm=[0, 2, 1, 3])

    query, key, value = (split(g.add("MatMul", "x", g.weight(width, width))) for _ in range(3))
    scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 1, 3, 2]))
    scores = g.add("Softmax", g.add("Div", scores, g.constant(np.sqrt(8), F32)), axis=-1)
    mixed = g.add("Transpose", g.add("MatMul", scores, value), perm=[0, 2, 1, 3])
    mixed = g.add("Reshape", mixed, g.constant(shape))
    y = g.add("Add", "x", g.add("MatMul", mixed, g.weight(width, width)))
    y = g.add("LayerNormalization", y, g.constant(np.ones(width), F32), axis=-1)
    hidden = g.add("Relu", g.add("MatMul", y, g.weight(width, 32)))
    y = g.add("Add", y, g.add("MatMul", hidden, g.weight(32, width)))
    return g.model({"x": (F32, shape)}, {y: (F32, shape)})


def calibration(shape):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(1)
            self.batches = iter([{"x": rng.normal(size=shape).astype(F32)} for _ in range(4)])

        def get_next(self):
            return next(self.batches, None)

    return Reader()


def quantized(network, style, path):
    from onnxruntime import quantization as q

    paths = [str(path / "float.onnx"), str(path / "int8.onnx")]
    onnx.save(network, paths[0])
    if style == "dynamic":
        q.quantize_dynamic(*paths)
    else:
        shape = [dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim]
        form = q.QuantFormat.QDQ if style == "qdq" else q.QuantFormat.QOperator
        kinds = dict(activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
        # A softmax of integers has no converter.
        ops = {node.op_type for node in network.graph.node} - {"Softmax"}
        q.quantize_static(
            *paths, calibration(shape), quant_format=form, reduce_range=True,
            op_types_to_quantize=sorted(ops), **kinds,
        )  # fmt: skip
    return onnx.load(paths[1])


@pytest.mark.sweep(2)
@pytest.mark.parametrize("style", ["qoperator", "qdq", "dynamic"])
@pytest.mark.parametrize("network", [cnn, transformer_block])
def test_onnx_runtimes_quantizers(network, style, tmp_path):
    """Layers run on integers. Floats may round another way, which moves few codes by one step."""
    model = quantized(network(), style, tmp_path)
    lib = be.build(be.from_onnx(model))
    products = sum(
        node.op_type in ("Conv", "ConvInteger", "QLinearConv", "Gemm", "QGemm", "MatMul")
        or node.op_type in ("MatMulInteger", "QLinearMatMul")
        for node in model.graph.node
    )
    found = lib.report()
    floats = [layer.name for layer in found.float_layers]
    assert products == len(found.layers) + len(floats)
    assert not floats or style == "dynamic"  # Products of two activations aren't quantized there.
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(2).normal(size=shape).astype(F32)
    (expected,) = onnx_runtime(model, {"x": x})
    result = lib(x)
    if style == "qoperator" and network is cnn:  # Integers from end to end.
        assert np.array_equal(result, expected)
    assert np.abs(result - expected).max() <= 0.03 * np.abs(expected).max()
