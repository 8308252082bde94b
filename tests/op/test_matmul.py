"""`branch_matmul`: products of two matrices of codes, plain and scheduled."""

import numpy as np
import pytest

import tvm_bitenc
from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import branch_matmul
from tvm_bitenc.transform import no_lowering

rng = np.random.default_rng(0)
PAIRS = [
    (Encoding.symmetric(2), Encoding.unsigned(3), (3, 7, 19, 21)),
    (Encoding.ternary(), Encoding(8, 1.0, 100.5), (1, 5, 4, 33)),
    (Encoding(3, 1.0, 0.5, (1, 1, 3)), Encoding.signed(8), (2, 1, 1, 1)),
    (Encoding.symmetric(8), Encoding.symmetric(8), (2, 8, 130, 16)),
]


def random_codes(encoding, *shape):
    return rng.integers(0, 2**encoding.bits, shape, dtype=np.uint8)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize(
    "options",
    [dict(pipeline=no_lowering), dict(), dict(threads=1)],
    ids=["no_lowering", "pool", "one_thread"],
)
def test_it_is_the_product_of_the_integers(options, transpose_b, module_of, outputs_of):
    codes = [
        codes
        for a, b, (batch, rows, terms, columns) in PAIRS
        for codes in (random_codes(a, batch, rows, terms), random_codes(b, batch, terms, columns))
    ]

    def body(builder, *inputs):
        pairs = zip(PAIRS, inputs[::2], inputs[1::2])
        return [
            builder.emit(branch_matmul(x, a, y, b, transpose_b=transpose_b))
            for (a, b, _), x, y in pairs
        ]

    stored = [
        np.ascontiguousarray(x.swapaxes(1, 2)) if transpose_b and i % 2 else x
        for i, x in enumerate(codes)
    ]
    mod = module_of([x.shape for x in stored], body, "uint8")
    outputs = outputs_of(mod, stored, **options)
    for (a, b, _), x, y, acc in zip(PAIRS, codes[::2], codes[1::2], outputs, strict=True):
        expected = a.integers(x).astype(np.int64) @ b.integers(y).astype(np.int64)
        assert acc.dtype == np.int32 and np.array_equal(acc, expected)


def test_report(module_of):
    a, b = Encoding.unsigned(4), Encoding.symmetric(3)
    shapes = (2, 5, 7), (2, 7, 9)
    mod = module_of(shapes, lambda f, x, y: f.emit(branch_matmul(x, a, y, b, layer="qk")), "uint8")
    (row,) = tvm_bitenc.build(mod).report().layers
    assert (row.name, row.strategy, row.macs) == ("qk", "int8", 2 * 5 * 7 * 9)
    assert (row.weight_bits, row.act_bits, row.out_bits) == (3, 4, 32)


def test_dtypes_are_checked(module_of):
    one = Encoding.unsigned(1)
    with pytest.raises(UnsupportedError, match=r"branch_matmul of layer 'qk'.*float32, not uint8"):
        module_of(
            [(1, 2, 3), (1, 3, 2)],
            lambda f, x, y: f.emit(branch_matmul(x, one, y, one, layer="qk")),
        )
