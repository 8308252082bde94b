"""Operators of FINN and QONNX under every name of their domain, against the QONNX executor."""

import numpy as np
import pytest

import tvm_bitenc as be
from tests.frontend.onnx_models import ModelBuilder
from tvm_bitenc.transform import no_lowering

qonnx = pytest.importorskip("qonnx", reason="pip install qonnx")
rng = np.random.default_rng(0)
F32 = np.float32
GENERAL = "qonnx.custom_op.general"
FINN = "finn.custom_op.general"


def executor(model, x):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    wrapper = ModelWrapper(model).transform(InferShapes())
    outputs = execute_onnx(wrapper, {"x": x})
    return [outputs[value.name] for value in model.graph.output]


def multithreshold(g, x, thresholds, **attributes):
    attributes = {"out_dtype": "INT8", "domain": GENERAL, **attributes}
    return g.add("MultiThreshold", x, g.constant(thresholds, F32), **attributes)


@pytest.mark.parametrize(
    ("shape", "channels", "steps", "attributes"),
    [
        ((2, 5), 5, 3, {}),
        ((2, 5), 1, 15, dict(out_scale=0.25, out_bias=-2.0)),
        ((2, 3, 4, 5), 3, 7, dict(out_scale=2.0, out_bias=-7.0)),
        ((2, 3, 4, 5), 5, 16, dict(data_layout="NHWC", out_scale=-0.5)),
        ((2, 3, 4, 5), 1, 255, dict(data_layout="NCHW", out_bias=0.3)),
        ((2, 3, 4), 4, 1, {}),
        ((2, 3, 4), 3, 4, dict(data_layout="NCW")),
    ],
)
def test_thresholds(shape, channels, steps, attributes):
    """Inputs on and beside thresholds, which are halves, equal ones and infinities among them."""
    thresholds = np.sort(rng.integers(-20, 20, (channels, steps)) / 2, axis=1).astype(F32)
    thresholds[0, -1] = np.inf
    g = ModelBuilder(17, {GENERAL: 1})
    y = multithreshold(g, "x", thresholds, **attributes)
    model = g.model({"x": (F32, shape)}, {y: (F32, shape)})
    x = (rng.integers(-22, 23, shape) / 2).astype(F32)
    x.reshape(-1)[:2] = np.inf, -np.inf
    mod = be.from_onnx(model)
    for lib in (be.build(mod), be.build(mod, pipeline=no_lowering)):
        assert np.array_equal(lib(x), executor(model, x)[0])


def test_network_of_thresholds():
    """Streamlined by FINN: integers everywhere, thresholds per channel between two layers."""
    g = ModelBuilder(17, {GENERAL: 1})
    x = multithreshold(g, "x", np.arange(-7, 8)[None] / 8, out_bias=-8.0)
    w = g.constant(rng.integers(-1, 2, (4, 3, 3, 3)), F32)
    bits = [g.constant(value, F32) for value in (1, 0, 2)]
    y = g.add("Conv", x, g.add("Quant", w, *bits, domain=GENERAL, signed=1, narrow=1), pads=[1] * 4)
    y = multithreshold(g, y, np.sort(rng.integers(-60, 60, (4, 3)), axis=1))
    v = g.constant(rng.integers(-1, 2, (5, 4, 1, 1)), F32)
    y = g.add("Conv", y, g.add("Quant", v, *bits, domain=GENERAL, signed=1, narrow=1))
    model = g.model({"x": (F32, (2, 3, 5, 5))}, {y: (F32, (2, 5, 5, 5))})
    lib = be.build(be.from_onnx(model))
    found = [(n.weight_bits, n.act_bits, n.out_bits) for n in lib.report().layers]
    assert found == [(2, 4, 2), (2, 2, 32)] and not lib.report().float_layers
    x = rng.normal(size=(2, 3, 5, 5)).astype(F32)
    assert np.array_equal(lib(x), executor(model, x)[0])


@pytest.mark.parametrize("domain", [FINN, GENERAL, "onnx.brevitas"])
@pytest.mark.parametrize("op", ["Quant", "IntQuant", "BipolarQuant", "MultiThreshold"])
def test_every_name_of_the_domain(domain, op):
    """Files of FINN's and Brevitas' older exporters, with and without saying what they import."""
    values = rng.normal(size=(3, 4)).astype(F32)
    expected = {
        "BipolarQuant": np.where(values >= 0, 0.25, -0.25),
        "MultiThreshold": (values[..., None] >= np.float32([-0.5, 0.5])).sum(-1),
    }.get(op, np.clip(np.round(values * 4), -3, 3) / 4)
    g = ModelBuilder(11, {domain: 1})
    if op == "MultiThreshold":
        y = multithreshold(g, "x", [[-0.5, 0.5]], domain=domain)
    else:
        parameters = [g.constant(value, F32) for value in (0.25, 0, 3)[: 1 if op[0] == "B" else 3]]
        attributes = {} if op[0] == "B" else dict(signed=1, narrow=1, rounding_mode="ROUND")
        y = g.add(op, "x", *parameters, domain=domain, **attributes)
    model = g.model({"x": (F32, (3, 4))}, {y: (F32, (3, 4))})
    assert np.array_equal(be.build(be.from_onnx(model))(values), expected)


@pytest.mark.parametrize(
    ("thresholds", "attributes", "cause"),
    [
        (np.zeros((2, 3)), {}, "for 4 channels"),
        (np.zeros((4, 256)), {}, "256 thresholds"),
        ([[np.nan]], {}, "NaN"),
        ([[0]], dict(out_scale=float("inf")), "out_scale"),
    ],
)
def test_refused(thresholds, attributes, cause):
    g = ModelBuilder(17, {GENERAL: 1})
    y = multithreshold(g, "x", thresholds, **attributes)
    with pytest.raises(be.errors.UnsupportedError, match=cause):
        be.from_onnx(g.model({"x": (F32, (3, 4))}, {y: (F32, (3, 4))}))
