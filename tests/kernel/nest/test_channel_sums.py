"""Kernels whose output channels read sums by number, against the integers of the reference."""

import pytest

from tests.kernel.cases import codes_of, in_any_order, of_branches, steps_of, thresholded
from tvm_bitenc.kernel.nest.channel_sums import block_of
from tvm_bitenc.strategy import STRATEGIES

pytestmark = pytest.mark.usefixtures("always_shared")


@pytest.mark.parametrize(
    "channels, block", [(1, 8), (8, 8), (12, 16), (40, 8), (64, 64), (96, 32), (130, 8)]
)
def test_blocks_leave_few_lanes_over(channels, block):
    assert block_of(channels) == block


def are_read_by_number(kernels):
    """Whether all kernels sum fewer rows than there are output channels."""
    pairs = [(p.layer.out_channels, e.layer.out_channels) for p, e in kernels]
    return bool(pairs) and all(rows < channels for rows, channels in pairs)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_floats(strategy, target, random_layer, assert_exact, kernels):
    assert_exact(in_any_order(random_layer), target=target, strategy=strategy)
    assert are_read_by_number(kernels)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_integers(strategy, target, random_layer, module_of, outputs_of, same, kernels):
    layers = [layer for layer in in_any_order(random_layer) if layer.weight_codes.ndim == 4]
    inputs = [layer.act_codes for layer in layers]
    outputs = outputs_of(of_branches(layers, module_of), inputs, target=target, strategy=strategy)
    assert [same(y, x.accumulators()) for x, y in zip(layers, outputs)] == [True] * len(layers)
    assert are_read_by_number(kernels)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_codes(strategy, bits, target, random_layer, module_of, outputs_of, same, kernels):
    """Thresholds differ from channel to channel, and so do the directions in which codes rise."""
    layers = [layer for layer in in_any_order(random_layer) if layer.weight_codes.ndim == 4]
    cases = [(x, *steps_of(x, bits, i % 2 == 0, i)) for i, x in enumerate(layers)]
    inputs = [x.act_codes for x in layers]
    outputs = outputs_of(thresholded(cases, module_of), inputs, target=target, strategy=strategy)
    assert [same(out, codes_of(*case)) for out, case in zip(outputs, cases)] == [True] * len(cases)
    assert are_read_by_number(kernels)
