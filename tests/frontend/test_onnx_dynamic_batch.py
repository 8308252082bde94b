"""Shapes computed from a batch whose size is open, between quantized layers."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder, onnx_runtime

pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
rng = np.random.default_rng(0)
F32, I64 = np.float32, np.int64


class Builder(ModelBuilder):
    """Quantized layers whose float sums are exact, and exporters' ways to write shapes."""

    def quantized(self, x):
        grid = self.grid(0.125, 120)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *grid), *grid)

    def weight(self, *shape):
        codes = self.constant(rng.integers(-7, 8, shape), np.int8)
        return self.add("DequantizeLinear", codes, self.constant(0.125, F32))

    def ints(self, *values):
        return self.constant(values, I64)

    def size(self, x, axis=0):
        """``x.size(axis)`` as a tensor of one axis."""
        size = self.add("Gather", self.add("Shape", x), self.constant(axis, I64), axis=0)
        return self.add("Unsqueeze", size, self.ints(0))

    def shape(self, *sizes):
        parts = [size if isinstance(size, str) else self.ints(size) for size in sizes]
        return self.add("Concat", *parts, axis=0)


def view(g, x):
    """``x.view(x.size(0), -1)``"""
    return g.add("Reshape", x, g.shape(g.size(x), -1))


def reshape_all(g, x):
    """``x.reshape(b, c * h * w)`` with sizes multiplied in the graph."""
    features = g.add("Mul", g.size(x, 1), g.add("Mul", g.size(x, 2), g.size(x, 3)))
    return g.add("Reshape", x, g.shape(g.size(x), features))


def slice_of_shape(g, x):
    head = g.add("Slice", g.add("Shape", x), g.ints(0), g.ints(1), g.ints(0))
    return g.add("Reshape", x, g.add("Concat", head, g.ints(8), axis=0))


def start_and_end(g, x):
    g.nodes.append(node := _shape_node(x))
    return g.add("Reshape", x, g.add("Concat", node.output[0], g.ints(-1), axis=0))


def _shape_node(x):
    from onnx import helper

    return helper.make_node("Shape", [x], ["head"], "head", start=0, end=1)


def there_and_back(g, x):
    """Rows of all samples as one axis, and samples apart again."""
    rows = g.add("Reshape", x, g.shape(g.add("Mul", g.size(x), g.ints(2)), 4))
    samples = g.add("Div", g.size(rows), g.ints(2))
    return g.add("Reshape", rows, g.shape(samples, 8))


def sum_of_sizes(g, x):
    twice = g.add("Add", g.size(x), g.size(x))
    return g.add("Reshape", x, g.shape(g.add("Sub", twice, g.size(x)), -1))


@pytest.mark.parametrize(
    "spelling", [view, reshape_all, slice_of_shape, start_and_end, there_and_back, sum_of_sizes]
)
def test_flatten_between_layers(spelling):
    """The codes stay codes: both layers are lowered, the second reads what the first writes."""
    g = Builder(17)
    a = g.quantized(g.add("Conv", g.quantized("x"), g.weight(2, 3, 3, 3)))
    y = g.add("MatMul", spelling(g, a), g.weight(8, 5))
    model = g.model({"x": (F32, ("N", 3, 4, 4))}, {y: (F32, ("N", 5))})
    lib = be.build(be.from_onnx(model))
    assert [layer.out_bits for layer in lib.report().layers] == [8, 32]
    assert not lib.report().float_layers
    for batch in (1, 3):
        x = rng.normal(size=(batch, 3, 4, 4)).astype(F32)
        assert np.array_equal(lib(x), onnx_runtime(model, {"x": x})[0])


def expand(g, x, token):
    """``token.expand(x.size(0), -1, -1)`` as torch writes it, comparing sizes with -1."""
    wanted = g.shape(g.size(x), -1, -1)
    ones = g.add("ConstantOfShape", g.add("Shape", wanted), value=_one())
    keep = g.add("Equal", wanted, g.add("Mul", ones, g.constant(-1, I64)))
    return g.add("Expand", token, g.add("Where", keep, ones, wanted))


def _one():
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ones(1, I64))


def expand_to_shape(g, x, token):
    return g.add("Expand", token, g.shape(g.size(x), 1, 4))


def repeat(g, x, token):
    return g.add("Tile", token, g.shape(g.size(x), 1, 1))


def added_to_zeros(g, x, token):
    zeros = g.add("ConstantOfShape", g.shape(g.size(x), 1, 4))
    return g.add("Add", zeros, token)


@pytest.mark.parametrize("spelling", [expand, expand_to_shape, repeat, added_to_zeros])
def test_class_token(spelling):
    """One constant row goes in front of the rows of each sample."""
    g = Builder(17)
    token = spelling(g, "x", g.constant(rng.normal(size=(1, 1, 4)), F32))
    y = g.add("MatMul", g.quantized(g.add("Concat", token, "x", axis=1)), g.weight(4, 5))
    model = g.model({"x": (F32, ("N", 3, 4))}, {y: (F32, ("N", 4, 5))})
    lib = be.build(be.from_onnx(model))
    assert len(lib.report().layers) == 1 and not lib.report().float_layers
    for batch in (1, 3):
        x = rng.normal(size=(batch, 3, 4)).astype(F32)
        assert np.array_equal(lib(x), onnx_runtime(model, {"x": x})[0])


def other_size(g):
    return g.add("Reshape", "x", g.shape(g.size("x"), 5))


def uneven(g):
    return g.add("Reshape", "x", g.shape(-1, g.add("Add", g.size("x"), g.ints(1))))


def wrong_expand(g):
    return g.add("Expand", "x", g.shape(g.size("x"), 7))


def asks(g):
    return g.add("Where", g.add("Equal", g.size("x"), g.ints(1)), "x", "x")


def counts(g):
    bounds = g.constant(0, I64), g.add("Squeeze", g.size("x")), g.constant(1, I64)
    return g.add("Range", *bounds)


def computes(g):
    return g.add("Mul", "x", g.add("Cast", g.size("x"), to=1))


@pytest.mark.parametrize(
    ("spelling", "cause"),
    [
        (other_size, "makes"),
        (uneven, "divides"),
        (wrong_expand, "makes"),
        (asks, "asks whether"),
        (counts, "dynamic batch"),
        (computes, "dynamic batch"),
    ],
)
def test_refused(spelling, cause):
    g = Builder(17)
    y = spelling(g)
    with pytest.raises(be.errors.BitencError, match=cause):
        be.from_onnx(g.model({"x": (F32, ("N", 4))}, {y: (F32, 2)}))


def test_images_of_a_dynamic_batch_are_resized():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 6, 8])
    scales = numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")
    graph = helper.make_graph([node], "test", [x], [y], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    lib = be.build(be.from_onnx(model), threads=1)
    for batch in (1, 3):
        image = np.random.default_rng(0).random((batch, 2, 3, 4), np.float32)
        np.testing.assert_array_equal(lib(image), image.repeat(2, 2).repeat(2, 3))
