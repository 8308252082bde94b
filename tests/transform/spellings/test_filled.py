"""Tensors of one number in place of the number."""

import numpy as np
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc.transform.canonicalize import Canonicalize

op = relax.op


def test_golden(assert_same_ir):
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), c: R.Tensor((2, 3), "bool")):
            with R.dataflow():
                lv = R.full(R.shape([2, 3]), R.const(0.5, "float32"), dtype="float32")
                lv1 = R.where(c, lv, x)
                lv2 = R.add(lv1, lv)
                R.output(lv2)
            return lv2

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((2, 3), "float32"), c: R.Tensor((2, 3), "bool")):
            with R.dataflow():
                lv1 = R.where(c, R.const(0.5, "float32"), x)
                lv2 = R.add(lv1, R.const(0.5, "float32"))
                R.output(lv2)
            return lv2

    assert_same_ir(Canonicalize()(Before), After)


def test_what_gives_the_shape_stays(module_of, ops_of, outputs_of):
    def body(builder, x):
        full = builder.emit(op.full((2, 3), relax.const(np.float32(0.5)), "float32"))
        return builder.emit(op.add(full, x))

    mod = module_of([(3,)], body)
    assert "relax.full" in ops_of(Canonicalize()(mod))
    (found,) = outputs_of(mod, [np.arange(3, dtype=np.float32)])
    assert np.array_equal(found, [[0.5, 1.5, 2.5]] * 2)
