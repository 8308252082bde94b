"""The paper's equation: a branch sum is the weighted sum of its 1-bit branches, and constants."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tests.transform.expand_branches import ExpandBranches
from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.reference import pads
from tvm_bitenc.transform import no_lowering

SIGN = Encoding.symmetric(1)
ONE, SHIFTS = relax.const(1, "uint8"), [relax.const(bit, "uint8") for bit in (0, 1)]


def test_golden(assert_same_ir):
    """2-bit activations of 0 ... 3 as v + 3, and weights of one bit: 3 times their sum is left."""
    codes_of, act = np.array([[[[0]], [[1]]], [[[1]], [[1]]]], np.uint8), Encoding.unsigned(2, 2.0)
    constant = relax.const(np.broadcast_to(np.reshape([0, 6], (1, 2, 1, 1)), (1, 2, 2, 2)), "int32")
    kappas = [relax.const(1, "int32"), relax.const(2, "int32")]

    @I.ir_module
    class Before:
        @R.function
        def main(codes: R.Tensor((1, 2, 2, 2), "uint8")):
            with R.dataflow():
                acc = bitenc.branch_conv2d(codes, act, codes_of, SIGN)
                R.output(acc)
            return acc

    @I.ir_module
    class After:
        @R.function
        def main(codes: R.Tensor((1, 2, 2, 2), "uint8")):
            with R.dataflow():
                a0 = R.bitwise_and(R.right_shift(codes, SHIFTS[0]), ONE)
                a1 = R.bitwise_and(R.right_shift(codes, SHIFTS[1]), ONE)
                low = R.multiply(bitenc.branch_conv2d(a0, SIGN, codes_of, SIGN), kappas[0])
                sum_of_low = R.add(constant, low)
                high = R.multiply(bitenc.branch_conv2d(a1, SIGN, codes_of, SIGN), kappas[1])
                acc = R.add(sum_of_low, high)
                R.output(acc)
            return acc

    assert_same_ir(ExpandBranches()(Before), After)


KINDS = {
    "both with offsets": (Encoding.unsigned(2), Encoding.signed(3), {}),
    "ternary weights": (Encoding.symmetric(1), Encoding.ternary(), {"padding": 1}),
    "zero points by channel": (
        Encoding(2, 1.0, 0.5),
        Encoding(2, 1.0, np.arange(8) / 2),
        {"padding": (1, 0, 2, 1), "stride": (2, 1), "groups": 2},
    ),
    "a branch matrix": (
        Encoding(2, 1.0, 0.5),
        Encoding(2, 1.0, np.arange(8) / 2),
        {"padding": 1, "branches": [[1, 0], [-3, 2]]},
    ),
}


@pytest.mark.parametrize("dense", [False, True], ids=["conv2d", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_ops_are_sums_of_one_bit_ops(
    kind, dense, random_layer, module_of, outputs_of, ops_of, same
):
    act, weight, window = KINDS[kind]
    layer = random_layer(0, weight, act, dense=dense, **({} if dense else window))

    def body(builder, codes):
        operands = (codes, act, layer.weight_codes, weight)
        if dense:
            return builder.emit(bitenc.branch_dense(*operands))
        return builder.emit(
            bitenc.branch_conv2d(
                *operands,
                strides=window.get("stride", (1, 1)),
                padding=pads(window.get("padding", 0)),
                groups=window.get("groups", 1),
                branches=window.get("branches"),
            )
        )

    mod = module_of([layer.act_codes.shape], body, "uint8")
    expanded = ExpandBranches()(mod)
    assert sum(name.startswith("bitenc.branch") for name in ops_of(expanded)) > 1
    (sums,) = outputs_of(expanded, [layer.act_codes], pipeline=no_lowering)
    assert same(sums, layer.accumulators())
