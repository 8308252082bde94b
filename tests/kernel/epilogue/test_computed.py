"""Codes by the graph's own float arithmetic, at every accumulator that a layer can reach."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc.encoding import Encoding
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
