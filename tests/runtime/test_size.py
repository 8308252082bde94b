"""Sizes that grow with the batch."""

from tvm_bitenc.runtime.size import Size, linear


def test_arithmetic():
    size = Size(3, 5) + Size(1) * 2
    assert size == Size(5, 5) and size.of(7) == 40 and size.aligned() == Size(64, 64)


def test_linear():
    assert linear(lambda n: 4 * n + 3) == Size(3, 4)
    assert linear(lambda n: n * n) is None and linear(lambda n: -(-n // 8)) is None
