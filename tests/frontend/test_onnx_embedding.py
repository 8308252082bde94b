"""Rows of a constant table, chosen by indices that come at run time."""

import numpy as np
import pytest

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder, onnx_runtime
from tvm_bitenc.transform import no_lowering

pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
rng = np.random.default_rng(0)
F32, I64 = np.float32, np.int64


def weight(g, scale=0.25):
    codes = g.constant(rng.integers(-7, 8, (4, 5)), np.int8)
    return g.add("DequantizeLinear", codes, g.constant(scale, F32))


def quantized(g, x):
    grid = g.grid(0.0625, 128)
    return g.add("DequantizeLinear", g.add("QuantizeLinear", x, *grid), *grid)


def float_table(g):
    return quantized(g, g.add("Gather", g.constant(rng.normal(size=(11, 4)), F32), "i"))


def table_per_tensor(g):
    """Its own codes are the layer's."""
    codes = g.constant(rng.integers(-100, 101, (11, 4)), np.int8)
    table = g.add("DequantizeLinear", codes, *g.grid(0.0625, 3, np.int8))
    return g.add("Gather", table, "i")


def table_of_4_bits(g):
    codes = g.constant(rng.integers(-8, 8, (11, 4)).astype("int4"))
    return g.add("Gather", g.add("DequantizeLinear", codes, g.constant(0.25, F32)), "i")


def table_per_row(g):
    codes = g.constant(rng.integers(-100, 101, (11, 4)), np.int8)
    table = g.add("DequantizeLinear", codes, g.constant(rng.uniform(0.01, 0.02, 11), F32), axis=0)
    return quantized(g, g.add("Gather", table, "i"))


def codes_dequantized_later(g):
    """Rows of int8 codes, and the quantizer's other half behind."""
    rows = g.add("Gather", g.constant(rng.integers(-100, 101, (11, 4)), np.int8), "i")
    return g.add("DequantizeLinear", rows, *g.grid(0.0625, 3, np.int8))


def quantized_before(g):
    table = g.constant(rng.normal(size=(11, 4)), F32)
    return g.add("Gather", quantized(g, table), "i")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("dtype", [I64, np.int32])
@pytest.mark.parametrize(
    "table",
    [float_table, table_per_tensor, table_of_4_bits, table_per_row, codes_dequantized_later,
     quantized_before],
)  # fmt: skip
def test_table_before_a_layer(table, dtype):
    g = ModelBuilder(21)
    y = g.add("MatMul", table(g), weight(g))
    model = g.model({"i": (dtype, (2, 3))}, {y: (F32, 3)})
    indices = np.array([[0, 3, 10], [-1, 5, -11]], dtype)
    mod = be.from_onnx(model)
    lib = be.build(mod)
    assert len(lib.report().layers) == 1 and not lib.report().float_layers
    for built in (lib, be.build(mod, pipeline=no_lowering)):
        assert np.array_equal(built(indices), onnx_runtime(model, {"i": indices})[0])


def test_tied_table_is_a_weight_as_well():
    """Rows go in, and scores of all rows come out, as in language models."""
    g = ModelBuilder(21)
    codes = g.constant(rng.integers(-7, 8, (11, 4)), np.int8)
    table = g.add("DequantizeLinear", codes, g.constant(0.25, F32))
    rows = quantized(g, g.add("Gather", table, "i"))
    y = g.add("MatMul", rows, g.add("Transpose", table, perm=[1, 0]))
    model = g.model({"i": (I64, (2, 3))}, {y: (F32, 3)})
    lib = be.build(be.from_onnx(model))
    (layer,) = lib.report().layers
    assert layer.weight_bits == 4
    indices = np.array([[0, 3, 10], [1, 5, 2]])
    assert np.array_equal(lib(indices), onnx_runtime(model, {"i": indices})[0])
