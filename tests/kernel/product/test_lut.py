"""How planes share tables, and sums over all slots of a vector."""

import numpy as np
import pytest
import tvm
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.kernel.product.lookup_sums import add_slots
from tvm_bitenc.kernel.product.lut import TABLE, lut_weights
from tvm_bitenc.kernel.product.lut_plan import GROUP, MAX_ENTRY_SUM, MAX_PAIR_SUM, parts_of
from tvm_bitenc.kernel.tir import flat, load, store


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


@pytest.mark.parametrize("slots", [2, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_slots_are_added_up(count, slots):
    width = TABLE // 2
    lanes = slots * width
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        x = T.arg("x", T.buffer((count * lanes,), "uint16"))
        y = T.arg("y", T.buffer((count * width,), "uint16"))
        source, target = flat(x, count * lanes, "uint16"), flat(y, count * width, "uint16")
        vectors = [T.Bind(load(source, i * lanes, lanes)) for i in range(count)]
        store(target, add_slots(vectors, lanes, slots), 0, count * width)
    values = np.random.default_rng(0).integers(0, 2**14, (count, slots, width), dtype=np.uint16)
    result = tvm.runtime.tensor(np.zeros(count * width, np.uint16))
    library = tvm.compile(tvm.IRModule({"main": builder.get()}), target="llvm")
    library["main"](tvm.runtime.tensor(values.reshape(-1)), result)
    assert np.array_equal(result.numpy(), values.sum(axis=1, dtype=np.uint16).reshape(-1))


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
