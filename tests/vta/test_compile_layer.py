"""Programs for the accelerator, on the functional simulator, against encoding.py."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.vta import isa
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.functional import MODULES, FunctionalSimulator

ACCELERATOR = Accelerator()
SMALL = Accelerator(act_rows=128, weight_rows=128, param_rows=256, out_rows=256)


def run(program, planes, accelerator=ACCELERATOR, order=MODULES):
    return program.run(
        planes, lambda memory, n: FunctionalSimulator(accelerator, memory).run_words(0, n, order)
    )


@pytest.fixture(scope="module")
def check(conv_layer, expected, planes):
    def check(layer, out_bits=0, accelerator=ACCELERATOR, order=MODULES):
        static = conv_layer(layer, out_bits)
        program = compile_conv(static, accelerator)
        words = run(program, planes(layer), accelerator, order)
        assert np.array_equal(output_of(static, program, words), expected(layer, static))
        return program

    return check


WINDOWS = [
    dict(padding=1),
    dict(padding=(2, 0, 1, 3), stride=(2, 1), kernel=(3, 2)),
    dict(padding=2, dilation=(1, 2), stride=2),
    dict(padding=4, size=(1, 2)),
    dict(kernel=1, size=(9, 11), stride=3),
    dict(kernel=7, padding=3, stride=2, size=(17, 19)),
]


@pytest.mark.parametrize("out_bits", [0, 2])
@pytest.mark.parametrize("kind", ["symmetric", "unsigned", "signed"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(window, kind, out_bits, random_layer, kinds, check):
    encodings = Encoding.symmetric(2), kinds[kind](2)
    check(random_layer(0, *encodings, channels=70, out_channels=13, **window), out_bits)
    check(random_layer(0, *reversed(encodings), channels=5, out_channels=9, **window), out_bits)


@pytest.mark.parametrize("weight_bits", range(1, 9))
@pytest.mark.parametrize("act_bits", range(1, 9))
def test_bits(weight_bits, act_bits, random_layer, check):
    layer = random_layer(
        1, Encoding.signed(weight_bits), Encoding.unsigned(act_bits), channels=3, padding=1
    )
    check(layer)
    check(layer, out_bits=act_bits)


def test_ternary_and_offsets_of_each_channel(random_layer, check):
    weight = Encoding(2, 1.0, np.arange(8) / 2)
    check(random_layer(2, weight, Encoding.ternary(), padding=1), 3)
    check(random_layer(2, Encoding.ternary(), Encoding.signed(3), padding=1), 1)


@pytest.mark.parametrize("coefficients", [(1, 1, 1), (2, 1, 4), (1, 2, 4, 2, 1)], ids=str)
def test_thermometers_of_steps_that_are_powers_of_two(coefficients, random_layer, check):
    """Codes that no number gets add up as well."""
    act = Encoding(len(coefficients), 1.0, 1.5, coefficients)
    check(random_layer(3, Encoding.symmetric(2), act, channels=70, padding=1), 2)
    check(random_layer(4, Encoding(3, 1.0, 2.0, (2, 1, 1)), act, padding=1))


@pytest.mark.parametrize("coefficients", [(3, 4, 5), (1, 4), (7, 9, 200)], ids=str)
def test_weights_of_any_levels(coefficients, random_layer, check):
    """Weights are known, so their planes are made to be powers of two."""
    weight = Encoding(len(coefficients), 1.0, 2.5, coefficients)
    check(random_layer(5, weight, Encoding.unsigned(1), channels=20, padding=1), 3)
    check(random_layer(6, weight, Encoding.ternary(), padding=1))


@pytest.mark.parametrize("order", list(permutations(MODULES)))
def test_tokens_suffice_in_any_order(order, random_layer, check):
    """Bands, groups and stored words each need more than two turns of their buffers."""
    layer = random_layer(
        3, Encoding.signed(2), Encoding.unsigned(2), channels=70, out_channels=200, batch=2,
        size=(15, 9), padding=1,
    )  # fmt: skip
    program = check(layer, 2, SMALL, order)
    convs = [x for x in program.instructions if isinstance(x, isa.Conv)]
    assert len(convs) == 2 * 3 * 25


def test_one_group_of_channels_in_many_bands(random_layer, check):
    layer = random_layer(
        4, Encoding.symmetric(1), Encoding.symmetric(2), channels=130, size=(30, 9), padding=1
    )
    for order in permutations(MODULES):
        check(layer, 0, SMALL, order)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    bits=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.tuples(st.integers(1, 130), st.integers(1, 80)),
    size=st.tuples(st.integers(5, 20), st.integers(5, 20)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    out_bits=st.integers(0, 3),
)
def test_any_layer(random_layer, check, seed, bits, channels, out_bits, **window):
    encodings = Encoding.signed(bits[0]), Encoding.symmetric(bits[1])
    in_channels, out_channels = channels
    check(
        random_layer(
            seed, *encodings, channels=in_channels, out_channels=out_channels, batch=2, **window
        ),
        out_bits,
    )


@pytest.mark.parametrize("order", list(permutations(MODULES)))
@pytest.mark.parametrize("buffer, rows", [("weight", 40), ("act", 40)])
def test_what_fits_a_buffer_but_not_its_half_is_loaded_in_between(
    buffer, rows, order, random_layer, conv_layer, check
):
    layer = random_layer(
        6, Encoding.signed(2), Encoding.unsigned(2), channels=70, out_channels=150, size=(9, 9),
        padding=1,
    )  # fmt: skip
    accelerator = replace(ACCELERATOR, **{f"{buffer}_rows": rows})
    check(layer, 2, accelerator, order)
    check(layer, 0, accelerator, order)


def test_weights_are_loaded_once_per_band(random_layer, check):
    layer = random_layer(5, Encoding.signed(2), Encoding.unsigned(2), out_channels=64, size=(14, 9))
    program = check(layer, 2)
    loads = [x for x in program.instructions if isinstance(x, isa.Load) and x.buffer == 1]
    assert len(loads) == 8 and len({x.dram for x in loads}) == 8


def test_refusals(random_layer, conv_layer):
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    for channels, groups, cause in (
        (6, 2, "groups read 3"),
        (32, 8, "read 4 channels and write 2"),
    ):
        layer = random_layer(0, *encodings, channels=channels, out_channels=16, groups=groups)
        with pytest.raises(UnsupportedError, match=cause):
            compile_conv(conv_layer(layer), ACCELERATOR)
    with pytest.raises(UnsupportedError, match=r"coefficients \[3, 6\] of its branches"):
        act = Encoding(2, 1.0, 0.0, coefficients=(1, 3))
        compile_conv(conv_layer(random_layer(0, encodings[0], act)), ACCELERATOR)
    small = conv_layer(random_layer(0, *encodings, channels=70, padding=1))
    for buffer in ("act", "weight", "param", "out"):
        with pytest.raises(UnsupportedError, match=f"accelerator's {buffer} buffer"):
            compile_conv(small, replace(ACCELERATOR, **{f"{buffer}_rows": 4}))


@pytest.mark.parametrize("channels, size", [(8, 8), (2, 8), (16, 2)])
def test_accumulators_that_fit_have_16_bits(channels, size, random_layer, check):
    accelerator = Accelerator(channels=channels, pixels=size)
    for weight_bits, is_narrow in ((1, True), (8, False)):
        encodings = Encoding.symmetric(weight_bits), Encoding.unsigned(2)
        layer = random_layer(0, *encodings, channels=70, out_channels=13, padding=1)
        program = check(layer, 0, accelerator)
        assert program.outputs[0].narrow == (is_narrow and channels >= 4)
        assert {x.narrow for x in program.instructions if isinstance(x, isa.Conv)} == {
            int(program.outputs[0].narrow)
        }
