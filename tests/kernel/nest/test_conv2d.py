"""Kernels whose output channels share sums, or whose input rows roll through a buffer."""

import itertools
from dataclasses import fields, replace

import pytest

from tests.kernel.cases import codes_of, layer_of, repeated, steps_of, thresholded
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.nest.geometry import NEAR_BITS, can_roll
from tvm_bitenc.kernel.nest.tile import Tile
from tvm_bitenc.op.packed import conv_layer_of, packed_conv2d_op
from tvm_bitenc.op.registration import is_call_to
from tvm_bitenc.schedule import find_space, isa_of
from tvm_bitenc.transform import default_pipeline
from tvm_bitenc.transform.visit import visit_calls

WEIGHTS = {"symmetric": Encoding.symmetric, "with sums of activations": Encoding.signed}
STRATEGIES = ["xnor", "lut", "int8"]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_floats(strategy, weight, target, random_layer, assert_exact):
    assert_exact(repeated(random_layer, WEIGHTS[weight]), target=target, strategy=strategy)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_codes(strategy, bits, target, random_layer, module_of, outputs_of, same, kernels):
    """Thresholds differ from copy to copy, and so do the directions in which codes rise."""
    layers = [layer for layer in repeated(random_layer) if layer.weight_codes.ndim == 4]
    cases = [(x, *steps_of(x, bits, i % 2 == 0, i)) for i, x in enumerate(layers)]
    inputs = [x.act_codes for x in layers]
    outputs = outputs_of(thresholded(cases, module_of), inputs, target=target, strategy=strategy)
    assert [same(out, codes_of(*case)) for out, case in zip(outputs, cases)] == [True] * len(cases)
    made = {(product.layer.out_channels, epilogue.layer.copies) for product, epilogue in kernels}
    assert {(64, 4), (16, 3), (64, 2)} <= made


def test_a_tile_is_of_one_copy(target, random_layer, layers_module):
    """Tuned tiles, too: 24 channels are blocks of 8, not of 16."""
    passes, found = default_pipeline(target, "xnor").until("bitenc.Schedule"), []

    def note(call, _graph):
        if is_call_to(call, packed_conv2d_op):
            found.append(call)

    visit_calls(passes.run(layers_module(repeated(random_layer)[2:3])), note)
    layer, space = conv_layer_of(found[0]), find_space(found[0], target)
    names = [field.name for field in fields(Tile)]
    tiles = [Tile(*values) for values in itertools.product(*(space.knobs[n] for n in names))]
    legal = [tile for tile in tiles if space.allows(tile)]
    assert len(layer.weight_codes) == 24 and legal
    assert None not in [space.kernel(tile) for tile in legal[:: len(legal) // 5]]
    lanes = isa_of(target).vector_bytes // 8
    assert {tile.vectors * lanes for tile in legal} == {8}
    assert not space.allows(replace(space.default, vectors=16 // lanes))


# Windows that overlap by one row, by two, by none of an odd number; rows with gaps; channels of
# several blocks, and of groups.
ROLLING = [
    dict(channels=70, out_channels=100, padding=1),
    dict(channels=64, out_channels=64, padding=1, stride=2, batch=2),
    dict(channels=24, out_channels=32, kernel=(5, 3), padding=(2, 1, 2, 1), stride=(3, 1)),
    dict(channels=40, out_channels=64, kernel=(3, 2), dilation=2, padding=2),
    dict(channels=256, out_channels=128, kernel=(2, 2), padding=1, groups=2),
]


@pytest.mark.sweep(2)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bits", [(1, 2), (2, 2), (3, 1)], ids=str)
def test_rows_that_roll(bits, threads, target, random_layer, assert_exact, kernels):
    """Rows of tables are made once, and the last ones take the place of the first."""
    weight, act = (Encoding.symmetric(count, 2.0) for count in bits)
    layers = [random_layer(i, weight, act, size=(12, 9), **x) for i, x in enumerate(ROLLING)]
    assert_exact(layers, target=target, strategy="lut", threads=threads)
    assert {product.rolls for product, _ in kernels if product.tile.rows > 1} == {True}


def test_rows_that_stay(random_layer, assert_exact, target, kernels):
    """Where sums of activations count as well, which are made for all rows at once."""
    weight, act = Encoding.signed(2, 2.0), Encoding.unsigned(2, 2.0)
    layer = random_layer(0, weight, act, channels=70, out_channels=64, padding=1, size=(12, 9))
    assert_exact([layer], target=target, strategy="lut")
    assert [product.rolls for product, _ in kernels] == [False]


def test_which_rows_roll():
    layer = layer_of((2, 2), 64)
    assert can_roll(layer, 14) and can_roll(layer, 2) and not can_roll(layer, 1)
    assert not can_roll(layer_of((2, 2), 64, kernel=(1, 3)), 14)
    assert not can_roll(layer_of((2, 2), 64, kernel=(2, 2), strides=(2, 2)), 7)
    assert not can_roll(layer_of((2, 2), 64, size=4), 2)  # Sixteen pixels in all.
    wide = layer_of((2, 2), 512, 512)
    assert wide.weight_codes.size * 2 > NEAR_BITS and not can_roll(wide, 14)
