"""Products that round on their own, on every CPU."""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import tirx

from .intrinsic import intrinsic


def rounded(value: tirx.Expr) -> tirx.Expr:
    """Keep a float as it rounds alone: neither TVM nor LLVM sees what it was computed from.

    ``a * b + c`` in one instruction rounds once, where the CPU has it; then the same network would
    round differently on two CPUs, and a code could differ by one. ``a + b - b`` would become ``a``.
    """
    fenced = intrinsic(str(value.ty), "llvm.arithmetic.fence", value)
    return value if _calls_the_same(value, fenced) else fenced


def _calls_the_same(value: tirx.Expr, call: tvm.ir.Call) -> bool:
    """Whether a value is a call of the same intrinsic."""
    is_call = isinstance(value, tvm.ir.Call) and value.op.same_as(call.op)
    return is_call and tvm_ffi.structural_equal(value.args[0], call.args[0])
