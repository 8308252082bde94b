"""QDQ models with layers and shaping ops of all kinds: ONNX Runtime's numbers, without floats."""

import numpy as np
import onnx
import pytest

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder, onnx_runtime

pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
F32 = np.float32


class Network(ModelBuilder):
    """Layers of one input ``x``; scales are powers of two, so floats are exact."""

    def __init__(self):
        super().__init__(opset=18)
        self.rng = np.random.default_rng(0)

    def quantized(self, x: str, scale: float = 0.25, zero_point: int = 128) -> str:
        grid = self.grid(scale, zero_point)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *grid), *grid)

    def weight(self, *shape: int) -> str:
        codes = self.constant(self.rng.integers(-3, 4, shape), np.int8)
        return self.add("DequantizeLinear", codes, *self.grid(0.25, 0, np.int8))

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)


def padded(g, mode, value=None, zero_point=128, pads=(0, 0, 1, 0, 0, 0, 2, 1), axes=""):
    value = "" if value is None else g.constant(value, np.float32)
    axes = axes and g.ints(*axes)
    a = g.add("Pad", g.quantized("x", 0.25, zero_point), g.ints(*pads), value, axes, mode=mode)
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
    parts = g.add("Split", g.quantized("x"), g.ints(1, 2), axis=1, outputs=2)
    return g.add("Conv", parts[1], g.weight(4, 2, 3, 3))


def sliced(g):
    bounds = (g.ints(n) for n in (1, 7, 2, 2))
    return g.add("Conv", g.add("Slice", g.quantized("x"), *bounds), g.weight(4, 3, 3, 3))


def tiled(g):
    return g.add("Conv", g.add("Tile", g.quantized("x"), g.ints(1, 2, 1, 1)), g.weight(4, 6, 1, 1))


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
    row = g.add("Reshape", g.quantized("x"), g.ints(1, 3, 64))
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


OUT_AXES = {"one dimension": 3}  # Where they aren't those of an image.


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_onnx_runtimes_and_every_layer_is_lowered(name, same):
    network = Network()
    output = MODELS[name](network)
    model = network.model({"x": (F32, (1, 3, 8, 8))}, {output: (F32, OUT_AXES.get(name, 4))})
    model = onnx.shape_inference.infer_shapes(model)
    x = 8 * network.rng.normal(size=(1, 3, 8, 8)).astype(F32)
    (expected,) = onnx_runtime(model, {"x": x})
    lib = be.build(be.from_onnx(model), threads=1)
    assert same(lib(x), expected)
    assert lib.report().layers and not lib.report().float_layers
