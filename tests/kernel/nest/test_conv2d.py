"""Kernels whose output channels share sums, against the integers of the reference."""

import itertools
from dataclasses import fields, replace

import pytest

from tests.kernel.cases import codes_of, repeated, steps_of, thresholded
from tvm_bitenc.encoding import Encoding
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
