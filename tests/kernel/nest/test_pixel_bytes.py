"""Layers that read codes as bytes and write them so, against the integers of the reference."""

import pytest

import tvm_bitenc as be
from tests.kernel.cases import codes_of, steps_of, thresholded
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.product.depthwise import Depthwise
from tvm_bitenc.kernel.product.int8 import Int8

# Lanes, words and blocks left over, and none; padding, which pixels are copied for, and none.
LAYERS = {
    "all as it lies": dict(channels=64, out_channels=64, kernel=1),
    "a pixel of few bytes": dict(channels=12, out_channels=24, kernel=1),
    "bytes that fill no lane": dict(channels=17, out_channels=19, padding=1),
    "more than a vector": dict(channels=130, out_channels=70, padding=1),
    "parts of vectors": dict(channels=92, out_channels=33),
    "strides": dict(channels=36, out_channels=80, stride=2, padding=(0, 1, 2, 3)),
    "dilation": dict(channels=20, out_channels=40, dilation=2, padding=2),
    "groups": dict(channels=24, out_channels=36, groups=2, padding=1),
    "depthwise": dict(channels=66, out_channels=66, groups=66, padding=1),
    "depthwise, whole vectors": dict(channels=128, out_channels=128, groups=128, padding=1),
    "depthwise, few channels": dict(channels=9, out_channels=9, groups=9),
}
WEIGHTS = {
    "even": Encoding.symmetric(4, 2.0),
    "odd, which sums of codes go with": Encoding.symmetric(8, 2.0),
}
BITS = (3, 5, 8)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("window", LAYERS)
def test_bytes_in_and_out(
    window, weight, native_avx512, kernels, random_layer, module_of, outputs_of, same
):
    options, cases = dict(LAYERS[window]), []
    for seed, bits in enumerate(BITS):
        act = Encoding.unsigned(bits, 2.0)
        layer = random_layer(seed, WEIGHTS[weight], act, size=(6, 7), **options)
        cases.append((layer, *steps_of(layer, bits, seed % 2 == 0, seed)))
    inputs = [layer.act_codes for layer, *_ in cases]
    outputs = outputs_of(
        thresholded(cases, module_of), inputs, target=native_avx512, strategy="int8"
    )
    assert [same(out, codes_of(*case)) for out, case in zip(outputs, cases)] == [True] * len(BITS)
    product = Depthwise if "depthwise" in window else Int8
    assert kernels or window == "groups"
    for made, epilogue in kernels:
        assert isinstance(made, product)
        dtype = "uint64" if window == "groups" else "uint8"
        assert (made.source_dtype, epilogue.out_dtype) == (dtype, dtype)


def test_what_lies_as_it_is_read_is_not_copied(native_avx512, kernels, random_layer, module_of):
    act, weight = Encoding.unsigned(8, 2.0), Encoding.symmetric(4, 2.0)
    layer = random_layer(0, weight, act, channels=64, out_channels=64, kernel=1)
    be.build(thresholded([(layer, *steps_of(layer, 8, True, 0))], module_of), native_avx512)
    ((product, _),) = kernels
    assert product._reads_source
