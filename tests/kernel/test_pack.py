"""Packing of codes against `tvm_bitenc.encoding`, on all instruction sets at hand."""

import numpy as np
import pytest

from tvm_bitenc import encoding
from tvm_bitenc.op import pack


@pytest.fixture
def check(module_of, outputs_of, same):
    """Pack random codes of 1 to 8 bits on a target."""

    def run(channels, target):
        codes = [
            np.random.default_rng(bits).integers(0, 2**bits, (2, 3, 5, channels), dtype=np.uint8)
            for bits in range(1, 9)
        ]

        def body(builder, *inputs):
            return [builder.emit(pack(x, bits + 1)) for bits, x in enumerate(inputs)]

        mod = module_of([value.shape for value in codes], body, "uint8")
        outputs = outputs_of(mod, codes, target=target)
        assert all(same(y, encoding.pack(x, b + 1)) for b, (x, y) in enumerate(zip(codes, outputs)))

    return run


@pytest.mark.sweep(3)
@pytest.mark.parametrize("channels", [1, 17, 64, 65, 130, 192])
def test_codes_are_packed(channels, target, check):
    check(channels, target)


def test_avx512_that_turns_no_bits(plain_avx512, check):
    check(65, plain_avx512)
