"""Ops on packed planes, un-scheduled and scheduled, against the same ops on codes."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc import encoding
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import (
    branch_conv2d,
    pack,
    packed_conv2d,
    packed_max_pool2d,
    packed_threshold,
    threshold,
    unpack,
)
from tvm_bitenc.transform import no_lowering

rng = np.random.default_rng(0)
NHWC = (0, 2, 3, 1)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_pack_and_unpack(bits, module_of, outputs_of, same):
    cases = [(1, 1), (17, 1), (64, 1), (130, 1), (130, 2), (12, 12)]
    codes = [rng.integers(0, 2**bits, (2, 3, 2, c), dtype=np.uint8) for c, _ in cases]

    def body(builder, *xs):
        packed = [builder.emit(pack(x, bits, groups)) for x, (_, groups) in zip(xs, cases)]
        return packed + [builder.emit(unpack(p, *case)) for p, case in zip(packed, cases)]

    mod = module_of([c.shape for c in codes], body, "uint8")
    outputs = outputs_of(mod, codes, pipeline=no_lowering)
    for code, (_, groups), words, back in zip(codes, cases, outputs, outputs[len(cases) :]):
        assert same(words, encoding.pack(code, bits, groups)) and same(back, code)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("pipeline", ["none", "default"])
@pytest.mark.parametrize("bits", [1, 3])
def test_max_pooling_takes_the_largest_code(bits, pipeline, module_of, outputs_of, same):
    codes = rng.integers(0, 2**bits, (1, 7, 8, 70), dtype=np.uint8)
    windows = [
        dict(pool_size=(2, 2), strides=(2, 2)),
        dict(pool_size=(3, 3), strides=(2, 2), padding=(1, 1, 1, 1)),
        dict(pool_size=(3, 2), strides=(1, 3), padding=(1, 0, 0, 1)),
        dict(pool_size=(2, 2), strides=(2, 2), ceil_mode=True),
        dict(pool_size=(2, 3), strides=(1, 1), dilation=(3, 2)),
    ]
    planes = [
        relax.BlockBuilder().normalize(
            relax.op.nn.max_pool2d(
                relax.Var("x", relax.TensorType((1, 70, 7, 8), "uint8")), **window
            )
        )
        for window in windows
    ]

    def body(builder, x):
        packed = builder.emit(pack(x, bits))
        pooled = [builder.emit(packed_max_pool2d(packed, call)) for call in planes]
        nchw = builder.emit(relax.op.permute_dims(x, (0, 3, 1, 2)))
        expected = [builder.emit(relax.op.nn.max_pool2d(nchw, **window)) for window in windows]
        return pooled + expected

    options = {} if pipeline == "default" else dict(pipeline=no_lowering)
    outputs = outputs_of(module_of([codes.shape], body, "uint8"), [codes], **options)
    for packed, expected in zip(outputs, outputs[len(windows) :]):
        assert same(packed, encoding.pack(expected.transpose(NHWC), bits))


@pytest.mark.parametrize("fused", [False, True])
def test_convolution_and_threshold_stay_packed(fused, random_layer, module_of, outputs_of, same):
    layer = random_layer(0, Encoding.signed(2), Encoding.symmetric(3), out_channels=70, padding=1)
    acc = layer.accumulators()
    thresholds = np.sort(rng.integers(acc.min(), acc.max(), (3, 70)), axis=0).astype(np.int32)
    direction = rng.choice([-1, 1], 70).astype(np.int32)

    def body(builder, codes):
        args = (layer.act, layer.weight_codes, layer.weight)
        call = builder.emit(branch_conv2d(codes, *args, padding=(1, 1, 1, 1), layer="one"))
        compared = builder.emit(threshold(call, thresholds, direction))
        nhwc = builder.emit(relax.op.permute_dims(codes, NHWC))
        planes = builder.emit(pack(nhwc, 3))
        conv = packed_conv2d(planes, builder.lookup_binding(call))
        if fused:
            constants = builder.lookup_binding(compared).args[1:]
            return builder.emit(relax.Call(conv.op, [*conv.args, *constants], conv.attrs))
        return builder.emit(packed_threshold(builder.emit(conv), builder.lookup_binding(compared)))

    mod = module_of([layer.act_codes.shape], body, "uint8")
    (y,) = outputs_of(mod, [layer.act_codes], pipeline=no_lowering)
    above = (acc * direction[:, None, None])[:, None] >= thresholds[None, :, :, None, None]
    expected = above.sum(axis=1).astype(np.uint8)
    assert same(y, encoding.pack(expected.transpose(NHWC), 2))


def test_dtypes_are_checked(module_of):
    with pytest.raises(UnsupportedError, match=r"bitenc\.pack.*uint8"):
        module_of([(1, 2, 2, 3)], lambda b, x: b.emit(pack(x, 2)))
    with pytest.raises(UnsupportedError, match=r"bitenc\.unpack.*uint64"):
        module_of([(1, 2, 2, 2, 1)], lambda b, x: b.emit(unpack(x, 3)), "uint8")
