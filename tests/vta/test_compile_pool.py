"""Max pooling programs against numpy, on both simulators."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vta.cases import needs_verilator, run
from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.branches import BranchGeometry
from tvm_bitenc.encoding import pack
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.vta.compile_pool import compile_pool
from tvm_bitenc.vta.functional import MODULES
from tvm_bitenc.vta.tiling import Window

ACCELERATOR = Accelerator()
SMALL = Accelerator(act_rows=128, weight_rows=128, param_rows=256, out_rows=64)


def window_of(codes, bits, kernel, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)):
    _, height, width, channels = codes.shape
    geometry = BranchGeometry((), (), 0, strides, padding, dilation)
    size = (geometry.out_size(height, kernel[0], 0), geometry.out_size(width, kernel[1], 1))
    words = -(-channels // 64) * bits
    return Window("pool", codes.shape, size, kernel, geometry, words, bits, 0, bits)


def reference(codes, window):
    (top, left, bottom, right), strides = window.geometry.padding, window.geometry.strides
    padded = np.pad(codes, [(0, 0), (top, bottom), (left, right), (0, 0)])
    step_y, step_x = window.geometry.dilation
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel_size, window.geometry.dilation)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :, ::step_y, ::step_x]
    return pack(windows.max(axis=(-2, -1)), window.act_bits)


def check(bits, shape, accelerator=ACCELERATOR, order=MODULES, verilog=False, **options):
    codes = np.random.default_rng(0).integers(0, 2**bits, shape).astype(np.uint8)
    window = window_of(codes, bits, **options)
    program = compile_pool(window, accelerator)
    expected = reference(codes, window)
    found = run(program, pack(codes, bits), accelerator, verilog, order)
    assert np.array_equal(found.reshape(expected.shape), expected)


WINDOWS = [
    dict(kernel=(2, 2), strides=(2, 2)),
    dict(kernel=(3, 3), strides=(2, 2), padding=(1, 1, 1, 1)),
    dict(kernel=(3, 2), strides=(1, 3), padding=(1, 0, 0, 1), dilation=(2, 1)),
]


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(window, bits):
    check(bits, (2, 9, 11, 70), **window)


@needs_verilator
@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows_on_verilog(window, bits):
    check(bits, (2, 9, 11, 70), verilog=True, **window)


@pytest.mark.parametrize("order", list(permutations(MODULES)))
def test_tokens_suffice_in_any_order(order):
    """Bands and words need more than two turns of their buffers."""
    check(2, (2, 19, 7, 200), SMALL, order, **WINDOWS[1])


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(1, 4),
    size=st.tuples(st.integers(4, 15), st.integers(4, 15)),
    channels=st.integers(1, 130),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 1)] * 4),
)
def test_any_window(bits, size, channels, **window):
    check(bits, (1, *size, channels), **window)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UnsupportedError, match="accelerator's act buffer"):
        check(8, (1, 3, 99, 999), **WINDOWS[0])
