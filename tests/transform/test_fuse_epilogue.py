"""A threshold unit joins the convolution that it alone reads."""

import numpy as np
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import branch_conv2d, packed_conv2d, packed_threshold, threshold
from tvm_bitenc.transform.fuse_epilogue import FuseEpilogue

W = Encoding.symmetric(2, 2.0)
CODES = relax.Var("codes", relax.TensorType((1, 5, 4, 4), "uint8"))
ACC = relax.Var("acc", relax.TensorType((1, 3, 2, 2), "int32"))


def calls():
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 4, (3, 5, 3, 3), dtype=np.uint8)
    normalize = relax.BlockBuilder().normalize
    convolution = normalize(branch_conv2d(CODES, W, weight, W, layer="conv"))
    limits = np.sort(rng.integers(-30, 30, (3, 3)), axis=0)
    return convolution, normalize(threshold(ACC, limits, np.array([1, -1, 1])))


def test_golden(module_of, assert_same_ir):
    convolution, compare = calls()

    def before(builder, planes):
        acc = builder.emit(packed_conv2d(planes, convolution))
        return builder.emit(packed_threshold(acc, compare))

    def after(builder, planes):
        call = packed_conv2d(planes, convolution)
        return builder.emit(relax.Call(call.op, [*call.args, *compare.args[1:]], call.attrs))

    mods = [module_of([(1, 4, 4, 2, 1)], body, "uint64") for body in (before, after)]
    assert_same_ir(FuseEpilogue()(mods[0]), mods[1])


def test_accumulators_that_others_read_stay(module_of, assert_same_ir):
    convolution, compare = calls()

    def body(builder, planes):
        acc = builder.emit(packed_conv2d(planes, convolution))
        return [acc, builder.emit(packed_threshold(acc, compare))]

    mod = module_of([(1, 4, 4, 2, 1)], body, "uint64")
    assert_same_ir(FuseEpilogue()(mod), mod)


def test_two_thresholds_of_one_accumulator_stay(module_of, outputs_of, only, same):
    convolution, compare = calls()

    def body(builder, planes):
        acc = builder.emit(packed_conv2d(planes, convolution))
        other = threshold(ACC, np.array([[0, 1, 2]]), np.ones(3))
        return [
            builder.emit(packed_threshold(acc, compare)),
            builder.emit(packed_threshold(acc, relax.BlockBuilder().normalize(other))),
        ]

    mod = module_of([(1, 4, 4, 2, 1)], body, "uint64")
    planes = np.random.default_rng(1).integers(0, 32, (1, 4, 4, 2, 1)).astype(np.uint64)
    before, after = (outputs_of(mod, [planes], pipeline=p) for p in (only(), only(FuseEpilogue())))
    assert all(map(same, before, after))
