"""Codes become packed planes, and nothing is unpacked between layers."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import (
    branch_conv2d,
    branch_dense,
    encode,
    pack,
    packed_conv2d,
    packed_threshold,
    threshold,
)
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


def test_golden(module_of, assert_same_ir):
    def before(builder, codes):
        acc = builder.emit(conv(codes, 8, 5))
        codes = builder.emit(threshold(acc, *limits(8)))
        return builder.emit(conv(codes, 6, 8))

    def after(builder, codes):
        first = builder.normalize(conv(codes, 8, 5))
        channels_last = builder.emit(op.permute_dims(codes, NHWC))
        planes = builder.emit(pack(channels_last, 2))
        acc = builder.emit(packed_conv2d(planes, first))
        compare = threshold(relax.Var("a", relax.TensorType((1, 8, 4, 4), "int32")), *limits(8))
        planes = builder.emit(packed_threshold(acc, compare))
        codes = relax.Var("c", relax.TensorType((1, 8, 4, 4), "uint8"))
        acc = builder.emit(packed_conv2d(planes, builder.normalize(conv(codes, 6, 8))))
        return builder.emit(op.permute_dims(acc, NCHW))

    shape = (1, 5, 6, 6)
    mods = [module_of([shape], body, "uint8") for body in (before, after)]
    assert_same_ir(Layout()(mods[0]), mods[1])


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
