"""QuantizeLinear, Clip, DequantizeLinear: fewer bits than their storage has, as in Brevitas."""

import numpy as np
import onnx
import pytest

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder, onnx_runtime
from tvm_bitenc.transform import no_lowering

pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
rng = np.random.default_rng(0)


def clipped(g, x, scale, zero_point, low, high, dtype):
    grid = g.grid(scale, zero_point, dtype)
    codes = g.add("QuantizeLinear", x, *grid)
    bounds = ["" if bound is None else g.constant(bound, dtype) for bound in (low, high)]
    return g.add("DequantizeLinear", g.add("Clip", codes, *bounds), *grid)


def qcdq_model(act, weight, weight_values):
    g = ModelBuilder(17)
    a = clipped(g, "x", *act)
    w = clipped(g, g.constant(weight_values, np.float32), *weight)
    y = g.add("Conv", a, w, pads=[1] * 4)
    return g.model({"x": (np.float32, (1, 8, 5, 5))}, {y: (np.float32, 4)})


@pytest.mark.parametrize(
    ("act", "weight", "bits"),
    [
        ((0.125, 0, 0, 15, np.uint8), (0.25, 0, -7, 7, np.int8), (4, 4)),
        ((0.125, 0, -4, 3, np.int8), (0.25, 0, -2, 1, np.int8), (2, 3)),
        ((0.5, 2, None, 3, np.uint8), (0.25, 0, -1, 1, np.int8), (2, 2)),
        ((0.125, 0, 0, 1, np.uint8), (0.25, 5, 0, 30, np.uint8), (5, 1)),
        ((0.125, 128, 100, None, np.uint8), (0.25, 0, -128, 127, np.int8), (8, 8)),
    ],
)
def test_clip_narrows_both_encodings(act, weight, bits):
    values = rng.normal(size=(4, 8, 3, 3)) * 40
    values[0] = 0
    model = qcdq_model(act, weight, values)
    x = rng.normal(size=(1, 8, 5, 5)).astype(np.float32) * 2
    lib = be.build(be.from_onnx(model))
    (layer,) = lib.report().layers
    assert (layer.weight_bits, layer.act_bits) == bits
    assert np.array_equal(lib(x), onnx_runtime(model, {"x": x})[0])


@pytest.mark.parametrize(("low", "high"), [(3, 9), (9, 3), (200, 210), (7, 7)])
def test_clip_without_the_zero_point_stays_arithmetic(low, high):
    """A grid without the real 0: exact all the same."""
    model = qcdq_model(
        (0.25, 1, low, high, np.uint8), (0.25, 0, -7, 7, np.int8), np.ones((4, 8, 3, 3))
    )
    x = rng.normal(size=(1, 8, 5, 5)).astype(np.float32) * 20
    mod = be.from_onnx(model)
    expected = onnx_runtime(model, {"x": x})[0]
    for lib in (be.build(mod), be.build(mod, pipeline=no_lowering)):
        assert np.array_equal(lib(x), expected)


@pytest.mark.parametrize(
    ("values", "zero_point", "bits"),
    [([-7, 7, 1], 0, 4), ([-1, 1], 0, 1), ([-1, 0, 1], 0, 2), ([3, 3], 3, 1), ([127], 127, 1),
     ([-128, 127], 0, 8), ([5, 6], 0, 3), ([-9, 9], 0, 1), ([-128], -128, 1)],
)  # fmt: skip
def test_stored_weights_have_the_bits_of_their_values(values, zero_point, bits):
    g = ModelBuilder(17)
    grid = g.grid(0.5, 128)
    a = g.add("DequantizeLinear", g.add("QuantizeLinear", "x", *grid), *grid)
    codes = np.resize(np.int8(values), (8, 6))
    w = g.add("DequantizeLinear", g.constant(codes), *g.grid(0.25, zero_point, np.int8))
    y = g.add("MatMul", a, w)
    model = g.model({"x": (np.float32, (3, 8))}, {y: (np.float32, 2)})
    x = rng.normal(size=(3, 8)).astype(np.float32) * 20
    lib = be.build(be.from_onnx(model))
    (layer,) = lib.report().layers
    assert layer.weight_bits == bits
    assert np.array_equal(lib(x), onnx_runtime(model, {"x": x})[0])


def test_moved_and_clipped_codes_stay_codes():
    """Integers go through pooling and reshaping between QuantizeLinear and DequantizeLinear."""
    g = ModelBuilder(17)
    grid = g.grid(0.3, 7)
    codes = g.add("Clip", g.add("QuantizeLinear", "x", *grid), "", g.constant(15, np.uint8))
    pooled = g.add("MaxPool", codes, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])
    flat = g.add("Transpose", g.add("Flatten", pooled), perm=[0, 1])
    w = g.add(
        "DequantizeLinear",
        g.constant(rng.integers(-7, 8, (32, 3)), np.int8),
        *g.grid(0.5, 0, np.int8),
    )
    y = g.add("MatMul", g.add("DequantizeLinear", flat, *grid), w)
    model = g.model({"x": (np.float32, (1, 2, 6, 6))}, {y: (np.float32, 2), flat: (np.uint8, 2)})
    x = rng.normal(size=(1, 2, 6, 6)).astype(np.float32) * 2
    lib = be.build(be.from_onnx(model))
    (layer,) = lib.report().layers
    assert (layer.weight_bits, layer.act_bits) == (4, 4)
    expected = onnx_runtime(model, {"x": x})
    y, codes = lib(x)
    assert np.array_equal(codes, expected[1])
    assert np.allclose(y, expected[0], rtol=1e-6)


def test_brevitas_export(tmp_path):
    torch = pytest.importorskip("torch")
    qnn = pytest.importorskip("brevitas.nn", reason="pip install brevitas")
    from brevitas.export import export_onnx_qcdq
    from brevitas.quant import Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFixedPoint

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFixedPoint, bit_width=4),
        qnn.QuantConv2d(
            3, 4, 3, bias=False, weight_quant=Int8WeightPerTensorFixedPoint, weight_bit_width=3
        ),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=2),
        torch.nn.Flatten(),
        qnn.QuantLinear(
            64, 5, bias=False, weight_quant=Int8WeightPerTensorFixedPoint, weight_bit_width=2
        ),
    )
    x = torch.rand(1, 3, 6, 6)
    network(x)
    network.eval()
    export_onnx_qcdq(network, args=x, export_path=str(tmp_path / "net.onnx"), dynamo=False)
    model = onnx.load(tmp_path / "net.onnx")
    lib = be.build(be.from_onnx(model))
    found = [(layer.weight_bits, layer.act_bits) for layer in lib.report().layers]
    assert found == [(3, 4), (2, 2)]
    (expected,) = onnx_runtime(model, {model.graph.input[0].name: x.numpy()})
    assert np.array_equal(lib(x.numpy()), expected)  # Scales are powers of two.
