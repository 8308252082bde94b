"""Shaping ops between a quantizer and a layer act on codes, and on planes where words are moved."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import branch_conv2d, encode, interleave, quantize, threshold
from tvm_bitenc.transform import Pipeline, default_pipeline, no_lowering
from tvm_bitenc.transform.as_conv2d import AsConv2d
from tvm_bitenc.transform.layout import Layout
from tvm_bitenc.transform.layout.shaping import nearest_indices
from tvm_bitenc.transform.lower import Lower, float_layers

op, rng = relax.op, np.random.default_rng(0)
WEIGHT, ACT = Encoding.symmetric(2, 2.0), Encoding.unsigned(2, 8.0)
SURROUND = (0, 0, 0, 0, 1, 0, 2, 1)
INDICES = relax.const(np.array([3, 0, 0, 2, 1]), "int64")


def resized(x, size, mode="half_pixel", rounding="round"):
    return op.image.resize2d(
        x,
        size,
        method="nearest_neighbor",
        coordinate_transformation_mode=mode,
        rounding_method=rounding,
    )


# Ops on an image (1, 128, 4, 5); whether they move whole words of planes.
CASES = {
    "concat along channels": (lambda b, x: op.concat([x, x], 1), True),
    "concat along rows": (lambda b, x: op.concat([x, x], 2), True),
    "concat of parts of words": (
        lambda b, x: op.concat([b.emit(op.strided_slice(x, [1], [0], [7])), x, x], 1),
        True,
    ),
    "part of the channels and rows": (
        lambda b, x: op.strided_slice(x, [1, 2], [9, 1], [80, 3]),
        True,
    ),
    "zeros around": (lambda b, x: op.nn.pad(x, SURROUND, "constant", 0.0), True),
    "another level around": (lambda b, x: op.nn.pad(x, SURROUND, "constant", 16.0), False),
    "zeros behind channels": (lambda b, x: op.nn.pad(x, (0, 0, 0, 9, 0, 0, 0, 0)), False),
    "reflection": (lambda b, x: op.nn.pad(x, SURROUND, "reflect"), True),
    "slices of the image": (lambda b, x: op.strided_slice(x, [2, 3], [1, 0], [4, 5], [1, 2]), True),
    "half of the channels": (lambda b, x: op.strided_slice(x, [1], [64], [128]), True),
    "every other channel": (lambda b, x: op.strided_slice(x, [1], [0], [128], [2]), False),
    "backwards": (lambda b, x: op.strided_slice(x, [2], [3], [-9], [-1]), False),
    "flip": (lambda b, x: op.flip(x, 3), True),
    "flip of channels": (lambda b, x: op.flip(x, 1), False),
    "tile": (lambda b, x: op.tile(x, (1, 1, 2, 3)), True),
    "take rows": (lambda b, x: op.take(x, INDICES, 2), True),
    "take channels": (lambda b, x: op.take(x, INDICES, 1), False),
    "nearest": (lambda b, x: resized(x, (8, 10)), True),
    "nearest by uneven factors": (lambda b, x: resized(x, (7, 12), "asymmetric", "floor"), True),
    "interleave": (lambda b, x: interleave([x, x], (2, 1), (7, 5)), True),
    "max pooling": (lambda b, x: op.nn.max_pool2d(x, (2, 2), (2, 2), (1, 1)), True),
    "pixel shuffle": (
        lambda b, x: op.reshape(
            b.emit(op.permute_dims(b.emit(op.reshape(x, (1, 32, 2, 2, 4, 5))), (0, 1, 4, 2, 5, 3))),
            (1, 32, 8, 10),
        ),
        False,
    ),
    "there and back": (
        lambda b, x: op.expand_dims(b.emit(op.squeeze(x, 0)), 0),
        True,
    ),
}


def weight_of(builder, *shape):
    codes = np.random.default_rng(sum(shape)).integers(0, 4, shape, dtype=np.uint8)
    return builder.emit(quantize(relax.const(WEIGHT.dequantize(codes)), WEIGHT, layer="conv"))


def convolved(builder, x, out_channels):
    weight = weight_of(builder, out_channels, int(x.ty.shape[1]), 1, 1)
    return builder.emit(op.nn.conv2d(x, weight))


@pytest.mark.slow
def test_ops_on_codes_and_planes_compute_the_same(module_of, outputs_of, same):
    def body(builder, x):
        x = convolved(builder, builder.emit(quantize(x, ACT)), 128)
        a = builder.emit(quantize(x, ACT))
        return [convolved(builder, builder.emit(make(builder, a)), 3) for make, _ in CASES.values()]

    mod = module_of([(1, 3, 4, 5)], body)
    assert float_layers(mod) == []
    x = 16 * rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
    outputs = (outputs_of(mod, [x], pipeline=p) for p in (no_lowering, default_pipeline))
    pairs = zip(CASES, *outputs, strict=True)
    assert [name for name, *pair in pairs if not same(*pair)] == []


@pytest.mark.parametrize("name", CASES)
def test_whole_words_are_moved_as_planes(name, module_of, ops_of):
    make, on_planes = CASES[name]

    def body(builder, codes):
        weight = Encoding.symmetric(2, 2.0), np.zeros((128, 3, 1, 1), np.uint8)
        acc = builder.emit(branch_conv2d(codes, ACT, weight[1], weight[0]))
        limits = np.zeros((3, 128), np.int32), np.ones(128, np.int32)
        y = builder.emit(make(builder, builder.emit(threshold(acc, *limits))))
        weight_codes = np.zeros((2, int(y.ty.shape[1]), 1, 1), np.uint8)
        return builder.emit(branch_conv2d(y, ACT, weight_codes, WEIGHT))

    ops = ops_of(Layout()(module_of([(1, 3, 4, 5)], body, "uint8")))
    assert ("bitenc.unpack" not in ops) == on_planes


def test_codes_of_floats_are_packed_to_join_planes(module_of, ops_of):
    """A skip connection that is quantized only where it joins."""

    def body(builder, codes, x):
        acc = builder.emit(branch_conv2d(codes, ACT, np.zeros((64, 3, 1, 1), np.uint8), WEIGHT))
        limits = np.zeros((3, 64), np.int32), np.ones(64, np.int32)
        parts = [builder.emit(threshold(acc, *limits)), builder.emit(encode(x, ACT))]
        y = builder.emit(op.concat(parts, 1))
        return builder.emit(branch_conv2d(y, ACT, np.zeros((2, 69, 1, 1), np.uint8), WEIGHT))

    mod = module_of([(1, 3, 4, 4), (1, 5, 4, 4)], body, ["uint8", "float32"])
    ops = ops_of(Layout()(mod))
    assert ops.index("bitenc.pack", ops.index("bitenc.encode")) < ops.index("relax.concat")


PADDED = {
    "unsigned": Encoding.unsigned(2, 2.0),
    "signed": Encoding.signed(3, 2.0),
    "no code for 0": Encoding.symmetric(2, 2.0),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", PADDED)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_zeros_around_become_padding(dimensions, kind, module_of, outputs_of, ops_of, same):
    convolve = {1: op.nn.conv1d, 2: op.nn.conv2d}[dimensions]
    widths = [0, 0, 0, 0, *[2, 1] * dimensions]

    def body(builder, x):
        a = builder.emit(op.nn.pad(builder.emit(quantize(x, PADDED[kind])), widths))
        a = builder.emit(op.nn.pad(a, [0, 0, 0, 0, *[1, 3] * dimensions]))
        w = weight_of(builder, 4, 3, *[2] * dimensions)
        return builder.emit(convolve(a, w, padding=1))

    mod = module_of([(1, 3, *[4] * dimensions)], body)
    passes = Pipeline([AsConv2d(), Lower()])
    assert "relax.nn.pad" not in ops_of(passes.run(mod))
    x = 4 * rng.normal(size=(1, 3, *[4] * dimensions)).astype(np.float32)
    (expected,), (y,) = outputs_of(mod, [x], pipeline=no_lowering), outputs_of(mod, [x])
    assert same(y, expected)


@pytest.mark.parametrize("mode", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("rounding", ["round", "floor", "ceil", "round_prefer_floor"])
def test_nearest_indices_are_those_of_the_op(mode, rounding, module_of, outputs_of):
    x = rng.normal(size=(1, 2, 5, 6)).astype(np.float32)
    mod = module_of([x.shape], lambda b, x: b.emit(resized(x, (13, 4), mode, rounding)))
    resize = mod["main"].body.blocks[0].bindings[0].value
    rows, columns = nearest_indices(resize)
    assert np.array_equal(outputs_of(mod, [x])[0], x[:, :, rows][..., columns])
