"""How planes share tables, and sums over all slots of a vector."""

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.lut import GROUP, MAX_ENTRY_SUM, MAX_PAIR_SUM, parts_of


@pytest.mark.parametrize("groups", [4, 32, 128, 1024])
@pytest.mark.parametrize("bits", range(1, 9))
def test_parts_cover_every_plane_and_fit(bits, groups):
    coefficients = [2**b for b in range(bits)]
    parts = parts_of(coefficients, groups)
    assert [k for part in parts for k in part.planes] == list(range(bits))
    assert [part.factor * c for part in parts for c in part.coefficients] == coefficients
    for part in parts:
        assert part.most == GROUP * sum(part.coefficients)
        assert 2 * part.most <= MAX_ENTRY_SUM and part.most * groups <= MAX_PAIR_SUM


def test_few_bits_share_one_table():
    assert len(parts_of([1, 2, 4, 8], 16)) == 1 and len(parts_of([1, 2, 4, 8, 16, 32], 16)) == 2


def test_every_slot_and_channel_counts_once(target, random_layer, assert_exact):
    """One weight differs per output channel, so a lost or swapped slot shows."""
    one = Encoding.symmetric(1, 2.0)
    layers = []
    for out_channels in (16, 32, 48, 64):
        layer = random_layer(
            0, one, one, channels=64, out_channels=out_channels, size=(2, 5), kernel=1
        )
        layer.weight_codes[:] = 0
        layer.weight_codes[np.arange(out_channels), np.arange(out_channels)] = 1
        layers.append(layer)
    assert_exact(layers, strategy="lut", target=target)
