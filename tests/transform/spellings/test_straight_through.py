"""x + (q - x), which straight-through gradients leave, is q where no rounding comes between."""

from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.transform.canonicalize import Canonicalize

ACT = Encoding.unsigned(4, 0.3)


def test_golden_rounding(assert_same_ir):
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                q = R.round(x)
                y = R.add(x, R.subtract(q, x))
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                q = R.round(x)
                R.output(q)
            return q

    assert_same_ir(Canonicalize()(Before), After)


def residue_below(limit):
    """Quantized numbers between 0 and a limit."""

    @I.ir_module
    class Residue:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                x1 = R.clip(x, 0, limit)
                q = bitenc.quantize(x1, ACT)
                y = R.add(R.subtract(q, x1), x1)
                R.output(y)
            return y

    return Residue


def test_golden_bounded_quantizer(assert_same_ir):
    """All within one step of its levels."""

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((3,), "float32")):
            with R.dataflow():
                x1 = R.clip(x, 0, 4.7)
                q = bitenc.quantize(x1, ACT)
                R.output(q)
            return q

    assert_same_ir(Canonicalize()(residue_below(4.7)), After)


def test_where_x_may_be_far_from_its_level_the_sum_stays(assert_same_ir):
    mod = residue_below(47.0)
    assert_same_ir(Canonicalize()(mod), mod)
