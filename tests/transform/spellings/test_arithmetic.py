"""Quantizers spelt in arithmetic, and what must not be mistaken for one."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.canonicalize import Canonicalize

op, f32 = relax.op, np.float32


def c(value):
    return relax.const(f32(value))


def spelt(builder, x, scale, zero, top, *, low=0.0, last=None, swapped=False):
    """(clip(round(x / s + z), low, top) - z) * s, with z left out where it is None."""
    y = builder.emit(op.divide(x, relax.const(f32(scale))))
    if zero is not None:
        y = builder.emit(op.add(relax.const(f32(zero)), y) if swapped else op.add(y, c(zero)))
    y = builder.emit(op.clip(builder.emit(op.round(y)), low, top))
    if zero is not None:
        y = builder.emit(op.subtract(y, c(zero)))
    last = c(scale if last is None else last)
    return builder.emit(op.multiply(last, y) if swapped else op.multiply(y, last))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    "scale, zero, bits", [(0.1, None, 2), (0.1, 0.0, 1), (0.3, 4.0, 3), (2.0, 127.5, 8)]
)
def test_arithmetic_becomes_one_op(scale, zero, bits, swapped, module_of, assert_same_ir):
    before = module_of(
        [(2, 3)], lambda b, x: spelt(b, x, scale, zero, 2**bits - 1, swapped=swapped)
    )
    encoding = Encoding(bits, scale, zero or 0.0)
    after = module_of([(2, 3)], lambda b, x: b.emit(quantize(x, encoding)))
    assert_same_ir(Canonicalize()(before), after)


LOOKALIKES = {
    "low isn't whole": dict(zero=None, top=3, low=-1.5),
    "top isn't whole": dict(zero=None, top=2.5),
    "9 bits": dict(zero=None, top=511),
    "another scale": dict(zero=None, top=3, last=0.25),
    "negative scale": dict(zero=None, top=3, scale=-0.5),
    "zero point between codes": dict(zero=0.3, top=3),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes_stay(name, module_of, assert_same_ir):
    arguments = dict(scale=0.5) | LOOKALIKES[name]
    before = module_of([(2, 3)], lambda b, x: spelt(b, x, **arguments))
    assert_same_ir(Canonicalize()(before), before)


def test_the_inner_values_may_be_used_elsewhere(module_of, ops_of, outputs_of, only, same):
    def body(builder, x):
        divided = builder.emit(relax.op.divide(x, c(0.5)))
        clipped = builder.emit(relax.op.clip(builder.emit(relax.op.round(divided)), 0, 3))
        return [builder.emit(relax.op.multiply(clipped, c(0.5))), clipped]

    mod = module_of([(5,)], body)
    assert "bitenc.quantize" in ops_of(Canonicalize()(mod))
    x = f32([-1, 0.25, 0.75, 1.3, 9])
    before, after = (
        outputs_of(mod, [x], pipeline=pipeline) for pipeline in (no_lowering, only(Canonicalize()))
    )
    assert all(map(same, before, after))


def chain(builder, x, *steps):
    """Apply ops in a row; a step is (op, *constants)."""
    for function, *constants in steps:
        values = constants if function is op.clip else map(c, constants)
        x = builder.emit(function(x, *values))
    return x


# A spelling, and the encoding that stands for it; the scale is 0.3.
SPELLINGS = {
    "signed": (
        [(op.divide, 0.3), (op.round,), (op.clip, -8, 7), (op.multiply, 0.3)],
        Encoding(4, 0.3, 8.0, late_zero_point=8),
    ),
    "narrow": (
        [(op.divide, 0.3), (op.round,), (op.clip, -7, 7), (op.multiply, 0.3)],
        Encoding(4, 0.3, 7.0, max_code=14, late_zero_point=7),
    ),
    "clip before round": (
        [(op.divide, 0.3), (op.clip, 0, 5), (op.round,), (op.multiply, 0.3)],
        Encoding(3, 0.3, 0.0, max_code=5),
    ),
    "zero point after rounding": (
        [(op.divide, 0.3), (op.round,), (op.add, 3), (op.clip, 0, 15), (op.subtract, 3),
         (op.multiply, 0.3)],
        Encoding(4, 0.3, 3.0, late_zero_point=3),
    ),
    "zero point before rounding": (
        [(op.divide, 0.3), (op.add, 3), (op.round,), (op.clip, 0, 15), (op.subtract, 3),
         (op.multiply, 0.3)],
        Encoding(4, 0.3, 3.0),
    ),
    "floor": (
        [(op.divide, 0.3), (op.floor,), (op.clip, 0, 3), (op.multiply, 0.3)],
        Encoding(2, 0.3, 0.0, rounding="floor"),
    ),
    "relu and minimum": (
        [(op.divide, 0.3), (op.round,), (op.nn.relu,), (op.minimum, 3), (op.multiply, 0.3)],
        Encoding(2, 0.3, 0.0),
    ),
    "reciprocal of a power of two": (
        [(op.multiply, 4), (op.round,), (op.clip, 0, 3), (op.multiply, 0.25)],
        Encoding(2, 0.25, 0.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings(name, module_of, outputs_of, assert_same_ir, same):
    steps, encoding = SPELLINGS[name]
    before = module_of([(64,)], lambda b, x: chain(b, x, *steps))
    after = module_of([(64,)], lambda b, x: b.emit(quantize(x, encoding)))
    assert_same_ir(Canonicalize()(before), after)
    x = np.concatenate([(np.arange(-16, 16) + 0.5) * f32(0.3), np.linspace(-9, 9, 32)]).astype(f32)
    results = [outputs_of(mod, [x], pipeline=no_lowering) for mod in (before, after)]
    assert np.array_equal(*(y for (y,) in results))  # But for the sign of zero.
