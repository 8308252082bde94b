"""Grouped and depthwise convolutions on the accelerator, on both simulators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vta.cases import both, needs_verilator
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv

ACCELERATOR = Accelerator()


def steps_of(program) -> list[int]:
    """Steps of a tile, of each computation."""
    found, words = [], 0
    for x in program.instructions:
        words = x.words if isinstance(x, isa.Setup) else words
        if isinstance(x, isa.Conv):
            found.append(x.taps * words)
    return found


@both
@pytest.mark.parametrize("out_bits", [0, 2])
@pytest.mark.parametrize(
    "channels, out_channels, groups, words",
    [
        (128, 16, 2, {1}),  # Words of their own.
        (256, 32, 2, {2}),
        (32, 32, 4, {1}),  # Eight channels each: nibbles of a word.
        (24, 16, 2, {1}),  # Twelve.
        (192, 16, 2, {2}),  # One and a half words, from the middle of a word on too.
        (80, 40, 5, {1}),
        (200, 40, 5, {1, 2}),  # Forty, within a word or across two.
    ],
)
def test_groups(channels, out_channels, groups, words, out_bits, verilog, random_layer, check_conv):
    """Each group of output channels reads the words in which its input channels lie."""
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    options = dict(channels=channels, out_channels=out_channels, groups=groups)
    program = check_conv(random_layer(0, *encodings, padding=1, **options), out_bits, verilog)
    assert set(steps_of(program)) == {9 * 4 * count for count in words}


@both
@pytest.mark.parametrize("out_bits", [0, 3])
@pytest.mark.parametrize("channels", [8, 72, 13])
def test_depthwise(channels, out_bits, verilog, random_layer, check_conv):
    """A step for each tap and activation plane, whatever the bits of the weights."""
    for weight_bits, act_bits in ((1, 1), (2, 2), (8, 3), (4, 8)):
        encodings = Encoding.signed(weight_bits), Encoding.unsigned(act_bits)
        window = dict(channels=channels, out_channels=channels, groups=channels, padding=1)
        program = check_conv(random_layer(0, *encodings, stride=2, **window), out_bits, verilog)
        assert set(steps_of(program)) == {9 * act_bits}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_depthwise(data, random_layer, kinds, check_conv):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    def encoding():
        return kinds[data.draw(st.sampled_from(sorted(kinds)))](draw(1, 8))

    channels = draw(2, 130)
    layer = random_layer(
        draw(0, 99), encoding(), encoding(), channels=channels, out_channels=channels,
        groups=channels, kernel=(draw(1, 5), draw(1, 4)), stride=draw(1, 3),
        padding=(draw(0, 2), draw(0, 2), draw(0, 2), draw(0, 2)), size=(draw(9, 13), draw(9, 13)),
        dilation=draw(1, 2), batch=draw(1, 2),
    )  # fmt: skip
    check_conv(layer, draw(0, 3))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_groups(data, random_layer, kinds, check_conv):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    def encoding():
        return kinds[data.draw(st.sampled_from(sorted(kinds)))](draw(1, 3))

    groups = draw(2, 5)
    layer = random_layer(
        draw(0, 99), encoding(), encoding(), channels=4 * draw(1, 25) * groups,
        out_channels=8 * draw(1, 2) * groups, groups=groups, kernel=draw(1, 3), stride=draw(1, 2),
        padding=draw(0, 1), size=(draw(5, 9), draw(5, 9)),
    )  # fmt: skip
    check_conv(layer, draw(0, 3))


@needs_verilator
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_depthwise_on_the_verilog(data, random_layer, kinds, check_conv):
    weight, act = (kinds[data.draw(st.sampled_from(sorted(kinds)))] for _ in range(2))
    encodings = weight(data.draw(st.integers(1, 8))), act(data.draw(st.integers(1, 8)))
    channels = data.draw(st.integers(2, 72))
    window = dict(channels=channels, out_channels=channels, groups=channels, padding=1)
    check_conv(random_layer(0, *encodings, **window), data.draw(st.integers(0, 3)), True)


def test_depthwise_weights_of_any_levels(random_layer, check_conv, conv_layer):
    """Numbers needn't be powers of two, but small."""
    act, window = Encoding.ternary(), dict(groups=8, padding=1)
    check_conv(random_layer(0, Encoding(3, 1.0, np.arange(8) / 2, (3, 7, 50)), act, **window), 3)
    far = random_layer(0, Encoding(2, 1.0, 0.0, (300, 250)), act, **window)
    with pytest.raises(UnsupportedError, match="more than 511 times their unit"):
        compile_conv(conv_layer(far), ACCELERATOR)
