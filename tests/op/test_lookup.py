"""`lookup` and `decode` on codes: numpy's own indexing, and the levels that `quantize` gives."""

import numpy as np
import pytest

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.errors import UnsupportedError
from tvm_bitenc.op import encode, quantize
from tvm_bitenc.op.decode import decode
from tvm_bitenc.op.lookup import lookup


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_one_and_two_tensors(shape, module_of, outputs_of, same):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, shape).astype(np.uint8), rng.integers(0, 8, shape).astype(np.uint8)
    one = np.array([0, 0, 2, 3], np.uint8)
    two = np.minimum(np.add.outer(np.arange(4), np.arange(8)), 7).astype(np.uint8)

    def body(builder, x, y):
        return [builder.emit(lookup([x], one, 2)), builder.emit(lookup([x, y], two, 3))]

    outputs = outputs_of(module_of([shape, shape], body, "uint8"), [a, b])
    assert same(outputs[0], one[a]) and same(outputs[1], two[a, b])


@pytest.mark.parametrize(
    "encoding", [Encoding.symmetric(3, 0.7), Encoding.unsigned(8, 1 / 3), Encoding(2, [0.1], [3.0])]
)
def test_decoded_codes_are_quantized_values(encoding, module_of, outputs_of, same):
    x = np.random.default_rng(0).normal(size=(2, 300), scale=3).astype(np.float32)

    def body(builder, x):
        codes = builder.emit(encode(x, encoding))
        return [builder.emit(decode(codes, encoding)), builder.emit(quantize(x, encoding))]

    decoded, quantized = outputs_of(module_of([x.shape], body), [x])
    assert same(decoded, quantized)


def test_what_isnt_codes_is_refused(module_of):
    with pytest.raises(UnsupportedError, match="bitenc.lookup.*float32, not uint8"):
        module_of([(2,)], lambda b, x: b.emit(lookup([x], np.array([0, 1], np.uint8), 1)))
    with pytest.raises(UnsupportedError, match="bitenc.decode.*float32, not uint8"):
        module_of([(2,)], lambda b, x: b.emit(decode(x, Encoding.unsigned(1))))
