"""Programs as text: read back whole, or refused."""

import base64

import numpy as np
import pytest

from tvm_bitenc.accelerator import Accelerator
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import LibraryError
from tvm_bitenc.vta.binary import dumps, loads
from tvm_bitenc.vta.compile_layer import compile_conv

ACCELERATOR = Accelerator(channels=16, latency=20)


@pytest.fixture(scope="module")
def program(random_layer, conv_layer):
    layer = random_layer(0, Encoding.signed(2), Encoding.unsigned(2), padding=1)
    return compile_conv(conv_layer(layer, 2), ACCELERATOR)


def test_programs_are_read_back(program):
    found, accelerator = loads(dumps(program, ACCELERATOR))
    assert accelerator == ACCELERATOR
    assert found.instructions == program.instructions
    assert np.array_equal(found.constants, program.constants)
    for name in ("tensor_words", "layers", "inputs", "outputs"):
        assert getattr(found, name) == getattr(program, name)


@pytest.mark.parametrize(
    "change, cause",
    [
        (lambda words: words[:-1], "is truncated"),
        (lambda words: words[:5], "isn't a program of this version"),
        (lambda words: [words[0] + 1, *words[1:]], "isn't a program of this version"),
    ],
)
def test_damaged_programs_are_refused(change, cause, program):
    words = np.frombuffer(base64.b64decode(dumps(program, ACCELERATOR)), np.uint64)
    damaged = np.array(change(words.copy()), np.uint64)
    with pytest.raises(LibraryError, match=cause):
        loads(base64.b64encode(damaged.tobytes()).decode())
    with pytest.raises(LibraryError, match="isn't base64"):
        loads("no base64 of words")
