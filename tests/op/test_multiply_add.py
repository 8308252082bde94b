"""`bitenc.multiply_add` rounds once, in numpy and compiled, on every CPU."""

from fractions import Fraction

import numpy as np
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvm_bitenc.op.multiply_add import fused_multiply_add, multiply_add
from tvm_bitenc.transform.pipeline import no_lowering

floats = st.floats(-1e6, 1e6, width=32)


def nearest_float32(exact: Fraction) -> np.float32:
    """The float32 nearest to a rational number, ties to even."""
    guess = np.float32(float(exact))
    around = [np.nextafter(guess, -np.inf, dtype=np.float32), guess]
    around.append(np.nextafter(guess, np.inf, dtype=np.float32))
    return min(
        around,
        key=lambda x: (abs(Fraction(float(x)) - exact), int(x.view(np.int32)) & 1),
    )


@given(floats, floats, floats)
def test_one_rounding(x, factor, term):
    exact = Fraction(x) * Fraction(factor) + Fraction(term)
    found = fused_multiply_add(*(np.float32([v]) for v in (x, factor, term)))
    assert found == nearest_float32(exact)


def test_double_rounding_would_be_wrong():
    """The sum lies a hair above a tie of two float32 numbers, which float64 can't see."""
    x, factor, term = np.float32([[1 + 2**-23], [2**-24 * (1 + 2**-23)], [1.0]])
    exact = Fraction(float(x[0])) * Fraction(float(factor[0])) + 1
    assert fused_multiply_add(x, factor, term) == nearest_float32(exact)


def compiled(target, module_of, outputs_of, x, factor, term):
    mod = module_of(
        [x.shape],
        lambda builder, v: [
            builder.emit(multiply_add(v, *(relax.const(c, "float32") for c in (factor, term))))
        ],
    )
    (y,) = outputs_of(mod, [x], target=target, pipeline=no_lowering)
    return y


def test_compiled_code_agrees(module_of, outputs_of, same):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2, 16, 9, 7)) * 1e3).astype(np.float32)
    factor, term = rng.normal(size=(2, 1, 16, 1, 1)).astype(np.float32)
    expected = fused_multiply_add(x, factor, term)
    assert (expected != x * factor + term).any()
    assert same(compiled("native", module_of, outputs_of, x, factor, term), expected)
    # Without such an instruction LLVM calls the C library's fmaf.
    plain = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64"})
    if tvm.target.codegen.llvm_get_system_triple().startswith("x86_64"):
        assert same(compiled(plain, module_of, outputs_of, x, factor, term), expected)
