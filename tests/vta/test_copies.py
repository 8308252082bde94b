"""Output channels that share weights: each sum once, on both simulators, and what it costs."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tvm_bitenc as be
from tests.vta.cases import both, needs_verilator, run
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding, pack
from tvm_bitenc.nn import QConv2d
from tvm_bitenc.simulate.sample import sample_layer
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.counters import predicted
from tvm_bitenc.vta.functional import MODULES, AcceleratorError, FunctionalSimulator

ACCELERATOR = Accelerator()
SMALL = Accelerator(act_rows=128, weight_rows=128, param_rows=256, out_rows=256)


def copied(static, copies: int, out_bits: int, seed: int = 0):
    """The layer with so many times the output channels, each with thresholds of its own."""
    if not out_bits:
        return replace(static, copies=copies)
    rng, channels = np.random.default_rng(seed), copies * len(static.weight_codes)
    low, high = int(static.thresholds.min()), int(static.thresholds.max())
    thresholds = np.sort(rng.integers(low - 1, high + 2, (2**out_bits - 1, channels)), axis=0)
    direction = rng.choice([-1, 1], channels).astype(np.int32)
    return replace(
        static, copies=copies, thresholds=thresholds.astype(np.int32), direction=direction
    )


@pytest.fixture(scope="module")
def check(conv_layer, planes):
    def check(layer, copies, out_bits, accelerator=ACCELERATOR, verilog=False, order=MODULES):
        static = copied(conv_layer(layer, out_bits), copies, out_bits)
        acc = np.tile(layer.accumulators().transpose(0, 2, 3, 1), copies)
        if out_bits:
            reached = (acc * static.direction)[..., None, :] >= static.thresholds
            acc = pack(reached.sum(axis=-2).astype(np.uint8), out_bits)
        program = compile_conv(static, accelerator)
        words = run(program, planes(layer), accelerator, verilog, order)
        assert np.array_equal(output_of(static, program, words), acc)
        return program

    return check


def copies_of(program) -> int:
    return next(x.copies for x in program.instructions if isinstance(x, isa.Setup))


@both
@pytest.mark.parametrize(
    "distinct, copies, out_bits, shared",
    [
        (8, 2, 2, 2), (16, 4, 1, 4), (8, 16, 3, 16), (8, 20, 1, 10), (64, 3, 2, 3), (128, 2, 1, 2),
        (32, 5, 4, 5), (24, 8, 1, 1), (96, 2, 1, 1), (48, 4, 2, 1), (5, 8, 2, 1), (8, 4, 7, 2),
        (24, 3, 0, 1), (5, 4, 0, 1), (64, 32, 0, 1),
    ],
)  # fmt: skip
def test_sums_are_made_once(distinct, copies, out_bits, shared, verilog, random_layer, check):
    """As far as copies lie equally in their words; accumulators are written once."""
    encodings = Encoding.signed(2), Encoding.unsigned(1)
    options = dict(channels=5, out_channels=distinct, size=(4, 5), padding=1)
    program = check(random_layer(0, *encodings, **options), copies, out_bits, verilog=verilog)
    groups = -(-distinct * copies // shared // 8) if out_bits else -(-distinct // 8)
    assert copies_of(program) == shared
    assert sum(isinstance(x, isa.Conv) for x in program.instructions) == groups
    weights = [x for x in program.instructions if isinstance(x, isa.Load) and x.buffer == 1]
    assert len({x.dram for x in weights}) == groups


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_layer(data, random_layer, check):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    out_bits, distinct = draw(0, 3), data.draw(st.sampled_from([8, 16, 24, 32, 64, 128]))
    window = dict(size=(draw(3, 12), draw(3, 12)), kernel=(draw(1, 3), draw(1, 3)))
    window |= dict(stride=(draw(1, 2), draw(1, 2)), padding=draw(0, 1), batch=draw(1, 2))
    encodings = Encoding.signed(draw(1, 3)), Encoding.symmetric(draw(1, 3))
    layer = random_layer(
        draw(0, 99), *encodings, channels=draw(1, 130), out_channels=distinct, **window
    )
    check(layer, draw(1, 6), out_bits)


@needs_verilator
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_layer_on_the_verilog(data, random_layer, check):
    out_bits, copies = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 16))
    distinct = data.draw(st.sampled_from([8, 16, 32, 64]))
    assume(distinct * copies <= 256)
    encodings = Encoding.signed(1), Encoding.unsigned(data.draw(st.integers(1, 2)))
    layer = random_layer(data.draw(st.integers(0, 99)), *encodings, out_channels=distinct,
                         channels=3, size=(5, 5), padding=1)  # fmt: skip
    check(layer, copies, out_bits, verilog=True)


@pytest.mark.parametrize("order", list(permutations(MODULES)))
def test_tokens_suffice_in_any_order(order, random_layer, check):
    """Words of all copies, in bands, need more than two turns of their buffers."""
    encodings, options = (Encoding.signed(1), Encoding.unsigned(1)), dict(channels=70, padding=1)
    layer = random_layer(3, *encodings, out_channels=128, size=(15, 9), batch=2, **options)
    assert copies_of(check(layer, 3, 1, SMALL, order=order)) == 3


@needs_verilator
@pytest.mark.slow  # Verilator builds other machines.
@pytest.mark.parametrize("size", [(16, 4), (2, 2)])
def test_other_array_sizes(size, random_layer, check):
    encodings, accelerator = (Encoding.signed(1), Encoding.unsigned(2)), Accelerator(*size)
    for distinct in (16, 64):
        layer = random_layer(3, *encodings, out_channels=distinct, padding=1)
        assert copies_of(check(layer, 4, 2, accelerator, verilog=True)) == 4


def test_cycles_fall_as_often_as_weights_repeat():
    """Those of the array; filling its buffers and storing what it made stay."""
    plain, shared = (
        predicted(compile_conv(sample_layer(layer, "W1A1"), ACCELERATOR), ACCELERATOR)
        for layer in ("3x3 256->256 @14", "3x3 256->256 @14 tiles=4")
    )
    assert plain.steps == 4 * shared.steps
    assert plain.compute / shared.compute > 3.85 and plain.cycles / shared.cycles > 3.1


def test_copies_that_cannot_be_are_refused():
    simulator = FunctionalSimulator(ACCELERATOR, np.zeros(64, np.uint64))
    for wrong in (dict(copies=0), dict(copies=17), dict(copies=1, copy_parts=9)):
        with pytest.raises(AcceleratorError, match="copies"):
            simulator.run([isa.Setup(**wrong), isa.Finish()])
    sizes = dict.fromkeys(("passes", "taps", "pixels", "out_width", "row_pixels"), 1)
    sizes |= dict.fromkeys(("stride_y", "stride_x", "row_high", "column_high"), 1)
    for wrong in (isa.Conv(**sizes), isa.Pool(**sizes), isa.Conv(**sizes, bits=1, residual_bits=1)):
        with pytest.raises(AcceleratorError, match="copies of what isn't codes alone"):
            simulator.run([isa.Setup(copies=2), wrong, isa.Finish()])


@pytest.mark.parametrize("ends_in_codes", [True, False])
def test_tiles_of_torch(ends_in_codes, same):
    """The pass that finds them runs in front of the accelerator's."""
    torch.manual_seed(0)
    options = dict(weight_bits=1, act_bits=1, bias=False)
    layers = [QConv2d(8, 64, 3, padding=1, tiles=4, **options)]
    if ends_in_codes:
        layers += [torch.nn.BatchNorm2d(64), QConv2d(64, 8, 1, **options)]
    model, x = torch.nn.Sequential(*layers).eval(), torch.randn(2, 8, 4, 4)
    mod = be.from_torch(model, (x,))
    lib = be.build(mod, target="vta")
    first = lib.report().layers[0]
    assert first.strategy == "vta" and "tiles=4" in first.shape
    assert first.bit_operations == first.macs // 4 == first.work.binary_macs
    assert same(lib(x), be.build(mod, threads=1, pipeline=no_lowering)(x))
