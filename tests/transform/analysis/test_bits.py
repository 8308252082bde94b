"""Bits that arithmetic leaves of a tensor: told right for every number, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvm_bitenc.transform.analysis.bits import bits_of
from tvm_bitenc.transform.visit import visit_calls

op = relax.op


def asked(module_of, body, dtype="float32"):
    """Bits of an expression of the only input, behind which a cast to bool stands."""
    found = []

    def note(call, graph):
        if call.op.name == "relax.astype" and str(call.attrs.dtype) == "bool":
            found.append(bits_of(call.args[0], graph))

    mod = module_of([(2, 3)], lambda b, x: b.emit(op.astype(body(b, x), "bool")), dtype)
    visit_calls(mod, note)
    return found[-1]


def const(value, dtype="float32"):
    return relax.const(np.asarray(value, dtype), dtype)


def remainder(b, x, size):
    """As torch.remainder is imported: C's remainder, corrected where signs differ."""
    rest, size = b.emit(op.mod(x, const(size))), const(size)
    signs = [b.emit(op.astype(b.emit(op.less(y, const(0))), "int8")) for y in (rest, size)]
    differs = b.emit(op.not_equal(*signs))
    wrong = b.emit(op.logical_and(b.emit(op.not_equal(rest, const(0))), differs))
    return b.emit(op.where(wrong, b.emit(op.add(rest, size)), rest))


def floor_of(b, x, divisor):
    return b.emit(op.floor(b.emit(op.divide(x, const(divisor)))))


@given(low=st.integers(0, 7), count=st.integers(1, 8))
def test_remainders_of_quotients(low, count, module_of):
    bits = asked(module_of, lambda b, x: remainder(b, floor_of(b, x, 2**low), 2**count))
    assert (bits.low, bits.count, bits.is_whole) == (low, count, True)
    assert bits.is_plane == (count == 1) and bits.cast == ""


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
@given(low=st.integers(0, 7))
def test_shifts_and_masks(dtype, low, module_of):
    def body(b, x):
        return b.emit(op.bitwise_and(b.emit(op.right_shift(x, const(low, dtype))), const(1, dtype)))

    bits = asked(module_of, body, dtype)
    assert (bits.low, bits.count, bits.is_plane) == (low, 1, True)


def test_casts(module_of):
    def body(b, x):
        shifted = b.emit(op.right_shift(b.emit(op.astype(x, "int32")), const(3, "int32")))
        return b.emit(op.astype(b.emit(op.bitwise_and(shifted, const(1, "int32"))), "float32"))

    assert (asked(module_of, body).cast, asked(module_of, body).low) == ("int32", 3)
    assert asked(module_of, body, "uint8").cast == ""  # Wider integers have the same bits.


def test_casts_keep_what_types_hold(module_of):
    def body(mask, dtype):
        return lambda b, x: b.emit(
            op.astype(b.emit(op.bitwise_and(x, const(mask, "int32"))), dtype)
        )

    assert asked(module_of, body(255, "float32"), "int32").count == 8
    assert asked(module_of, body(127, "int8"), "int32").count == 7
    assert asked(module_of, body(1, "float32"), "int32").is_plane
    assert asked(module_of, body(255, "int8"), "int32").source.name != "x0"
    as_bool = body(3, "bool")
    three = asked(module_of, lambda b, x: b.emit(op.astype(as_bool(b, x), "int32")), "int32")
    assert three.source.name != "x0"


NO_PLANES = {
    "beyond the lowest bit": lambda b, x: remainder(b, floor_of(b, x, 0.5), 4),
    "not floored": lambda b, x: remainder(b, b.emit(op.divide(x, const(4))), 2),
    "other modulus": lambda b, x: remainder(b, floor_of(b, x, 2), 3),
    "C's remainder": lambda b, x: b.emit(op.mod(floor_of(b, x, 2), const(2))),
    "rounded": lambda b, x: remainder(b, b.emit(op.round(b.emit(op.divide(x, const(2))))), 2),
    "wrong correction": lambda b, x: b.emit(
        op.where(
            b.emit(op.less(y := b.emit(op.mod(floor_of(b, x, 2), const(2))), const(-1))),
            b.emit(op.add(y, const(2))),
            y,
        )
    ),
}


@pytest.mark.parametrize("body", NO_PLANES.values(), ids=NO_PLANES)
def test_what_is_no_plane(body, module_of):
    assert not asked(module_of, body).is_plane


@pytest.mark.parametrize("divisor", [3, -2, [1, 2, 4]], ids=str)
def test_other_quotients_have_bits_of_their_own(divisor, module_of):
    source = asked(module_of, lambda b, x: remainder(b, floor_of(b, x, divisor), 2)).source
    assert source.name != "x0"
    assert asked(module_of, lambda b, x: remainder(b, floor_of(b, x, 2), 2)).source.name == "x0"
