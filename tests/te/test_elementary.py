"""Elementary functions against numpy's float64, over all magnitudes, and the same on every CPU."""

import math

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

import tvm_bitenc as be
from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc.target import load_target

FUNCTIONS = {
    "exp": (op.exp, np.exp, 0.98),
    "erf": (op.erf, np.vectorize(math.erf), 1.09),
    "tanh": (op.tanh, np.tanh, 1.32),
    "sigmoid": (op.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 2.5),
}
LIMITS = {
    "exp": [0, 1, 1, 0, np.inf],
    "erf": [-1, -0.0, 0, -1, 1],
    "tanh": [-1, -0.0, 0, -1, 1],
    "sigmoid": [0, 0.5, 0.5, 0, 1],
}


def numbers(count):
    """Of all magnitudes, both signs, most where the functions bend."""
    rng = np.random.default_rng(0)
    large = rng.uniform(-104, 89, count // 4)
    small = rng.choice([-1, 1], count // 4) * 2.0 ** rng.uniform(-149, 0, count // 4)
    return np.concatenate([large, small, rng.normal(0, 3, count // 2)]).astype(np.float32)


@pytest.fixture
def network(module_of):
    """Every function of the same input."""

    def build(count):
        def body(builder, x):
            return [builder.emit(function(x)) for function, *_ in FUNCTIONS.values()]

        return module_of([(count,)], body)

    return build


def test_errors_in_units_of_the_last_place(network, outputs_of):
    x = numbers(1 << 18)
    with np.errstate(over="ignore"):
        expected = {n: f(x.astype(np.float64)) for n, (_, f, _) in FUNCTIONS.items()}
        is_infinite = {n: np.isinf(y.astype(np.float32)) for n, y in expected.items()}
    found = dict(zip(FUNCTIONS, outputs_of(network(len(x)), [x]), strict=True))
    for name, (*_, most) in FUNCTIONS.items():
        exact, value = expected[name], found[name].astype(np.float64)
        inside = np.abs(exact) < np.finfo(np.float32).max
        if name == "sigmoid":  # e^-x is infinite before its quotient is 0.
            inside &= x > -88
        unit = np.spacing(np.abs(exact[inside]).astype(np.float32)).astype(np.float64)
        assert np.max(np.abs(value - exact)[inside] / unit) < most, name
        assert np.all(np.isinf(value[is_infinite[name]])), name


def test_limits(network, outputs_of):
    x = np.array([-np.inf, -0.0, 0, -104, np.inf, np.nan], np.float32)
    for name, value in zip(FUNCTIONS, outputs_of(network(len(x)), [x]), strict=True):
        assert np.array_equal(value[:5], np.float32(LIMITS[name])), name
        assert np.array_equal(np.signbit(value[:5]), np.signbit(LIMITS[name])), name
        assert np.isnan(value[5]), name


@pytest.mark.parametrize("name", ["cortex-a72", "cortex-m3", "x86-64-v3"])
def test_the_same_bits_on_every_cpu(name, network, outputs_of, same):
    target, x = load_target(name, threads=1), numbers(1 << 10)
    expected = outputs_of(network(len(x)), [x])
    if name.startswith("x86"):
        found = outputs_of(network(len(x)), [x], target=target)
    elif reason := missing_tools(target):
        pytest.skip(reason)
    else:
        found = EmulatedModule(network(len(x)), target).run(x).outputs
    assert all(map(same, found, expected))


def test_softmax_is_the_same_bits_on_every_cpu(module_of, outputs_of, same):
    """Its sum is made of parts that don't depend on the length of vectors."""
    mod = module_of([(3, 48)], lambda builder, x: [builder.emit(op.nn.softmax(x))])
    x = numbers(144).reshape(3, 48)
    (expected,) = outputs_of(mod, [x])
    exact = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert np.allclose(expected, exact / exact.sum(1, keepdims=True), rtol=1e-6)
    for name in ("cortex-a72", "x86-64-v3"):
        target = load_target(name, threads=1)
        if name.startswith("x86"):
            (found,) = outputs_of(mod, [x], target=target)
        elif reason := missing_tools(target):
            pytest.skip(reason)
        else:
            (found,) = EmulatedModule(mod, target).run(x).outputs
        assert same(found, expected), name


def test_other_types_keep_the_functions_of_the_library():
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float64"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(op.exp(x)))
    value = np.array([0, 1, -2, 3], np.float64)
    assert np.allclose(be.build(builder.get())(value), np.exp(value), rtol=1e-15)
