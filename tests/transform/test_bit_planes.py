"""Sums of convolutions of bit planes: one layer, with the numbers of the float module."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_bitenc import op as bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import quantize
from tvm_bitenc.op.branch import branch_conv2d_op, geometry_of
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.reference import conv2d
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.bit_planes import BitPlanes
from tvm_bitenc.transform.visit import visit_calls

op = relax.op
SIGN = Encoding.symmetric(1, 2.0)


def test_golden(assert_same_ir):
    signs = np.array([[[[1.0]]], [[[-1.0]]]], np.float32)
    first, second = relax.const(signs), relax.const(signs[::-1].copy())
    codes_of = np.array([[[[1]]], [[[2]]]], np.uint8)
    weight, act = Encoding(2, 1.0, 1.5), Encoding(2, 1.0, 1.0)
    matrix = [[1, 0], [0, 2]]
    ones, three = relax.const(1, "uint8"), relax.const(3, "uint8")

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 1, 2, 2), "uint8")):
            with R.dataflow():
                low = R.astype(R.bitwise_and(x, ones), "float32")
                high = R.astype(R.bitwise_and(R.right_shift(x, ones), ones), "float32")
                w0 = bitenc.quantize(first, SIGN, layer="stem")
                w1 = bitenc.quantize(second, SIGN)
                y0 = R.nn.conv2d(low, w0)
                y1 = R.multiply(R.nn.conv2d(high, w1), R.const(2.0, "float32"))
                y = R.add(y0, y1)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 1, 2, 2), "uint8")):
            with R.dataflow():
                codes = R.bitwise_and(x, three)
                acc = bitenc.branch_conv2d(
                    codes, act, codes_of, weight, layer="stem", branches=matrix
                )
                y = R.multiply(R.astype(acc, "float32"), R.const(0.5, "float32"))
                R.output(y)
            return y

    assert_same_ir(BitPlanes()(Before), After)


def plane(b, x, i):
    """Bit i of an image's integer part."""
    floored = b.emit(op.floor(b.emit(op.divide(x, relax.const(np.float32(2**i))))))
    return b.emit(op.floor_mod(floored, relax.const(np.float32(2))))


def summed(b, x, planes, factors, seed=0, scale=2.0, out_channels=4, **window):
    """The sum over planes of a factor times a convolution with random signs."""
    rng, total = np.random.default_rng(seed), None
    per_group = int(x.ty.shape[1]) // window.get("groups", 1)
    encoding = Encoding.symmetric(1, scale)
    axis = 0 if encoding.is_per_channel else -1
    for i, factor in zip(planes, factors):
        codes = rng.integers(0, 2, (out_channels, per_group, 3, 3), dtype=np.uint8)
        values = relax.const(encoding.dequantize(codes), "float32")
        w = b.emit(quantize(values, encoding, axis, layer=f"conv{i}"))
        y = b.emit(op.nn.conv2d(plane(b, x, i), w, **window))
        y = b.emit(op.multiply(y, relax.const(np.float32(factor))))
        total = y if total is None else b.emit(op.add(total, y))
    return total


def layers_in(mod):
    found = []

    def note(call, _graph):
        if is_call_to(call, branch_conv2d_op):
            found.append((str(call.attrs["layer"]), geometry_of(call)))

    visit_calls(mod, note)
    return found


IMAGE = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 5)).astype(np.float32)
OTHERS = np.float32([-1.0, -0.5, 0.75, 255.5, 256.0, -300.25, 2.0**31, -(2.0**40)])


def expected_sum(image, planes, factors, seed, out_channels=4, **window):
    """The same in integers, by the reference: an unsigned bit counts 2."""
    window = {"stride": window.pop("strides", 1), **window}
    rng, total = np.random.default_rng(seed), 0
    per_group = image.shape[1] // window.get("groups", 1)
    for i, factor in zip(planes, factors):
        codes = rng.integers(0, 2, (out_channels, per_group, 3, 3), dtype=np.uint8)
        bits = (np.floor(image.astype(np.float64) / 2**i) % 2).astype(np.uint8)
        sums = conv2d(bits, Encoding.unsigned(1), codes, Encoding.symmetric(1), **window)
        total = total + np.float32(factor) * (sums // 2).astype(np.float32)
    return total


CASES = [
    (range(8), 2 ** np.arange(8), dict(padding=1)),
    ([0, 3, 6, 7], [3, -4, 1, 128], dict(strides=2)),
    ([1, 2, 5], [2, 2, 3], dict(groups=2, padding=1)),
    (range(8), 2 ** np.arange(8), dict(groups=4)),
    ([4], [0.5], dict(padding=1)),
]


def test_exact(module_of, outputs_of, same):
    """Also of numbers that are no codes: the integer part counts, modulo 256."""
    mod = module_of(
        [IMAGE.shape],
        lambda b, x: [
            summed(b, x, planes, factors, seed, **window)
            for seed, (planes, factors, window) in enumerate(CASES)
        ],
    )
    assert len(layers_in(BitPlanes()(mod))) == len(CASES)
    image = IMAGE.copy()
    image.reshape(-1)[: len(OTHERS)] = OTHERS
    found = outputs_of(mod, [image])
    for seed, ((planes, factors, window), y) in enumerate(zip(CASES, found)):
        assert same(y, expected_sum(image, planes, factors, seed, **window))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    planes=st.sets(st.integers(0, 7), min_size=1),
    factors=st.lists(st.sampled_from([1, 2, -4, 3, 128]), min_size=8, max_size=8),
    window=st.sampled_from(
        [dict(padding=1), dict(strides=2), dict(groups=2, padding=1), dict(groups=4)]
    ),
)
def test_any_sum(module_of, outputs_of, same, seed, planes, factors, window):
    mod = module_of(
        [IMAGE.shape], lambda b, x: summed(b, x, sorted(planes), factors, seed, **window)
    )
    assert len(layers_in(BitPlanes()(mod))) == 1
    (expected,), (found,) = (outputs_of(mod, [IMAGE], **o) for o in ({"pipeline": no_lowering}, {}))
    # Of negative factors alone a sum of 0 is -0 in torch; here of one plane, too.
    assert same(found + np.float32(0), expected + np.float32(0))


def test_equal_weights_are_those_of_codes(module_of):
    """W1A8, which products of bytes may compute."""

    def body(b, x):
        rows = [summed(b, x, [i], [2**i]) for i in range(8)]  # Of one seed.
        total = rows[0]
        for row in rows[1:]:
            total = b.emit(op.add(total, row))
        return total

    ((name, geometry),) = layers_in(BitPlanes()(module_of([IMAGE.shape], body)))
    assert name == "conv0" and geometry.is_product
    assert geometry.act_coefficients == tuple(2**i for i in range(8))
    assert geometry.weight_coefficients == (1,) and geometry.act_offset == 255


def test_scales_by_channel(module_of, outputs_of, same):
    """Powers of two, so that the float sum is exact as well."""
    scale = 2.0 ** np.arange(-1, 3)
    mod = module_of([IMAGE.shape], lambda b, x: summed(b, x, range(8), 2 ** np.arange(8), 0, scale))
    ((_, geometry),) = layers_in(BitPlanes()(mod))
    assert np.array_equal(geometry.branches, np.diag(2 ** np.arange(8)))
    (expected,), (found,) = (outputs_of(mod, [IMAGE], **o) for o in ({"pipeline": no_lowering}, {}))
    assert same(found, expected)


def test_a_sum_that_is_read_twice_is_a_layer_for_each_reader(module_of):
    def body(b, x):
        first = summed(b, x, [0, 1], [1, 2])
        return [b.emit(op.nn.relu(first)), b.emit(op.add(first, summed(b, x, [2], [4])))]

    found = layers_in(BitPlanes()(module_of([IMAGE.shape], body)))
    assert sorted(len(geometry.branch_matrix) for _, geometry in found) == [2, 3]


def test_quantized_images_have_their_codes(module_of, outputs_of, ops_of, same):
    def body(b, x):
        image = b.emit(quantize(x, Encoding.unsigned(8)))
        return summed(b, image, range(8), 2 ** np.arange(8), padding=1)

    mod = module_of([IMAGE.shape], body)
    found = ops_of(BitPlanes()(mod))
    assert "bitenc.encode" in found and "relax.floor" not in found
    image = IMAGE + np.float32(0.25)
    (y,) = outputs_of(mod, [image])
    assert same(y, expected_sum(IMAGE, range(8), 2 ** np.arange(8), 0, padding=1))


def test_infinity_and_nan_have_code_0(module_of, outputs_of, same):
    mod = module_of([IMAGE.shape], lambda b, x: summed(b, x, [0, 7], [1, 128], padding=1))
    image, zero = IMAGE.copy(), IMAGE.copy()
    image[0, 0, 0, :3], zero[0, 0, 0, :3] = (np.inf, -np.inf, np.nan), 0
    (found,), (expected,) = (outputs_of(mod, [x]) for x in (image, zero))
    assert same(found, expected)


LEFT = {
    "factors that are no integers": lambda b, x: summed(b, x, [0, 1], [1, 2**0.5]),
    "factors beyond all sums": lambda b, x: summed(b, x, [0, 1], [1, 2**17]),
    "other windows": lambda b, x: b.emit(
        op.add(summed(b, x, [0], [1], padding=1), summed(b, x, [1], [2], padding=2, dilation=2))
    ),
    "a float input": lambda b, x: b.emit(
        op.nn.conv2d(x, relax.const(np.ones((4, 4, 3, 3), np.float32)))
    ),
}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_what_is_no_one_layer(body, module_of, outputs_of, same):
    mod = module_of([IMAGE.shape], body)
    found = layers_in(BitPlanes()(mod))  # Convolutions of one plane are layers by themselves.
    assert all(len(geometry.branch_matrix) == 1 for _, geometry in found)
    (expected,), (y,) = (outputs_of(mod, [IMAGE], **o) for o in ({"pipeline": no_lowering}, {}))
    assert same(y, expected)


def test_of_nine_terms_eight_are_a_layer(module_of):
    mod = module_of([IMAGE.shape], lambda b, x: summed(b, x, [*range(8), 0], [1] * 9))
    found = layers_in(BitPlanes()(mod))
    assert sorted(len(geometry.branch_matrix) for _, geometry in found) == [1, 8]


def test_planes_of_two_images_are_no_sum(module_of):
    def body(b, x, y):
        joined = b.emit(op.concat([plane(b, x, 0), plane(b, y, 1)], 1))
        signs = relax.const(np.ones((4, 8, 3, 3), np.float32))
        return b.emit(op.nn.conv2d(joined, b.emit(quantize(signs, SIGN))))

    assert not layers_in(BitPlanes()(module_of([IMAGE.shape] * 2, body)))


def test_sums_beyond_int32_are_refused(module_of):
    with pytest.raises(UnsupportedError, match="conv2d of layer 'conv0'.*beyond int32"):
        BitPlanes()(module_of([(1, 4000, 3, 3)], lambda b, x: summed(b, x, [0, 1], [1, 2**15])))
