"""Scales and zero points that come at run time: integers all the same, ONNX Runtime's numbers."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tvm_bitenc as be
from tests.frontend.onnx_models import MICROSOFT, ModelBuilder, onnx_runtime

ort = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

U8, I8, F32 = np.uint8, np.int8, np.float32
FEW = settings(max_examples=3, deadline=None)


def builder():
    return ModelBuilder(17, {MICROSOFT: 1})


def check(model, feeds, layers, exact=True):
    lib = be.build(be.from_onnx(model))
    results = lib(*feeds.values())
    results = results if isinstance(results, tuple) else (results,)
    for result, expected in zip(results, onnx_runtime(model, feeds), strict=True):
        assert result.dtype == expected.dtype and result.shape == expected.shape
        if exact:
            assert np.array_equal(result, expected)
        else:
            assert np.allclose(result, expected, rtol=1e-5, atol=1e-5)
    report = lib.report()
    assert not report.float_layers, report
    assert len(report.layers) == layers and {n.act_bits for n in report.layers} <= {8}
    return lib


@pytest.mark.parametrize(
    "x",
    [np.zeros(4), [-1, 2, 3], [1, 2, 3], [-3, -2, -1], [1e-30, 0], np.linspace(-1, 3, 999),
     [3e38, -3e38], [5], np.arange(-40, 25) / 8],
)  # fmt: skip
def test_quantizer(x):
    g = builder()
    outputs = g.add("DynamicQuantizeLinear", "x", outputs=3)
    x = np.asarray(x, F32)
    kinds = zip((U8, F32, U8), (1, 0, 0))
    model = g.model({"x": (F32, x.shape)}, dict(zip(outputs, kinds)))
    results = be.build(be.from_onnx(model))(x)
    for result, expected in zip(results, onnx_runtime(model, {"x": x})):
        assert np.array_equal(result, expected) and result.shape == expected.shape


@FEW
@given(st.data())
def test_matrix_product(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    g, w_type = builder(), data.draw(st.sampled_from([U8, I8]))
    shape = data.draw(st.sampled_from([(5, 8), (2, 3, 8), (8,)]))
    q, s, z = g.add("DynamicQuantizeLinear", "x", outputs=3)
    w = g.constant(rng.integers(-63, 64, (8, 6)) + (64 if w_type == U8 else 0), w_type)
    w_zero = g.constant(rng.integers(1, 99, 6) if data.draw(st.booleans()) else 3, w_type)
    sums = g.add("MatMulInteger", q, w, z, w_zero)
    scaled = g.add("Mul", g.add("Cast", sums, to=1), g.add("Mul", s, g.constant(F32(0.01))))
    y = g.add("Add", scaled, g.constant(rng.normal(size=6), F32))
    rank = len(shape)
    model = g.model({"x": (F32, shape)}, {sums: (np.int32, rank), y: (F32, rank)})
    x = rng.normal(data.draw(st.integers(-3, 3)), size=shape).astype(F32)
    check(model, {"x": x}, 1)


@FEW
@given(st.data())
def test_convolution(data):
    """Padding is the real 0: the code of the zero point, which differs from run to run."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    g, kernel = builder(), data.draw(st.sampled_from([[3], [3, 3], [2, 3]]))
    spatial = len(kernel)
    pads = data.draw(st.lists(st.integers(0, 2), min_size=2 * spatial, max_size=2 * spatial))
    window = dict(strides=[2, 1][:spatial], dilations=[1, 2][:spatial], pads=pads, group=2)
    q, s, z = g.add("DynamicQuantizeLinear", "x", outputs=3)
    w = g.constant(rng.integers(-63, 64, (4, 2, *kernel)), I8)
    sums = g.add("ConvInteger", q, w, z, **window)
    y = g.add("Mul", g.add("Cast", sums, to=1), s)
    shape = (2, 4, *[7, 8][:spatial])
    model = g.model({"x": (F32, shape)}, {y: (F32, len(shape)), sums: (np.int32, len(shape))})
    check(model, {"x": rng.normal(1, size=shape).astype(F32)}, 1)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("dtypes", [(U8, I8), (U8, U8), (I8, I8)])
def test_integers_are_inputs(dtypes):
    """Of two runs at once: with zero points and without, of one tensor known and of none."""
    rng, g = np.random.default_rng(0), builder()
    w = g.constant(rng.integers(0, 64, (8, 6)), dtypes[1])
    zeros = g.constant(9, dtypes[0]), g.constant(5, dtypes[1])
    kernel = g.constant(rng.integers(0, 64, (3, 2, 3, 3)), dtypes[1])
    outputs = {
        g.add("MatMulInteger", "a", w): (np.int32, 2),
        g.add("MatMulInteger", "a", "b", *zeros): (np.int32, 2),
        g.add("MatMulInteger", "a", "b", "za", "zb"): (np.int32, 2),
        g.add("ConvInteger", "c", kernel, zeros[0], pads=[1] * 4): (np.int32, 4),
        g.add("ConvInteger", "c", kernel, "", zeros[1]): (np.int32, 4),
    }
    shapes = {"a": (5, 8), "b": (8, 4), "c": (1, 2, 5, 5), "za": (1,), "zb": (1,)}
    kinds = {name: dtypes[name in ("b", "zb")] for name in shapes}
    model = g.model({name: (kinds[name], shape) for name, shape in shapes.items()}, outputs)
    feeds = {
        name: np.asarray(rng.integers(0, 100, shape), kinds[name]) for name, shape in shapes.items()
    }
    check(model, feeds, 5)


@pytest.mark.parametrize("has_bias", [False, True])
def test_fused_by_onnx_runtime(has_bias):
    rng, g = np.random.default_rng(0), builder()
    w, grid = (
        g.constant(rng.integers(-63, 64, (8, 6)), I8),
        g.grid(np.full(6, 0.01), np.zeros(6), I8),
    )
    bias = [g.constant(rng.normal(size=6), F32)] if has_bias else []
    y = g.add("DynamicQuantizeMatMul", "x", w, *grid, *bias, domain=MICROSOFT)
    q, s, z = g.add("DynamicQuantizeLinear", "x", outputs=3)
    u = g.add("MatMulIntegerToFloat", q, w, s, grid[0], z, grid[1], *bias, domain=MICROSOFT)
    model = g.model({"x": (F32, (3, 8))}, {y: (F32, 2), u: (F32, 2)})
    check(model, {"x": rng.normal(size=(3, 8)).astype(F32)}, 2, exact=False)


def test_what_onnx_runtimes_quantizer_writes(tmp_path):
    """A convolution, a pointwise one and two products of matrices, with biases and activations."""
    from onnxruntime.quantization import quantize_dynamic

    rng, g = np.random.default_rng(0), ModelBuilder(17)

    def weight(*shape):
        return g.constant(rng.normal(size=shape) * 0.3, F32)

    y = g.add("Relu", g.add("Conv", "x", weight(8, 3, 3, 3), weight(8), pads=[1] * 4))
    y = g.add("Relu", g.add("Conv", y, weight(6, 8, 1, 1)))
    y = g.add("Flatten", g.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    y = g.add("Relu", g.add("Gemm", y, weight(96, 10), weight(10)))
    y = g.add("MatMul", y, weight(10, 5))
    model = g.model({"x": (F32, (2, 3, 8, 8))}, {y: (F32, 2)})
    paths = [str(tmp_path / name) for name in ("float.onnx", "int8.onnx")]
    onnx.save(model, paths[0])
    quantize_dynamic(*paths, extra_options={"WeightSymmetric": False})
    x = rng.normal(size=(2, 3, 8, 8)).astype(F32)
    check(onnx.load(paths[1]), {"x": x}, 4, exact=False)


def test_refused():
    """Which codes a convolution of two tensors would pad with, and what it would add up."""
    g = builder()
    y = g.add("ConvInteger", "x", "w", "z", pads=[1] * 4)
    shapes = {"x": (U8, (1, 2, 5, 5)), "w": (I8, (3, 2, 3, 3)), "z": (U8, ())}
    with pytest.raises(be.errors.UnsupportedError, match="neither its weight nor a zero point"):
        be.from_onnx(g.model(shapes, {y: (np.int32, 4)}))
