"""Tables on planes: every pair of codes, in every lane, for tables that rise along each axis."""

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_bitenc.encoding import pack, unpack
from tvm_bitenc.kernel.lookup import by_sum, lookup_kernel
from tvm_bitenc.te.lookup import packed_lookup


def looked_up(planes, table, bits, channels):
    """What the kernel gives."""
    shapes = [tensor.shape for tensor in planes]
    function = lookup_kernel(shapes, table, bits, channels, parallel=False).function
    result = tvm.runtime.tensor(np.zeros((*shapes[0][:3], bits, shapes[0][4]), np.uint64))
    tensors = [tvm.runtime.tensor(array) for array in (*planes, table)]
    tvm.compile(tvm.IRModule({"main": function}), target="llvm")["main"](*tensors, result)
    return result.numpy()


def check(run_te, table, bits, channels):
    """Compare kernel, definition, and numpy on random codes."""
    rng = np.random.default_rng(table.size)
    sizes = [int(size).bit_length() - 1 for size in table.shape]
    codes = [rng.integers(0, 2**b, (1, 2, 40, channels), dtype=np.uint8) for b in sizes]
    planes, expected = [pack(c, b) for c, b in zip(codes, sizes)], pack(table[tuple(codes)], bits)
    assert np.array_equal(looked_up(planes, table, bits, channels), expected)

    def definition(*tensors):
        return packed_lookup(tensors[:-1], tensors[-1], bits, channels)

    assert np.array_equal(run_te(definition, *planes, table), expected)


def rising_table(rng, shape, top):
    """A random table that rises along each axis, often in jumps."""
    table = rng.integers(0, top + 1, shape)
    for axis in range(len(shape)):
        table = np.maximum.accumulate(table, axis=axis)
    return table.astype(np.uint8)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(1, 4),
    st.integers(1, 130),
    st.integers(0, 2**20),
)
def test_any_rising_table(run_te, first, second, bits, channels, seed):
    shape = (2**first, 2**second) if second else (2**first,)
    table = rising_table(np.random.default_rng(seed), shape, 2**bits - 1)
    check(run_te, table, bits, channels)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("channels", [5, 64, 100])
@pytest.mark.parametrize("first, second", [(2, 2), (4, 4), (1, 3), (3, 2)])
def test_tables_of_sums(first, second, channels, run_te):
    a, b = np.indices((2**first, 2**second))
    table = ((a + b + 3) // 3).clip(0, 7).astype(np.uint8)
    assert np.array_equal(by_sum(table)[a + b], table)
    check(run_te, table, 3, channels)


def test_what_is_no_table_of_sums():
    assert by_sum(np.array([[0, 1], [2, 3]])) is None


def test_bits_behind_the_last_channel_stay_clear():
    """Though code 0 becomes 1."""
    planes = pack(np.zeros((1, 1, 1, 70), np.uint8), 1)
    result = looked_up([planes], np.array([1, 1], np.uint8), 1, 70)
    assert result.reshape(-1).tolist() == [2**64 - 1, 2**6 - 1]
    assert unpack(result, 70).min() == 1
