"""Images whose windows are packed: bit by bit, and layers on them on both simulators."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vta.cases import both
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding, pack, unpack
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.binary import dumps, loads
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.functional import FunctionalSimulator
from tvm_bitenc.vta.verilator import VerilatorSimulator
from tvm_bitenc.vta.window_packing import WindowPacking, packing_of

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
        batch, height, width, channels, bits, *kernel, *stride, *dilation, *padding, *windows
    )
    codes = np.random.default_rng(0).integers(0, 2**bits, (batch, height, width, channels))
    found = unpack(packing.packed(pack(codes.astype(np.uint8), bits)), packing.window_bits)
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
    "channels, window, words",
    [
        (3, dict(padding=1), 1),
        (3, dict(kernel=7, padding=3, stride=2, size=(14, 12)), 3),
        (1, dict(kernel=5, padding=(2, 0, 1, 3), dilation=(1, 2), size=(9, 11)), 1),
        (8, dict(stride=2, padding=1, batch=2), 2),
        (8, dict(padding=1), 0),  # It would take twice the memory.
        (16, dict(stride=2, padding=1), 0),  # Three words for nine are no gain.
    ],
)
@both
def test_layers_on_images(
    channels, window, words, out_bits, verilog, random_layer, conv_layer, expected, planes
):
    encodings = Encoding.signed(2), Encoding.unsigned(3)
    layer = random_layer(0, *encodings, channels=channels, out_channels=13, **window)
    static = conv_layer(layer, out_bits)
    packing, program = packing_of(static), compile_conv(static, ACCELERATOR)
    assert (packing.words if packing else 0) == words
    conv = next(x for x in program.instructions if isinstance(x, isa.Conv))
    taps = np.prod(layer.weight_codes.shape[2:])
    assert conv.taps * conv.words == (words or taps)
    program, _ = loads(dumps(program, ACCELERATOR))
    memory = program.image(planes(layer))
    assert planes(layer).size == program.operand_words >= program.input_words
    if verilog:
        VerilatorSimulator(ACCELERATOR, memory).run_words(len(program.instructions))
    else:
        FunctionalSimulator(ACCELERATOR, memory).run(program.instructions)
    found = output_of(static, program, memory[program.output_address :])
    assert np.array_equal(found, expected(layer, static))
