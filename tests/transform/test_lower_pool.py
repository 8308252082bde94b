"""Average pooling: sums of codes where the float sums are exact, else float as it was."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_bitenc as be
from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.levels import encoding_of_levels
from tvm_bitenc.op import quantize
from tvm_bitenc.transform.lower_pool import ONE, LowerPool, sums_exactly

op = relax.op
SHAPE = (2, 5, 6, 6)
POOLS = {
    "2x2": lambda x: op.nn.avg_pool2d(x, (2, 2), (2, 2)),
    "3x3, padded": lambda x: op.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1), count_include_pad=True),
    "3x2, overlapping": lambda x: op.nn.avg_pool2d(x, (3, 2), (1, 1)),
    "adaptive": lambda x: op.nn.adaptive_avg_pool2d(x, (3, 2)),
    "whole image": lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1)),
    "mean": lambda x: op.mean(x, [-1, -2], True),
    "flat mean": lambda x: op.mean(x, [2, 3]),
}
FLOAT = {
    "padding doesn't count": lambda x: op.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1)),
    "hangs over": lambda x: op.nn.avg_pool2d(x, (4, 4), (3, 3), ceil_mode=True),
    "uneven": lambda x: op.nn.adaptive_avg_pool2d(x, (4, 4)),
    "over channels": lambda x: op.mean(x, [1], True),
    "over rows": lambda x: op.mean(x, [2], True),
}


def pool_module(module_of, pool, encodings):
    """Each input quantized and pooled; the average, and its code after more arithmetic."""

    def body(b, *xs):
        averages = [
            b.emit(pool(b.emit(quantize(x, e, layer="act")))) for x, e in zip(xs, encodings)
        ]
        outs = [Encoding.unsigned(5, e.scale.max() / 4) for e in encodings]
        again = [b.emit(quantize(b.emit(op.nn.relu(y)), o)) for y, o in zip(averages, outs)]
        return averages[:1] + again

    return module_of([SHAPE] * len(encodings), body)


def values(encoding, seed=0):
    x = np.random.default_rng(seed).uniform(-2, 2**encoding.bits + 1, SHAPE) - encoding.zero_point
    return np.float32(x * encoding.scale)


ENCODINGS = [
    Encoding.symmetric(3, 4.0),
    Encoding.signed(8, 2.0**-9),
    Encoding.unsigned(4, 0.375),  # Not a power of two, but 3 / 8.
    Encoding(4, [0.5], [3.0]),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("pool", {**POOLS, **FLOAT})
def test_exact(pool, module_of, outputs_of, ops_of, only, same):
    mod = pool_module(module_of, {**POOLS, **FLOAT}[pool], ENCODINGS)
    count = ops_of(LowerPool()(mod)).count("bitenc.branch_conv2d")
    assert count == (len(ENCODINGS) if pool in POOLS else 0)
    xs = [values(encoding) for encoding in ENCODINGS]
    expected, compiled = (outputs_of(mod, xs, **o) for o in ({"pipeline": only()}, {}))
    assert all(map(same, compiled, expected))
    assert all(len(np.unique(y)) > 3 for y in expected)


def test_golden(assert_same_ir):
    act, ones = Encoding.unsigned(2, 0.5), np.ones((5, 1, 2, 2), np.uint8)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 5, 6, 6), "float32")):
            with R.dataflow():
                q = bitenc.quantize(x, act, layer="act")
                y = R.nn.avg_pool2d(q, (2, 2), (2, 2))
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 5, 6, 6), "float32")):
            with R.dataflow():
                codes = bitenc.encode(x, act)
                acc = bitenc.branch_conv2d(
                    codes, act, ones, ONE, strides=(2, 2), groups=5, layer="act.avg_pool"
                )
                total = R.multiply(R.astype(acc, "float32"), R.const(0.25, "float32"))
                y = R.divide(total, R.const(4.0, "float32"))
                R.output(y)
            return y

    assert_same_ir(LowerPool()(Before), After)


def test_planes_of_any_coefficients(module_of, outputs_of, ops_of, only, same):
    uneven = encoding_of_levels([0, 3, 7, 12], [-1.0, 0.25, 2.0], 0.5, 3.0)
    mod = pool_module(module_of, POOLS["2x2"], [Encoding.ternary(0.5), uneven])
    assert "relax.nn.avg_pool2d" not in ops_of(LowerPool()(mod))
    xs = [np.random.default_rng(i).normal(0, 2, SHAPE).astype(np.float32) for i in range(2)]
    expected, compiled = (outputs_of(mod, xs, **o) for o in ({"pipeline": only()}, {}))
    assert all(map(same, compiled, expected)) and all(len(np.unique(y)) > 3 for y in expected)


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding.unsigned(2, 0.1),
        Encoding.unsigned(2, 1 / 3),
        Encoding(2, 1.0, 1.0, coefficients=(0.5, 1.5)),
        Encoding(2, [1.0] * 5, 0),
    ],
)
def test_what_stays_float(encoding, module_of, ops_of):
    def body(b, x):
        axis = 1 if encoding.is_per_channel else -1
        return b.emit(POOLS["2x2"](b.emit(quantize(x, encoding, axis))))

    assert "relax.nn.avg_pool2d" in ops_of(LowerPool()(module_of([SHAPE], body)))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 2**14),
    st.integers(-60, 60),
    st.integers(1, 8),
    st.integers(0, 64),
    st.integers(1, 64),
    st.integers(0, 2**20),
)
def test_any_order_of_float_sums(mantissa, exponent, bits, twice_zero, count, seed):
    """What counts as exact is: forwards, backwards, and as an integer."""
    encoding = Encoding(bits, np.float32(mantissa * 2.0**exponent), twice_zero / 2)
    assume(sums_exactly(encoding, count))
    rng = np.random.default_rng(seed)
    codes = rng.choice([0, 2**bits - 1, int(rng.integers(2**bits))], count).astype(np.uint8)
    levels = encoding.dequantize(codes)
    sums = [np.add.accumulate(x, dtype=np.float32)[-1] for x in (levels, levels[::-1])]
    total = np.float64(encoding.scale) / 2 * (2.0 * codes - 2 * encoding.zero_point).sum()
    assert sums == [total, total]


def test_powers_of_two_are_exact_and_tenths_are_not():
    assert sums_exactly(Encoding.unsigned(8, 2.0**-7), 4096)
    assert not sums_exactly(Encoding.unsigned(8, 2.0**-7), 65536)
    assert not sums_exactly(Encoding.unsigned(1, 0.1), 4)


def test_the_report_counts_no_weights_of_pooling(module_of):
    encoding = Encoding.unsigned(2, 0.5)
    report = be.build(pool_module(module_of, POOLS["2x2"], [encoding])).report()
    (row,) = report.layers
    assert row.name == "act.avg_pool" and row.macs == row.float_bytes == row.stored_bytes == 0
