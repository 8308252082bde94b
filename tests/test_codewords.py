"""Layers of few kernels, and what they are stored in."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workloads import codeword_codes
from tvm_bitenc.codewords import MAX_CODEWORDS, MIN_READERS, any_codes, codewords_of
from tvm_bitenc.layer import BranchGeometry, ConvLayer


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, MAX_CODEWORDS),
    st.integers(1, 4),
    st.sampled_from([(2, 2), (1, 5), (3, 3)]),
)
def test_kernels_are_their_codewords(seed, count, bits, kernel_size):
    shape = (16, 32, *kernel_size)
    codes = codeword_codes(count)(np.random.default_rng(seed), shape, bits)
    found = codewords_of(codes, bits)
    kernels = found.kernels[found.index].reshape(shape)
    assert np.array_equal(kernels, codes) and kernels.dtype == found.index.dtype == np.uint8
    assert len(found.kernels) == len(np.unique(codes.reshape(16 * 32, -1), axis=0))
    assert len(found.kernels) <= 1 << found.index_bits


def test_sizes_alone_make_no_codewords():
    assert codewords_of(any_codes((64, 64, 3, 3), 1), 1) is None


def random_codes(*shape, bits=1):
    return np.random.default_rng(0).integers(0, 2**bits, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "codes, bits",
    [
        (random_codes(64, 64, 3, 3), 1),  # All 512 kernels.
        (random_codes(64, 64, 1, 3), 1),  # Too few taps.
        (random_codes(64, 64, 2, 5) * 0, 1),  # Too many.
        (random_codes(64, 64, 3, 3) * 0, 7),  # Bits that no key holds.
        (random_codes(2, 3, 3, 3), 1),  # As many codewords as kernels.
    ],
)
def test_layers_without_codewords(codes, bits):
    assert codewords_of(codes, bits) is None


def test_how_many_there_may_be():
    """Codewords beyond the first kernels that are looked at count, too."""
    kernels = random_codes(MAX_CODEWORDS + 1, 3, 3, bits=2)
    codes = np.tile(kernels[:MAX_CODEWORDS], (2 * MIN_READERS, 16, 1, 1))
    codes = codes.reshape(-1, MAX_CODEWORDS, 3, 3)
    assert len(codewords_of(codes, 2).kernels) == MAX_CODEWORDS
    codes[-1, -1] = kernels[-1]
    assert codewords_of(codes, 2) is None


RESNET_18 = [  # 3x3 layers: channels in and out, output size, how many.
    *((64, 64, 56, 4), (64, 128, 28, 1), (128, 128, 28, 3), (128, 256, 14, 1)),
    *((256, 256, 14, 3), (256, 512, 7, 1), (512, 512, 7, 3)),
]


@pytest.mark.parametrize(
    "count, share, bit_operations", [(16, 0.46, 0.297e9), (32, 0.58, 0.501e9), (64, 0.69, 0.883e9)]
)
def test_sizes_and_operations_of_resnet18(count, share, bit_operations):
    """What was published for its 3x3 layers at 0.44, 0.56 and 0.67 bits a weight."""
    stored = plain = operations = 0
    for in_channels, out_channels, size, times in RESNET_18:
        shape = (out_channels, in_channels, 3, 3)
        codes = codeword_codes(count)(np.random.default_rng(count), shape, 1)
        planes = BranchGeometry((1,), (1,), 0, padding=(1, 1, 1, 1))
        offset = np.zeros(out_channels, np.int32)
        layer = ConvLayer("conv", (1, size, size, in_channels), codes, offset, planes)
        coded = dataclasses.replace(layer, strategy="codebook")
        assert layer.stored_bytes * 8 == codes.size and layer.bit_operations == layer.macs
        plain += times * layer.stored_bytes
        stored += times * coded.stored_bytes
        operations += times * coded.bit_operations
    assert stored <= share * plain
    assert operations == pytest.approx(bit_operations, rel=0.005)
