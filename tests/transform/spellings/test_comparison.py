"""Signs spelt as comparisons."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.canonicalize import Canonicalize

op, f32 = relax.op, np.float32
SIGN = Encoding.symmetric(1, 2.0)


def test_golden(assert_same_ir):
    one, minus_one, zero = relax.const(f32(1)), relax.const(f32(-1)), relax.const(f32(0))

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv = R.greater_equal(x, zero)
                lv1 = R.where(lv, one, minus_one)
                R.output(lv1)
            return lv1

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                lv1 = bitenc.quantize(x, SIGN)
                R.output(lv1)
            return lv1

    assert_same_ir(Canonicalize()(Before), After)


def c(value):
    return relax.const(f32(value))


def compared(relation, threshold, yes, no):
    def body(builder, x):
        condition = builder.emit(relation(x, c(threshold)))
        return builder.emit(op.where(condition, c(yes), c(no)))

    return body


COMPARISONS = {
    "x >= 0": (compared(op.greater_equal, 0, 1, -1), lambda b, x: quantize(x, SIGN)),
    "x < 0": (compared(op.less, 0, -1, 1), lambda b, x: quantize(x, SIGN)),
    "x >= c": (
        compared(op.greater_equal, 0.3, 1, -1),
        lambda b, x: quantize(b.emit(op.subtract(x, c(0.3))), SIGN),
    ),
    "x > 0": (
        compared(op.greater, 0, 1, -1),
        lambda b, x: op.negative(b.emit(quantize(b.emit(op.negative(x)), SIGN))),
    ),
    "x <= c, two other levels": (
        compared(op.less_equal, 0.5, 2, 0),
        lambda b, x: quantize(
            b.emit(op.subtract(c(0.5), x)), Encoding(1, 2.0, 0.0, rounding="sign")
        ),
    ),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name, module_of, assert_same_ir, outputs_of, same):
    body, quantizer = COMPARISONS[name]
    before = module_of([(10,)], body)
    after = module_of([(10,)], lambda b, x: b.emit(quantizer(b, x)))
    assert_same_ir(Canonicalize()(before), after)
    tiny = np.nextafter(f32(0), f32(1))
    x = f32([-1, -tiny, -0.0, 0, tiny, np.nextafter(f32(0.3), f32(0)), 0.3, 0.5, 1, 9])
    assert all(map(same, *(outputs_of(m, [x], pipeline=no_lowering) for m in (before, after))))


def test_levels_out_of_reach_of_float32_stay(module_of, assert_same_ir):
    before = module_of([(3,)], compared(op.greater_equal, 0, 1.0, 0.3))
    assert_same_ir(Canonicalize()(before), before)


def test_a_cast_comparison(module_of, assert_same_ir):
    def before(b, x):
        return b.emit(op.astype(b.emit(op.greater_equal(x, c(0))), "float32"))

    after = Encoding(1, 1.0, 0.0, rounding="sign")
    expected = module_of([(3,)], lambda b, x: b.emit(quantize(x, after)))
    assert_same_ir(Canonicalize()(module_of([(3,)], before)), expected)
