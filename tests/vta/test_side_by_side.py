"""Layers that read and write the planes of a pixel side by side, on both simulators."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vta.cases import both, needs_verilator, run
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding, pack, unpack
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv
from tvm_bitenc.vta.functional import MODULES, AcceleratorError, FunctionalSimulator
from tvm_bitenc.vta.verilator import VerilatorSimulator

ACCELERATOR = Accelerator()


def side_by_side(codes: np.ndarray, bits: int) -> np.ndarray:
    """Words of each pixel: bit plane C + channel."""
    return pack(np.concatenate([codes >> k & 1 for k in range(bits)], axis=-1), 1)[..., 0, :]


@pytest.fixture(scope="module")
def check(conv_layer, expected, planes):
    def check(
        layer, out_bits, reads, writes, verilog=False, accelerator=ACCELERATOR, order=MODULES
    ):
        static = conv_layer(layer, out_bits)
        kwargs = dict(reads_packed=reads, writes_packed=writes)
        program = compile_conv(static, accelerator, **kwargs)
        codes = layer.act_codes.transpose(0, 2, 3, 1)
        words = side_by_side(codes, layer.act.bits) if reads else planes(layer)
        found = run(program, words, accelerator, verilog, order)
        wanted = expected(layer, static)
        if writes:
            codes, bits = unpack(wanted, static.out_channels), static.out_channels * out_bits
            wanted = side_by_side(codes, out_bits)
            found = found.reshape(wanted.shape)
            found = pack(unpack(found[..., None, :], bits), 1)[..., 0, :]  # Bits behind are any.
        assert np.array_equal(found.reshape(wanted.shape), wanted)
        return program

    return check


@both
@pytest.mark.parametrize("reads, writes", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("out_channels, out_bits", [(32, 2), (96, 2), (40, 3), (8, 8), (160, 3)])
def test_layers(out_channels, out_bits, reads, writes, verilog, random_layer, check):
    encodings = Encoding.symmetric(2), Encoding.unsigned(2)
    options = dict(channels=32, out_channels=out_channels, padding=1)
    program = check(random_layer(0, *encodings, **options), out_bits, reads, writes, verilog)
    setup = next(x for x in program.instructions if isinstance(x, isa.Setup))
    assert setup.words == (3 if reads else 4)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_layer(data, random_layer, kinds, check):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    def encoding():
        return kinds[data.draw(st.sampled_from(sorted(kinds)))](draw(1, 8))

    layer = random_layer(
        draw(0, 99), encoding(), encoding(), channels=4 * draw(1, 30), out_channels=8 * draw(1, 20),
        kernel=draw(1, 3), stride=draw(1, 2), padding=draw(0, 1), batch=draw(1, 2),
        size=(draw(5, 9), draw(5, 9)),
    )  # fmt: skip
    check(layer, draw(1, 4), draw(0, 1), draw(0, 1))


@needs_verilator
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_layer_on_the_verilog(data, random_layer, kinds, check):
    weight, act = (kinds[data.draw(st.sampled_from(sorted(kinds)))] for _ in range(2))
    encodings = weight(data.draw(st.integers(1, 3))), act(data.draw(st.integers(1, 8)))
    channels, out_channels = (8 * data.draw(st.integers(1, 12)) for _ in range(2))
    layer = random_layer(0, *encodings, channels=channels, out_channels=out_channels, padding=1)
    check(layer, data.draw(st.integers(1, 4)), True, True, True)


@pytest.mark.parametrize("order", list(permutations(MODULES)))
def test_tokens_suffice_in_any_order(order, random_layer, check):
    small = replace(ACCELERATOR, act_rows=128, weight_rows=128, param_rows=256, out_rows=256)
    options = dict(channels=32, out_channels=96, size=(15, 9), batch=2, padding=1)
    layer = random_layer(3, Encoding.signed(2), Encoding.unsigned(2), **options)
    check(layer, 2, True, True, accelerator=small, order=order)


def test_depthwise_layers_write_side_by_side(random_layer, check):
    options = dict(channels=96, out_channels=96, groups=96, padding=1)
    check(random_layer(0, Encoding.signed(2), Encoding.unsigned(2), **options), 2, False, True)


def test_what_cannot_be_is_refused(random_layer, conv_layer):
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    for options, out_bits, packed, cause in (
        (dict(channels=10), 2, dict(reads_packed=True), "planes of 10 channels"),
        (dict(channels=64, groups=8, out_channels=64), 2, dict(reads_packed=True), "groups"),
        (dict(out_channels=9), 2, dict(writes_packed=True), "planes of 9 channels"),
        (dict(), 0, dict(writes_packed=True), "accumulators"),
    ):
        with pytest.raises(UnsupportedError, match=cause):
            layer = conv_layer(random_layer(0, *encodings, **options), out_bits)
            compile_conv(layer, ACCELERATOR, **packed)


@needs_verilator
@pytest.mark.parametrize(
    "setup, conv",
    [
        (dict(pixel_rows=1, plane_parts=8), {}),
        (dict(pixel_rows=1, copies=2), {}),
        (dict(pixel_rows=1), dict(bits=0)),
        (dict(pixel_rows=1), dict(out_part=8)),
        (dict(pixel_rows=1, plane_parts=1), dict(bits=2)),  # In front of the out buffer.
        (dict(pixel_rows=63), dict(pixels=80, out_width=80, row_pixels=80, column_high=80)),
    ],
)
def test_wrong_programs_are_flagged(setup, conv):
    fields = dict.fromkeys(("passes", "taps", "pixels", "out_width", "stride_y", "stride_x"), 1)
    fields |= dict(row_pixels=1, row_high=1, column_high=1, bits=1, thresholds=3) | conv
    program = [
        isa.Load(buffer=4, dram=63, rows=1, pixels=1, words=1, push_next=1),
        isa.Setup(**(dict(copies=1) | setup)),
        isa.Conv(pop_prev=1, **fields),
        isa.Finish(),
    ]
    memory = np.zeros(64, np.uint64)
    memory[: 4 * len(program)] = np.concatenate([isa.encode(x) for x in program])
    line = dict(act=0, weight=0, shift=0, ones=0, **isa.ONE_WORD)
    memory[63] = isa.encode_line(line, isa.PASS_FIELDS)
    for simulator in (FunctionalSimulator, VerilatorSimulator):
        machine = simulator(ACCELERATOR, memory.copy())
        run = machine.run_words
        with pytest.raises(AcceleratorError):
            run(0, len(program)) if simulator is FunctionalSimulator else run(len(program))
