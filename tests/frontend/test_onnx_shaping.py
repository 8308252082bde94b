"""QDQ models with layers and shaping ops of all kinds: ONNX Runtime's numbers, without floats."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_bitenc as be

ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")


class Graph:
    """An ONNX graph under construction; scales are powers of two, so floats are exact."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.nodes, self.weights = [], []

    def constant(self, values, dtype=np.int64) -> str:
        name = f"constant{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes):
        names = [f"{op}{len(self.nodes)}_{i}" for i in range(outputs)]
        node = helper.make_node(op, list(inputs), names, f"{op}{len(self.nodes)}", **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def quantized(self, x: str, scale: float = 0.25, zero_point: int = 128) -> str:
        grid = self.constant(scale, np.float32), self.constant(zero_point, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *grid), *grid)

    def weight(self, *shape: int) -> str:
        codes = self.constant(self.rng.integers(-3, 4, shape), np.int8)
        grid = self.constant(0.25, np.float32), self.constant(0, np.int8)
        return self.add("DequantizeLinear", codes, *grid)

    def model(self, output: str) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "test", [x], [y], self.weights)
        opsets = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def padded(g, mode, value=None, zero_point=128, pads=(0, 0, 1, 0, 0, 0, 2, 1), axes=""):
    value = "" if value is None else g.constant(value, np.float32)
    axes = axes and g.constant(axes)
    a = g.add("Pad", g.quantized("x", 0.25, zero_point), g.constant(pads), value, axes, mode=mode)
    return g.add("Conv", a, g.weight(4, 3, 3, 3))


def transposed(g):
    window = dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    return g.add("ConvTranspose", g.quantized("x"), g.weight(3, 4, 3, 3), **window)


def resized(g):
    scales = g.constant([1, 1, 2, 2], np.float32)
    how = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    y = g.add("Resize", g.quantized("x"), "", scales, **how)
    return g.add("Conv", g.quantized(y), g.weight(4, 3, 1, 1))


def joined(g):
    a = g.quantized("x", 0.25, 0)
    y = g.add("Relu", g.add("Conv", a, g.weight(4, 3, 3, 3), pads=[1, 1, 1, 1]))
    both = g.add("Concat", a, g.quantized(y, 0.5, 0), axis=1)
    return g.add("Conv", g.quantized(both, 0.5, 0), g.weight(4, 7, 3, 3))


def split(g):
    parts = g.add("Split", g.quantized("x"), g.constant([1, 2]), axis=1, outputs=2)
    return g.add("Conv", parts[1], g.weight(4, 2, 3, 3))


def sliced(g):
    bounds = (g.constant([n]) for n in (1, 7, 2, 2))
    return g.add("Conv", g.add("Slice", g.quantized("x"), *bounds), g.weight(4, 3, 3, 3))


def tiled(g):
    return g.add(
        "Conv", g.add("Tile", g.quantized("x"), g.constant([1, 2, 1, 1])), g.weight(4, 6, 1, 1)
    )


def depth_to_space(g):
    y = g.add("Conv", g.quantized("x"), g.weight(8, 3, 3, 3), pads=[1, 1, 1, 1])
    y = g.quantized(g.add("DepthToSpace", y, blocksize=2), 1.0)
    return g.add("Conv", y, g.weight(4, 2, 3, 3))


def attention(g):
    a = g.quantized("x")
    return g.add("MatMul", a, g.add("Transpose", a, perm=[0, 1, 3, 2]))


def tokens(g):
    return g.add("MatMul", g.quantized("x"), g.weight(8, 5))


def one_dimension(g):
    row = g.add("Reshape", g.quantized("x"), g.constant([1, 3, 64]))
    return g.add("Conv", row, g.weight(4, 3, 3), pads=[1, 1])


MODELS = {
    "pads with zeros": lambda g: padded(g, "constant"),
    "pads with a level": lambda g: padded(g, "constant", 1.5),
    "pads with zeros that are code 0": lambda g: padded(g, "constant", 0.0, 0),
    "pads some axes": lambda g: padded(g, "constant", None, 128, (1, 2), [-1]),
    "reflects": lambda g: padded(g, "reflect"),
    "repeats the edge": lambda g: padded(g, "edge"),
    "transposed convolution": transposed,
    "resize": resized,
    "concat": joined,
    "split": split,
    "slice": sliced,
    "tile": tiled,
    "depth to space": depth_to_space,
    "attention": attention,
    "tokens": tokens,
    "one dimension": one_dimension,
}


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_onnx_runtimes_and_every_layer_is_lowered(name, same):
    graph = Graph()
    model = graph.model(MODELS[name](graph))
    x = 8 * graph.rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    lib = be.build(be.from_onnx(model), threads=1)
    assert same(lib(x), expected)
    assert lib.report().layers and not lib.report().float_layers
