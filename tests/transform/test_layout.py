"""Codes become packed planes, and nothing is unpacked between layers."""

import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import branch_conv2d, branch_dense, encode, threshold
from tvm_bitenc.transform.layout import NCHW, NHWC, Layout

rng = np.random.default_rng(0)
op = relax.op
W, A = Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 2.0)


def conv(x, out_channels, per_group, kernel=3, seed=0, **window):
    shape = (out_channels, per_group, kernel, kernel)
    codes = np.random.default_rng(seed).integers(0, 4, shape, dtype=np.uint8)
    return branch_conv2d(x, A, codes, W, **window)


def limits(channels, spread=20):
    thresholds = np.sort(np.random.default_rng(1).integers(-spread, spread, (3, channels)), axis=0)
    return thresholds, np.ones(channels, np.int64)


def test_golden(assert_same_ir):
    w, w2 = (rng.integers(0, 4, shape) for shape in ((8, 5, 3, 3), (6, 8, 3, 3)))
    o, o2 = (relax.const(np.zeros(n), "int32") for n in (8, 6))
    w, w2 = (relax.const(weight, "uint8") for weight in (w, w2))
    t, d = (relax.const(value, "int32") for value in limits(8))
    window = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=3)
    window |= dict(strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1)
    first, second = dict(window, layer="first"), dict(window, layer="second")
    packed_first, packed_second = (dict(c, strategy="", steps=[]) for c in (first, second))

    @I.ir_module
    class Before:
        @R.function
        def main(codes: R.Tensor((1, 5, 6, 6), "uint8")):
            with R.dataflow():
                lv = T.Call("bitenc.branch_conv2d", [codes, w, o], attrs=first)
                lv1 = T.Call("bitenc.threshold", [lv, t, d], attrs={"channel_axis": 1})
                lv2 = T.Call("bitenc.branch_conv2d", [lv1, w2, o2], attrs=second)
                R.output(lv2)
            return lv2

    @I.ir_module
    class After:
        @R.function
        def main(codes: R.Tensor((1, 5, 6, 6), "uint8")):
            with R.dataflow():
                lv = bitenc.pack(R.permute_dims(codes, NHWC), 2)
                lv1 = T.Call("bitenc.packed_conv2d", [lv, w, o], attrs=packed_first)
                lv2 = T.Call("bitenc.packed_threshold", [lv1, t, d], attrs={})
                lv3 = T.Call("bitenc.packed_conv2d", [lv2, w2, o2], attrs=packed_second)
                lv4 = R.permute_dims(lv3, NCHW)
                R.output(lv4)
            return lv4

    assert_same_ir(Layout()(Before), After)


def test_golden_dense_layer_behind_an_image(assert_same_ir):
    """A convolution whose window is the image that was flattened."""
    weight = rng.integers(0, 4, (7, 8))
    w = relax.const(weight, "uint8")
    w_image = relax.const(weight.reshape(7, 2, 2, 2), "uint8")
    o = relax.const(np.zeros(7), "int32")
    dense = dict(act_coefficients=[1, 2], weight_coefficients=[1, 2], act_offset=3, layer="fc")
    window = dict(strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1)
    packed = dict(dense, **window, strategy="", steps=[])

    @I.ir_module
    class Before:
        @R.function
        def main(planes: R.Tensor((3, 2, 2, 2, 1), "uint64")):
            with R.dataflow():
                codes = R.permute_dims(bitenc.unpack(planes, 2), NCHW)
                y = T.Call("bitenc.branch_dense", [R.reshape(codes, (3, 8)), w, o], attrs=dense)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(planes: R.Tensor((3, 2, 2, 2, 1), "uint64")):
            with R.dataflow():
                acc = T.Call("bitenc.packed_conv2d", [planes, w_image, o], attrs=packed)
                y = R.reshape(R.permute_dims(acc, NCHW), (3, 7))
                R.output(y)
            return y

    assert_same_ir(Layout()(Before), After)


def pooled_chain(builder, codes):
    acc = builder.emit(conv(codes, 66, 3))
    codes = builder.emit(threshold(acc, *limits(66)))
    codes = builder.emit(op.nn.max_pool2d(codes, (3, 3), (2, 2), (1, 1)))
    return builder.emit(conv(codes, 4, 66, seed=2))


def flattened(builder, codes):
    acc = builder.emit(conv(codes, 5, 3))
    codes = builder.emit(threshold(acc, *limits(5)))
    flat = builder.emit(op.reshape(codes, (2, 180)))
    weight = rng.integers(0, 4, (7, 180), dtype=np.uint8)
    acc = builder.emit(branch_dense(flat, A, weight, W))
    codes = builder.emit(threshold(acc, *limits(7, 300)))
    return builder.emit(branch_dense(codes, A, weight[:, :7], W))


def grouped(channels):
    def body(builder, codes):
        acc = builder.emit(conv(codes, channels, 3))
        codes = builder.emit(threshold(acc, *limits(channels)))
        return builder.emit(conv(codes, channels, channels // 2, groups=2))

    return body


def read_twice(builder, codes):
    acc = builder.emit(conv(codes, 8, 3))
    codes = builder.emit(threshold(acc, *limits(8)))
    return [acc, codes, builder.emit(conv(codes, 4, 8))]


CHAINS = {
    "pooling": (pooled_chain, 1, 0),
    "flattening": (flattened, 1, 0),
    "groups of whole words": (grouped(128), 1, 0),
    "groups of parts of words": (grouped(12), 1, 0),
    "codes and accumulators are outputs too": (read_twice, 1, 1),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("name", CHAINS)
def test_conversions_only_where_they_must_be(name, module_of, ops_of, outputs_of, only, same):
    body, packs, unpacks = CHAINS[name]
    mod = module_of([(2, 3, 8, 8)], body, "uint8")
    ops = ops_of(Layout()(mod))
    assert (ops.count("bitenc.pack"), ops.count("bitenc.unpack")) == (packs, unpacks)
    assert not {"bitenc.branch_conv2d", "bitenc.branch_dense", "bitenc.threshold"} & set(ops)
    codes = rng.integers(0, 4, (2, 3, 8, 8), dtype=np.uint8)
    before, after = (outputs_of(mod, [codes], pipeline=p) for p in (only(), only(Layout())))
    assert all(map(same, before, after))


def test_pooling_of_what_was_never_packed_stays(module_of, ops_of):
    def body(builder, x):
        codes = builder.emit(encode(x, A))
        return builder.emit(op.nn.max_pool2d(codes, (2, 2), (2, 2)))

    assert ops_of(Layout()(module_of([(1, 3, 4, 4)], body))) == [
        "bitenc.encode",
        "relax.nn.max_pool2d",
    ]
