"""Operators on int8 against ONNX Runtime's integer kernels, integer for integer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import tvm_bitenc as be
from tests.frontend.onnx_models import MICROSOFT, ModelBuilder, onnx_runtime

pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

U8, I8 = np.uint8, np.int8
FEW = settings(max_examples=6, deadline=None)


def limits(dtype):
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def builder():
    return ModelBuilder(17, {MICROSOFT: 1})


def codes(rng, dtype, *shape):
    low, high = limits(dtype)
    return rng.integers(low, high + 1, shape).astype(dtype)


def check(model, feeds, layers=None):
    """Every output is ONNX Runtime's; so many layers run on integers, none in float."""
    lib = be.build(be.from_onnx(model))
    results = lib(*feeds.values())
    results = results if isinstance(results, tuple) else (results,)
    for result, expected in zip(results, onnx_runtime(model, feeds), strict=True):
        assert result.dtype == expected.dtype
        assert np.array_equal(result, expected)
    assert not lib.report().float_layers
    if layers is not None:
        assert len(lib.report().layers) == layers
    return lib


def described(g, rng, name, dtype, scale=None):
    """A tensor, a scale and a zero point, as operators on int8 take them."""
    scale = rng.uniform(0.01, 0.1) if scale is None else scale
    return name, *g.grid(scale, codes(rng, dtype), dtype)


@FEW
@given(st.data())
def test_convolution(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    x_type, w_type = data.draw(st.sampled_from([(U8, I8), (U8, U8), (I8, I8)]))
    groups, channels = data.draw(st.sampled_from([(1, 3), (2, 4), (4, 4)]))
    kernel = data.draw(st.sampled_from([[3], [3, 3], [2, 1]]))
    many = data.draw(st.booleans())
    g, out = builder(), 4
    w = rng.integers(-63, 64, (out, channels // groups, *kernel)) + (64 if w_type == U8 else 0)
    scales = rng.uniform(0.001, 0.02, out) if many else 0.01
    low, high = limits(w_type)
    zeros = np.clip(rng.integers(60, 70, out) - (0 if w_type == U8 else 64), low, high)
    weight = g.constant(w, w_type), *g.grid(scales, zeros if many else zeros[0], w_type)
    bias = g.constant(rng.integers(-9999, 9999, out), np.int32)
    x, end = (described(g, rng, "x", x_type, scale) for scale in (None, 0.2))
    window = dict(pads=[1, 0] * len(kernel), strides=[2] * len(kernel), group=groups)
    y = g.add("QLinearConv", *x, *weight, *end[1:], bias, **window)
    shape = (2, channels, *[7, 6][: len(kernel)])
    model = g.model({"x": (x_type, shape)}, {y: (x_type, len(shape))})
    check(model, {"x": codes(rng, x_type, *shape)}, 1)


@FEW
@given(st.data())
def test_matrix_product(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    dtype = data.draw(st.sampled_from([U8, I8]))
    shape = data.draw(st.sampled_from([(5, 8), (2, 3, 8), (2, 1, 3, 8)]))
    g = builder()
    per_column = data.draw(st.booleans())
    scales, zeros = (rng.uniform(0.01, 0.1, 6), rng.integers(-9, 9, 6)) if per_column else (0.1, 5)
    weight = g.constant(rng.integers(-63, 64, (8, 6)), I8), *g.grid(scales, zeros, I8)
    y = g.add(
        "QLinearMatMul",
        *described(g, rng, "x", dtype),
        *weight,
        *described(g, rng, "", dtype, 0.7)[1:],
    )
    model = g.model({"x": (dtype, shape)}, {y: (dtype, len(shape))})
    check(model, {"x": codes(rng, dtype, *shape)}, 1)


def test_product_of_two_activations():
    rng, g = np.random.default_rng(0), builder()
    a, b = described(g, rng, "a", U8), described(g, rng, "b", U8)
    y = g.add("QLinearMatMul", *a, *b, *described(g, rng, "", U8, 0.7)[1:])
    model = g.model({"a": (U8, (2, 3, 8)), "b": (U8, (2, 8, 4))}, {y: (U8, 3)})
    check(model, {"a": codes(rng, U8, 2, 3, 8), "b": codes(rng, U8, 2, 8, 4)}, 1)


@pytest.mark.parametrize("has_scale", [True, False])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed, has_scale):
    rng, g = np.random.default_rng(0), builder()
    w = rng.integers(-63, 64, (6, 8) if transposed else (8, 6))
    weight = g.constant(w, I8), *g.grid(rng.uniform(0.01, 0.1, 6), np.zeros(6), I8)
    bias = g.constant(rng.integers(-999, 999, 6), np.int32)
    end = described(g, rng, "", U8, 0.7)[1:] if has_scale else ()
    y = g.add(
        "QGemm",
        *described(g, rng, "x", U8),
        *weight,
        bias,
        *end,
        domain=MICROSOFT,
        transB=transposed,
        alpha=0.3,
    )
    model = g.model({"x": (U8, (4, 8))}, {y: (U8 if has_scale else np.float32, 2)})
    check(model, {"x": codes(rng, U8, 4, 8)}, 1)


@FEW
@given(st.integers(0, 999), st.sampled_from([U8, I8]), st.booleans())
def test_sum_and_product_of_all_pairs(seed, dtype, has_ties):
    rng, g = np.random.default_rng(seed), builder()
    low, high = limits(dtype)
    every = np.arange(low, high + 1, dtype=dtype)
    scales = (0.0625, 0.125, 0.25) if has_ties else rng.uniform(0.01, 0.1, 3)
    a, b = described(g, rng, "a", dtype, scales[0]), described(g, rng, "b", dtype, scales[1])
    y = [
        g.add(op, *a, *b, *described(g, rng, "", dtype, scales[2] * factor)[1:], domain=MICROSOFT)
        for op, factor in (("QLinearAdd", 1), ("QLinearMul", 0.5))
    ]
    shape = (256, 256)
    model = g.model({"a": (dtype, shape), "b": (dtype, shape)}, {name: (dtype, 2) for name in y})
    a, b = np.meshgrid(every, every, indexing="ij")
    check(model, {"a": a, "b": b})


def test_sum_of_a_row_and_a_column():
    """ONNX Runtime then adds them the other way round, which may move a tie."""
    rng, g = np.random.default_rng(47), builder()
    x, every = (described(g, rng, name, U8) for name in "ab"), np.arange(256, dtype=U8)
    y = g.add(
        "QLinearAdd", *(n for t in x for n in t), *described(g, rng, "", U8)[1:], domain=MICROSOFT
    )
    model = g.model({"a": (U8, (256, 1)), "b": (U8, (256,))}, {y: (U8, 2)})
    feeds = {"a": every[:, None], "b": every}
    result, (expected,) = be.build(be.from_onnx(model))(*feeds.values()), onnx_runtime(model, feeds)
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 1 and np.count_nonzero(difference) <= 3


@FEW
@given(st.integers(0, 999), st.sampled_from([U8, I8]))
def test_functions_of_all_codes(seed, dtype):
    rng, g = np.random.default_rng(seed), builder()
    low, high = limits(dtype)
    x, y = described(g, rng, "x", dtype), described(g, rng, "", dtype)[1:]
    outputs = [
        g.add("QLinearLeakyRelu", *x, *y, domain=MICROSOFT, alpha=0.3),
        g.add("QLinearConcat", *y, *x, *described(g, rng, "x", dtype), domain=MICROSOFT, axis=0),
    ]
    model = g.model({"x": (dtype, (256,))}, {name: (dtype, 1) for name in outputs})
    check(model, {"x": np.arange(low, high + 1, dtype=dtype)})


@pytest.mark.parametrize("dtype", [U8, I8])
def test_sigmoid(dtype):
    rng, g = np.random.default_rng(0), builder()
    low, high = limits(dtype)
    y = g.add(
        "QLinearSigmoid",
        *described(g, rng, "x", dtype),
        *g.grid(1 / 256, low, dtype),
        domain=MICROSOFT,
    )
    model = g.model({"x": (dtype, (256,))}, {y: (dtype, 1)})
    check(model, {"x": np.arange(low, high + 1, dtype=dtype)})


@FEW
@given(st.integers(0, 999), st.sampled_from([U8, I8]), st.sampled_from([0, 1]))
def test_average_pools(seed, dtype, count_include_pad):
    """Ratios of scales where many averages are ties."""
    rng, g = np.random.default_rng(seed), builder()
    step = rng.uniform(0.001, 0.01)
    x, y = described(g, rng, "x", dtype, 9 * step), described(g, rng, "", dtype, 2 * step)[1:]
    outputs = [
        g.add("QLinearAveragePool", *x, *y, domain=MICROSOFT, kernel_shape=[3, 3], pads=[1] * 4,
              strides=[2, 2], count_include_pad=count_include_pad),
        g.add("QLinearGlobalAveragePool", *x, *y, domain=MICROSOFT, channels_last=0),
    ]  # fmt: skip
    model = g.model({"x": (dtype, (1, 8, 9, 9))}, {name: (dtype, 4) for name in outputs})
    check(model, {"x": codes(rng, dtype, 1, 8, 9, 9)})


def test_codes_stay_codes_between_layers():
    """Pooling and reshaping of uint8 tensors need no floats: two layers, thresholds between."""
    rng, g = np.random.default_rng(0), builder()
    grid = g.grid(0.02, 110)
    w = g.constant(rng.integers(-63, 64, (8, 3, 3, 3)), I8), *g.grid(0.01, 0, I8)
    x = g.add("QuantizeLinear", "x", *grid)
    y = g.add("QLinearConv", x, *grid, *w, *(middle := g.grid(0.1, 100)), pads=[1] * 4)
    y = g.add("Flatten", g.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    v = g.constant(rng.integers(-63, 64, (72, 5)), I8), *g.grid(0.01, 0, I8)
    y = g.add("QLinearMatMul", y, *middle, *v, *(last := g.grid(0.3, 128)))
    y = g.add("DequantizeLinear", y, *last)
    model = g.model({"x": (np.float32, (2, 3, 6, 6))}, {y: (np.float32, 2)})
    lib = check(model, {"x": rng.normal(size=(2, 3, 6, 6)).astype(np.float32)}, 2)
    assert [layer.out_bits for layer in lib.report().layers] == [8, 32]


def test_sums_beyond_the_integers_of_float32():
    """A bias is added to sums of more than 24 bits; floats would lose its last bits."""
    rng, g = np.random.default_rng(0), builder()
    w = g.constant(np.full((2048, 4), 63), I8), *g.grid(0.01, 0, I8)
    bias = g.constant([1, 2, 3, -1], np.int32)
    y = g.add("QGemm", "x", *g.grid(1.0, 0), *w, bias, domain=MICROSOFT)
    s = g.add("MatMulInteger", "x", w[0])
    model = g.model({"x": (U8, (3, 2048))}, {y: (np.float32, 2), s: (np.int32, 2)})
    check(model, {"x": rng.integers(250, 256, (3, 2048)).astype(U8)})


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (dict(x=np.array([0.1, 0.2, 0.3], np.float32)), "several scales"),
        (dict(y=np.float32([0.1, 0.2, 0.3, 0.4])), "several scales"),
        (dict(x=np.float32(-0.1)), "a scale is zero, negative"),
        (dict(zero=np.int8(0)), "zero point of int8 for uint8"),
    ],
)
def test_refused(change, cause):
    g = builder()
    x = "x", g.constant(change.get("x", np.float32(0.1))), g.constant(change.get("zero", U8(3)))
    w = g.constant(np.ones((4, 3, 1, 1)), I8), *g.grid(0.1, 0, I8)
    y = g.add(
        "QLinearConv", *x, *w, g.constant(change.get("y", np.float32(0.1))), g.constant(U8(0))
    )
    model = g.model({"x": (U8, (1, 3, 4, 4))}, {y: (U8, 4)})
    with pytest.raises(be.errors.UnsupportedError, match=cause):
        be.from_onnx(model)


def test_integers_of_32_bits_around_quantizers():
    """Sums are quantized and dequantized; scales are computed in the graph from constants."""
    rng, g = np.random.default_rng(0), ModelBuilder(21)
    w = g.constant(rng.integers(-63, 64, (8, 6)), I8)
    sums = g.add("MatMulInteger", "x", w)
    scale = g.add("Mul", g.constant(np.float32(0.5)), g.constant(np.float32(0.03)))
    real = g.add("DequantizeLinear", sums, scale)
    codes = g.add("QuantizeLinear", real, g.add("Abs", scale), output_dtype=3)
    model = g.model({"x": (U8, (3, 8))}, {real: (np.float32, 2), codes: (I8, 2)})
    x = rng.integers(0, 256, (3, 8)).astype(U8)
    lib = be.build(be.from_onnx(model))
    total = x.astype(np.int32) @ np.int32(numpy_helper.to_array(model.graph.initializer[0]))
    step = np.float32(0.5) * np.float32(0.03)
    expected = total.astype(np.float32) * step
    results = lib(x)
    assert np.array_equal(results[0], expected)
    assert np.array_equal(results[1], np.clip(np.rint(expected / step), -128, 127))
    # Operator sets before 21 let integers be quantized by a scale of float32.
    g = ModelBuilder(13)
    sums = g.add(
        "MatMulInteger", "x", g.constant(numpy_helper.to_array(model.graph.initializer[0]))
    )
    same = g.add("QuantizeLinear", sums, g.constant(np.float32(40)), g.constant(np.int8(3)))
    model = g.model({"x": (U8, (3, 8))}, {same: (I8, 2)})
    result = be.build(be.from_onnx(model))(x)
    assert np.array_equal(result, np.clip(np.rint(total / np.float32(40)) + 3, -128, 127))


def test_softmax_of_integers_is_refused():
    g = builder()
    y = g.add(
        "QLinearSoftmax", "x", *g.grid(0.1, 0), *g.grid(1 / 256, 0), domain=MICROSOFT, opset=13
    )
    with pytest.raises(be.errors.UnsupportedError, match="QLinearSoftmax"):
        be.from_onnx(g.model({"x": (U8, (2, 8))}, {y: (U8, 2)}))
