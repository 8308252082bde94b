"""Images whose windows are packed: bit by bit, and layers on them on both simulators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vta.cases import both, needs_verilator
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding, pack, unpack
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.window_packing import WindowPacking

ACCELERATOR = Accelerator()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_bit_under_a_window_has_its_place(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    batch, channels, bits = draw(1, 2), draw(1, 64), draw(1, 3)
    kernel, stride = (draw(1, 7), draw(1, 4)), (draw(1, 3), draw(1, 3))
    dilation, padding = (draw(1, 2), draw(1, 2)), (draw(0, 3), draw(0, 3))
    windows = draw(1, 4), draw(1, 4)
    ends = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(windows, stride, kernel, dilation)]
    # The image ends inside the last window, or behind it.
    height, width = (max(e - p + draw(-2, 2), 1) for e, p in zip(ends, padding))
    packing = WindowPacking(
        *(batch, height, width, channels, bits, *kernel, *stride, *dilation, *padding, *windows),
        together=draw(1, bits),
    )
    codes = np.random.default_rng(0).integers(0, 2**bits, (batch, height, width, channels))
    words = packing.packed(pack(codes.astype(np.uint8), bits))
    assert words.size == packing.packed_words
    found, size = unpack(words[..., None, :], 64 * words.shape[-1]), packing.window_bits
    places = [packing.layout.place(k) for k in range(bits)]
    assert found.sum() == sum(found[..., place : place + size].sum() for place in places)
    found = sum(found[..., place : place + size] << k for k, place in enumerate(places))
    around = [(0, 0), *((p, max(e - p, 0)) for e, p in zip(ends, padding)), (0, 0)]
    padded = np.pad(codes, around)
    for y, x in np.ndindex(windows):
        taps = [
            padded[:, y * stride[0] + i * dilation[0], x * stride[1] + j * dilation[1]]
            for i, j in np.ndindex(kernel)
        ]
        assert np.array_equal(found[:, y, x], np.concatenate(taps, axis=-1))


@pytest.mark.parametrize("out_bits", [0, 2])
@pytest.mark.parametrize(
    "channels, window, words, symmetric_steps",
    [
        (3, dict(padding=1), 2, 5),
        (3, dict(kernel=7, padding=3, stride=2, size=(14, 12)), 7, 16),
        (1, dict(kernel=5, padding=(2, 0, 1, 3), dilation=(1, 2), size=(9, 11)), 2, 5),
        (8, dict(stride=2, padding=1, batch=2), 4, 10),
        (8, dict(padding=1), 0, 54),  # It would take twice the memory.
        (16, dict(stride=2, padding=1), 0, 54),  # Three words for nine are no gain.
    ],
)
@both
def test_layers_on_images(
    channels, window, words, symmetric_steps, out_bits, verilog, random_layer, check_conv
):
    """Where no weight offset needs ones, planes of all pairs of an equal sum share words."""
    options = dict(channels=channels, out_channels=13, **window)
    for weight in (Encoding.signed(2), Encoding.symmetric(2)):
        layer = random_layer(0, weight, Encoding.unsigned(3), **options)
        program = check_conv(layer, out_bits, verilog)
        assert (program.inputs[0].packing.layout.words if program.inputs[0].packing else 0) == words
    assert steps_of(program) == symmetric_steps


def steps_of(program) -> int:
    """Steps of a tile."""
    conv = next(x for x in program.instructions if isinstance(x, isa.Conv))
    setup = next(x for x in program.instructions if isinstance(x, isa.Setup))
    return conv.taps * setup.words


@pytest.mark.parametrize("weight, steps", [(Encoding.signed, 162), (Encoding.symmetric, 157)])
def test_first_layer_of_resnet(weight, steps, random_layer, check_conv):
    """147 bits in eight planes for eight: 147 steps at least, 192 where each plane has words."""
    options = dict(channels=3, kernel=7, padding=3, stride=2, size=(20, 24))
    layer = random_layer(0, weight(8), Encoding.unsigned(8), **options)
    program = check_conv(layer, 2)
    assert steps_of(program) == steps and program.inputs[0].packing.layout.words == 19


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_planes_side_by_side(data, random_layer, kinds, check_conv):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    def encoding():
        return kinds[data.draw(st.sampled_from(sorted(kinds)))](draw(1, 8))

    layer = random_layer(
        draw(0, 99), encoding(), encoding(), channels=draw(1, 9), kernel=draw(2, 5),
        stride=draw(1, 3), padding=draw(0, 2), size=(draw(5, 9), draw(5, 9)), out_channels=9,
    )  # fmt: skip
    check_conv(layer, draw(0, 3))


@needs_verilator
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_planes_side_by_side_on_the_verilog(data, random_layer, kinds, check_conv):
    kind, bits = data.draw(st.sampled_from(sorted(kinds))), data.draw(st.integers(1, 8))
    options = dict(channels=data.draw(st.integers(1, 7)), padding=1)
    check_conv(random_layer(0, kinds[kind](bits), Encoding.unsigned(8), **options), 2, True)
