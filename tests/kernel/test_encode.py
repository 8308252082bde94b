"""Float images to packed planes."""

import numpy as np
import pytest

from benchmarks.emulated import EmulatedModule, missing_tools
from tvm_bitenc import encoding
from tvm_bitenc.op.packed import packed_encode
from tvm_bitenc.target import load_target

THRESHOLDS = [np.arange(1, 2**bits, dtype=np.float32) / 2**bits for bits in (1, 2, 3)]
LEAST = np.nextafter(np.float32(0), np.float32(1))  # As of x > 0; vectors of ARMv7 take it for 0.
# Thermometers of two and three planes.
THRESHOLDS += [np.float32([LEAST, 0.5, 0.5]), np.float32([0.25, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9])]
# Less than a vector of some CPUs, odd ones, and whole and split words.
CHANNELS = (4, 5, 8, 20, 64, 72, 128)


def module(module_of, channels):
    def body(builder, *inputs):
        return [builder.emit(packed_encode(x, t)) for x in inputs for t in THRESHOLDS]

    return module_of([(1, 3, 5, n) for n in channels], body)


@pytest.fixture
def images():
    """One image for each number of channels; some values are thresholds themselves."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 17, (1, 3, 5, n)).astype(np.float32) / 16 for n in CHANNELS]


def check(outputs, images, same):
    cases = [(x, t) for x in images for t in THRESHOLDS]
    wrong = []
    for y, (x, thresholds) in zip(outputs, cases, strict=True):
        codes = (x[..., None] >= thresholds).sum(-1).astype(np.uint8)
        if not same(y, encoding.pack(codes, len(thresholds).bit_length())):
            wrong.append((x.shape[-1], len(thresholds)))
    assert not wrong


def test_values_are_compared(target, module_of, outputs_of, images, same):
    outputs = outputs_of(module(module_of, CHANNELS), images, target=target)
    check(outputs, images, same)


@pytest.mark.sweep(1)
@pytest.mark.parametrize("name", ["cortex-a53", "armv7-neon"])
def test_vectors_of_fewer_lanes_than_a_byte_has_bits(name, module_of, images, same):
    """NEON's vectors hold four floats; planes are bytes all the same."""
    target = load_target(name, threads=1)
    if reason := missing_tools(target):
        pytest.skip(reason)
    outputs = EmulatedModule(module(module_of, CHANNELS), target).run(*images).outputs
    check(outputs, images, same)
