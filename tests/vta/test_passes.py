"""Branches whose coefficients are powers of two, one pass after another."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.functional import FunctionalSimulator
from tvm_bitenc.vta.passes import Branch, Pass, passes_of, without_gaps
from tvm_bitenc.vta.verilator import VerilatorSimulator

ACCELERATOR = Accelerator()
DIAGONAL = np.diag(2 ** np.arange(8))


def test_passes_fall_to_the_coefficient_one(random_layer, conv_layer):
    layer = conv_layer(random_layer(0, Encoding.signed(2), Encoding.unsigned(2)))
    assert passes_of(layer) == [
        Pass(1, (1,), False, False),
        Pass(1, (0,), True, True),
        Pass(0, (1,), False, False),
        Pass(0, (0,), True, True),
    ]
    assert passes_of(layer, side_by_side=True) == [
        Pass(1, (1,), False, False),
        Pass(0, (1,), True, False),
        Pass(1, (0,), False, True),
        Pass(0, (0,), True, True),
    ]
    assert passes_of(layer, side_by_side=True, needs_ones=False) == [
        Pass(1, (1,), False, False),
        Pass(0, (1, 0), True, False),
        Pass(0, (0,), True, False),
    ]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_split_powers_leave_no_gap_and_the_same_sum(exponents):
    found = without_gaps(Branch(e, i, 0) for i, e in enumerate(exponents))
    levels = {branch.exponent for branch in found}
    assert levels == set(range(max(levels) + 1))
    for i, e in enumerate(exponents):
        assert sum(2**b.exponent for b in found if b.weight == i) == 2**e


def functional(memory, count):
    return FunctionalSimulator(ACCELERATOR, memory).run_words(0, count)


def verilog(memory, count):
    return VerilatorSimulator(ACCELERATOR, memory).run_words(count)


def run(layer, static, planes, simulate=functional):
    program = compile_conv(static, ACCELERATOR)
    words = program.run(planes(layer), simulate)
    return program, output_of(static, program, words)


@pytest.mark.parametrize("out_bits", [0, 3])
def test_bit_planes_of_an_image(out_bits, random_layer, conv_layer, expected, planes):
    """Eight passes, where W8A8 has 64."""
    layer = random_layer(
        0, Encoding.symmetric(8), Encoding(8, 1.0, 127), channels=3, padding=1, branches=DIAGONAL
    )
    static = conv_layer(layer, out_bits)
    program, found = run(layer, static, planes)
    assert np.array_equal(found, expected(layer, static))
    assert len(passes_of(static)) == 8 and program.macs == 8 * static.macs


POWERS = st.sampled_from([0, 0, 1, 2, 4, 16, -1, -2, -8])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    matrix=st.lists(st.lists(POWERS, min_size=3, max_size=3), min_size=2, max_size=2),
    zero_point=st.integers(0, 14),
    padding=st.integers(0, 2),
    out_bits=st.integers(0, 2),
)
def test_any_matrix_of_powers_of_two(
    random_layer, conv_layer, expected, planes, seed, matrix, zero_point, padding, out_bits
):
    if not np.any(matrix):
        return
    act = Encoding(3, 1.0, zero_point / 2)
    layer = random_layer(
        seed, Encoding.symmetric(2), act, channels=70, padding=padding, branches=matrix
    )
    static = conv_layer(layer, out_bits)
    assert np.array_equal(run(layer, static, planes)[1], expected(layer, static))


def test_weight_offsets_count_the_ones_of_planes(random_layer, conv_layer, expected, planes):
    weight, act = Encoding(2, 1.0, np.arange(8) / 2), Encoding.unsigned(3)
    counted, others = [[1, 0, 4], [0, 2, 0]], [[1, 0, 4], [0, 16, 0]]
    layer = random_layer(1, weight, act, padding=1, branches=counted)
    static = conv_layer(layer)
    assert np.array_equal(run(layer, static, planes)[1], expected(layer, static))
    with pytest.raises(UnsupportedError, match=r"count activation planes \[2\] otherwise"):
        compile_conv(conv_layer(random_layer(1, weight, act, branches=others)), ACCELERATOR)


@pytest.mark.slow
@pytest.mark.parametrize(
    "matrix", [[[1, -2, 0], [0, 4, -16]], [[8, 0, 0], [0, 0, 1]], [[-1, -1, -1], [-2, -2, -2]]]
)
def test_the_verilog(matrix, random_layer, conv_layer, expected, planes):
    encodings = Encoding.symmetric(2), Encoding.unsigned(3)
    layer = random_layer(0, *encodings, channels=70, padding=1, branches=matrix)
    static = conv_layer(layer, 2)
    assert np.array_equal(run(layer, static, planes, verilog)[1], expected(layer, static))


def test_other_coefficients_are_refused(random_layer, conv_layer):
    encodings = Encoding.symmetric(2), Encoding.unsigned(2)
    layer = random_layer(0, *encodings, branches=[[1, -3], [0, 5]])
    with pytest.raises(UnsupportedError, match=r"coefficients \[-3, 5\] of its branches"):
        compile_conv(conv_layer(layer), ACCELERATOR)
    far = conv_layer(random_layer(0, *encodings, branches=[[1, 0], [0, 16]]))
    with pytest.raises(UnsupportedError, match="5 passes of 4"):
        compile_conv(far, replace(ACCELERATOR, pass_rows=4))
