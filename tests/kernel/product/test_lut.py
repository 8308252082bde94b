"""Indices of weights, and sums over all slots of a vector."""

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.product.lut import TABLE, lut_weights
from tvm_bitenc.kernel.product.lut_plan import GROUP


@pytest.mark.parametrize("slots, vectors", [(2, 1), (2, 4), (4, 1), (4, 2)])
@pytest.mark.parametrize("groups, per_group, out_channels", [(1, 70, 20), (2, 32, 24)])
def test_weights_hold_every_index_once(groups, per_group, out_channels, slots, vectors, conv_layer):
    shape = (out_channels, per_group, 2, 3)
    codes = np.random.default_rng(0).integers(0, 4, shape, dtype=np.uint8)
    inverted = np.arange(out_channels) % 3 == 0
    layer, block = conv_layer(codes, groups=groups), vectors * TABLE
    found = lut_weights(layer, block, slots, inverted)
    codes = codes ^ np.where(inverted, 3, 0).astype(np.uint8)[:, None, None, None]
    of_group = out_channels // groups
    blocks = -(-of_group // block)
    for o, m, i, j in np.ndindex(out_channels, 2, 2, 3):
        which, channel = divmod(o % of_group, block)
        # The first half of a block lies in even bytes, the other half in odd ones.
        half, rest = divmod(channel, block // 2)
        vector, pair = divmod(rest, TABLE // 2)
        for table in range(per_group // GROUP):
            bits = codes[o, table * GROUP : (table + 1) * GROUP, i, j] >> m & 1
            step, slot = divmod(table, slots)
            octet = found[
                o // of_group * blocks + which,
                m,
                i,
                j,
                step // 2,
                vector,
                slot * TABLE + 2 * pair + half,
            ]
            assert octet >> 4 * (step % 2) & 15 == bits @ [1, 2, 4, 8]


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


@pytest.mark.parametrize("channels", [600, 2100])
def test_planes_that_share_no_table(channels, target, random_layer, assert_exact, kernels):
    """So many channels that a pair of bytes holds the sums of a few planes alone."""
    weight, act = Encoding.symmetric(2, 2.0), Encoding.unsigned(8, 2.0)
    layer = random_layer(0, weight, act, channels=channels, out_channels=40, kernel=1, size=(1, 3))
    layer.act_codes[:], layer.weight_codes[:20] = 255, 0
    assert_exact([layer], target=target, strategy="lut")
    assert len({tables.part.planes for tables in kernels[0][0].tables}) > 1
