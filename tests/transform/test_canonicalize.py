"""Pass 1: quantizers spelt in arithmetic, and what must not be mistaken for one."""

import numpy as np
import pytest
from tvm import relax

from tvm_bitenc.encoding import Encoding
from tvm_bitenc.op import quantize
from tvm_bitenc.transform import no_lowering
from tvm_bitenc.transform.canonicalize import Canonicalize

f32 = np.float32


def spelt(builder, x, scale, zero, top, *, low=0.0, last=None, swapped=False):
    """(clip(round(x / s + z), low, top) - z) * s, with z left out where it is None."""
    op = relax.op
    y = builder.emit(op.divide(x, relax.const(f32(scale))))
    if zero is not None:
        y = builder.emit(op.add(relax.const(f32(zero)), y) if swapped else op.add(y, c(zero)))
    y = builder.emit(op.clip(builder.emit(op.round(y)), low, top))
    if zero is not None:
        y = builder.emit(op.subtract(y, c(zero)))
    last = c(scale if last is None else last)
    return builder.emit(op.multiply(last, y) if swapped else op.multiply(y, last))


def c(value):
    return relax.const(f32(value))


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


def test_batch_norm_becomes_arithmetic(module_of, ops_of):
    def body(builder, x):
        parameters = [relax.const(np.full(3, v, f32)) for v in (2, 0.5, 1, 4)]
        norm = builder.emit(relax.op.nn.batch_norm(x, *parameters, axis=1, training=False))
        return builder.emit(relax.TupleGetItem(norm, 0))

    ops = ops_of(Canonicalize()(module_of([(1, 3, 2, 2)], body)))
    assert "relax.nn.batch_norm" not in ops and "relax.multiply" in ops
