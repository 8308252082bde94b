"""Residual tables and skipped planes in programs of convolutions."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from tests.vta.cases import both, run
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding, pack, unpack
from tvm_bitenc.vta.compile_layer import compile_conv, output_of
from tvm_bitenc.vta.constants import Constants
from tvm_bitenc.vta.functional import MODULES
from tvm_bitenc.vta.passes import passes_of

ACCELERATOR = Accelerator()
SMALL = Accelerator(act_rows=128, weight_rows=128, param_rows=256, residual_rows=64, out_rows=128)


def rising_table(own_bits, residual_bits, out_bits, seed=0):
    """Any table that rises with the own code, with equal codes and missing ones."""
    shape = (2**own_bits, 2**residual_bits)
    table = np.random.default_rng(seed).integers(0, 2**out_bits, shape)
    table[-1, 0] = 2**out_bits - 1
    return np.sort(table, axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def check_table(conv_layer, expected, planes):
    def check(layer, bits, accelerator=ACCELERATOR, verilog=False, order=MODULES):
        own_bits, residual_bits, out_bits = bits
        static, table = conv_layer(layer, own_bits), rising_table(*bits)
        own = unpack(expected(layer, static), static.out_channels)
        shape = own.shape
        residual = np.random.default_rng(1).integers(0, 2**residual_bits, shape).astype(np.uint8)
        wanted = pack(table[own, residual], out_bits)
        operands = [planes(layer).reshape(-1)]
        if residual_bits:
            operands.append(pack(residual, residual_bits).reshape(-1))
        program = compile_conv(static, accelerator, table)
        words = run(program, np.concatenate(operands), accelerator, verilog, order)
        assert np.array_equal(words.reshape(wanted.shape), wanted)

    return check


@both
@pytest.mark.parametrize("bits", [(1, 1, 1), (2, 2, 2), (2, 3, 4), (3, 1, 2), (4, 4, 3), (3, 0, 2)])
def test_any_table_of_two_codes(bits, verilog, random_layer, check_table):
    encodings = Encoding.signed(2), Encoding.unsigned(2)
    options = dict(channels=5, out_channels=70, padding=1, size=(5, 7))
    check_table(random_layer(0, *encodings, **options), bits, verilog=verilog)


@pytest.mark.parametrize("order", list(permutations(MODULES)))
def test_tokens_suffice_in_any_order(order, random_layer, check_table):
    """Bands and words of the residual need more than two turns of its buffer."""
    encodings = Encoding.signed(1), Encoding.unsigned(2)
    options = dict(channels=9, out_channels=200, padding=1, size=(12, 6))
    check_table(random_layer(0, *encodings, **options), (2, 2, 2), SMALL, order=order)


@both
@pytest.mark.parametrize("ends_in_codes", [False, True])
@pytest.mark.parametrize(
    "codes, kept",
    [((0, 4), [0, 1]), ((4, 8), [0, 1]), ((6, 8), [0]), ((2, 4), [0]), ((0, 8), [0, 1, 2])],
    ids=str,
)
def test_constant_planes_are_skipped(
    codes, kept, ends_in_codes, verilog, random_layer, conv_layer, expected, planes
):
    rng = np.random.default_rng(0)
    layer = random_layer(
        0, Encoding.signed(3), Encoding.unsigned(2), channels=70, padding=1, out_channels=9
    )
    weights = rng.integers(*codes, layer.weight_codes.shape).astype(np.uint8)
    layer = replace(layer, weight_codes=weights)
    static = conv_layer(layer, 2 if ends_in_codes else 0)
    assert Constants(static).weight_planes == kept
    program = compile_conv(static, ACCELERATOR)
    assert program.macs == static.macs * len(kept) * 2
    words = run(program, planes(layer), ACCELERATOR, verilog)
    assert np.array_equal(output_of(static, program, words), expected(layer, static))


def test_no_plane_is_skipped_that_others_need(random_layer, conv_layer):
    """Without the middle one, coefficients of 1-bit activations would have a gap."""
    layer = random_layer(0, Encoding.signed(3), Encoding.symmetric(1))
    weights = np.random.default_rng(0).choice([0, 1, 4, 5], layer.weight_codes.shape)
    for act, kept in ((Encoding.symmetric(1), [0, 1, 2]), (Encoding.unsigned(2), [0, 2])):
        found = replace(layer, act=act, weight_codes=weights.astype(np.uint8))
        constants = Constants(conv_layer(found))
        assert constants.weight_planes == kept
        shifts = sum(run.shift for run in passes_of(constants.layer, kept))
        assert shifts == act.bits + 1
