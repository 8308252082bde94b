"""Codes by the graph's own float arithmetic, at every accumulator that a layer can reach."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.epilogue.computed import MAX_INT, largest_value, with_joined_factors
from tvm_bitenc.layer import FloatStep
from tvm_bitenc.op import branch_dense, encode
from tvm_bitenc.schedule import vector
from tvm_bitenc.target import load_target

OUT_CHANNELS = 19  # Some lanes are no channels.
BYTES = Encoding.unsigned(8, 2.0)
WEIGHTS = Encoding.symmetric(8, 2.0)
rng = np.random.default_rng(0)
f32 = np.float32
# Rounded on the way, so that no affine function gives all codes; of both signs, and 0.
SLOPE = (rng.normal(size=OUT_CHANNELS) * 1e-3).astype(f32)
SLOPE[3], SHIFT = 0, rng.normal(size=OUT_CHANNELS).astype(f32)


def row(values):
    return relax.const(np.asarray(values, f32).reshape(1, -1))


def batch_norm(builder, x):
    x = builder.emit(op.multiply(x, relax.const(f32(1 / 3))))
    return builder.emit(op.add(builder.emit(op.multiply(x, row(SLOPE))), row(SHIFT)))


CHAINS = {
    "clip": lambda b, x: b.emit(op.clip(batch_norm(b, x), -1, 7.3)),
    "subtract, relu": lambda b, x: b.emit(
        op.nn.relu(b.emit(op.subtract(batch_norm(b, x), relax.const(f32(0.7)))))
    ),
    "negative, divide, leaky relu": lambda b, x: b.emit(
        op.nn.leakyrelu(b.emit(op.divide(b.emit(op.negative(batch_norm(b, x))), row(3 + SHIFT))))
    ),
    "round, maximum, minimum": lambda b, x: b.emit(
        op.minimum(b.emit(op.maximum(b.emit(op.round(batch_norm(b, x))), row(SHIFT))), row([20.0]))
    ),
}
CHAINS["ties, which a product by the reciprocal would miss"] = lambda b, x: b.emit(
    op.multiply(x, row(np.sign(SLOPE) / 2))
)
CHAINS["a narrow range"] = batch_norm
ENCODERS = (
    Encoding(8, 0.07, 31.0),
    Encoding(6, 0.3, 7.5),
    Encoding(8, 0.011, 90.0, rounding="floor"),
    Encoding(8, 0.13, 100.0, rounding="toward_zero", late_zero_point=100),
    Encoding(8, 14.0, 128.0),
    Encoding(6, 0.3, 7.5, max_code=61),
)


def network(chain, encoder, rows, module_of):
    """A dense layer of two inputs, a chain, an encoder; and codes that reach all accumulators."""
    weight = rng.integers(0, 256, (OUT_CHANNELS, 2), dtype=np.uint8)

    def body(builder, codes):
        acc = builder.emit(branch_dense(codes, BYTES, weight, WEIGHTS, layer="fc"))
        x = CHAINS[chain](builder, builder.emit(op.astype(acc, "float32")))
        return [builder.emit(encode(x, encoder))]

    pairs = np.stack(np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2), -1).reshape(-1, 2)
    codes = pairs if rows == len(pairs) else rng.permutation(pairs)[:rows]
    return module_of([(rows, 2)], body, "uint8"), codes


@pytest.fixture
def epilogues(monkeypatch):
    """Names of the epilogues that kernels were made with."""
    found, choose = [], vector._epilogue

    def spy(layer, product):
        found.append(choose(layer, product))
        return found[-1]

    monkeypatch.setattr(vector, "_epilogue", spy)
    return lambda: {type(epilogue).__name__ for epilogue in found}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("chain, encoder", list(zip(CHAINS, ENCODERS)))
def test_every_accumulator(chain, encoder, target, module_of, outputs_of, only, epilogues, same):
    mod, codes = network(chain, encoder, 1 << 16, module_of)
    (expected,) = outputs_of(mod, [codes], pipeline=only())
    (found,) = outputs_of(mod, [codes], target=target)
    assert epilogues() == {"ComputedPlanes"}
    assert same(found, expected) and len(np.unique(found)) > 25


@pytest.mark.parametrize("name", ["cortex-a72", pytest.param("armv7-neon", marks=pytest.mark.slow)])
def test_arm(name, module_of, outputs_of, only, epilogues, same):
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    for chain, encoder in zip(CHAINS, ENCODERS):
        mod, codes = network(chain, encoder, 1 << 10, module_of)
        (expected,) = outputs_of(mod, [codes], pipeline=only())
        (found,) = EmulatedModule(mod, target, "int8").run(codes).outputs
        assert same(found, expected)
    assert epilogues() == {"ComputedPlanes"}


def test_planes_of_whole_blocks_are_limited_by_saturation(
    plain_avx512, kernels, module_of, outputs_of, only, same
):
    weight = rng.integers(0, 256, (64, 2), dtype=np.uint8)

    def ending_in(bits, builder, codes):
        acc = branch_dense(codes, BYTES, weight[:: bits - 7], WEIGHTS, layer="fc")
        x = builder.emit(op.astype(builder.emit(acc), "float32"))
        for factor in (np.full(64, 1 / 3), np.resize(SLOPE, 64)):
            x = builder.emit(op.multiply(x, row(factor)))
        x = builder.emit(op.nn.leakyrelu(builder.emit(op.add(x, row(np.resize(SHIFT, 64)))), 0.7))
        return builder.emit(encode(x, Encoding(bits, 0.07, 31.0)))

    def body(builder, codes):
        return [ending_in(bits, builder, codes) for bits in (6, 8)]

    mod = module_of([(1 << 10, 2)], body, "uint8")
    codes = rng.integers(0, 256, (1 << 10, 2), dtype=np.uint8)
    expected = outputs_of(mod, [codes], pipeline=only())
    found = outputs_of(mod, [codes], target=plain_avx512)
    made = [(epilogue.saturates, epilogue.rounds, epilogue.out_dtype) for _, epilogue in kernels]
    assert made == [(True, True, "uint64")] * 2
    assert all(same(a, b) for a, b in zip(expected, found))
    assert [(out.min(), out.max()) for out in found] == [(0, 63), (0, 255)]


def step(name, *values):
    return FloatStep(name, tuple(np.atleast_1d(np.asarray(value, f32)) for value in values))


def test_a_factor_takes_in_a_power_of_two():
    steps = step("astype"), step("multiply", 85), step("divide", [2, 0.5]), step("round")
    first, joined, last = with_joined_factors(steps)
    assert (first.name, joined.name, last.name) == ("astype", "multiply", "round")
    assert joined.constants[0].tolist() == [42.5, 170]
    values = rng.normal(size=(1000, 1)).astype(f32)
    assert np.array_equal(values * f32(85) / f32([2, 0.5]), values * joined.constants[0])


@pytest.mark.parametrize(
    "steps",
    [
        (step("multiply", 85), step("divide", 3), step("round")),  # Another quotient.
        (step("multiply", 85), step("divide", 2), step("floor")),  # -2^-150 has digits left.
        (step("multiply", 1e-44), step("divide", 64), step("round")),  # The factor has none.
        (step("multiply", 85), step("divide", 2), step("multiply", 1e9), step("round")),
        (step("multiply", 85), step("divide", 2)),
    ],
    ids=lambda steps: " ".join(s.name for s in steps),
)
def test_other_factors_stay(steps):
    assert with_joined_factors(steps) is steps


def test_bounds_hold_and_say_what_is_not_known():
    steps = step("astype"), step("multiply", [3, -5]), step("add", -7), step("clip", -1, 9)
    assert 5 * 1000 + 7 <= largest_value(steps, 1000) < 5 * 1000 + 20
    assert largest_value((step("divide", [0.5, -4]),), 10) >= 20
    assert largest_value((step("divide", [1, 0]),), 10) > MAX_INT
    assert largest_value((step("multiply", np.inf),), 10) == np.inf
    assert largest_value((step("multiply_add", 2, 30),), 10) >= 50
    assert largest_value((step("prelu", -3),), 10) >= 30
    assert largest_value((step("residual"),), 10) == np.inf
