"""Rules for x86 CPUs with AVX2: 32-byte vectors."""

from __future__ import annotations

from ..kernel.isa import Isa
from ..target import Target
from .vector import vector_rules
from .x86 import FAMILY

REQUIRED = {"avx2", "fma"}
INTRINSICS = {
    "lookup": "llvm.x86.avx2.pshuf.b",
    "sum_bytes": "llvm.x86.avx2.psad.bw",
    "multiply_add_bytes": "llvm.x86.avx2.pmadd.ub.sw",
    "multiply_add_words": "llvm.x86.avx2.pmadd.wd",
}


def isa_of(target: Target) -> Isa | None:
    """What the target's AVX2 offers, None if it has none."""
    features = target.features
    if not features >= REQUIRED:
        return None
    intrinsics = dict(INTRINSICS)
    if "avxvnni" in features:
        intrinsics["dot"] = "llvm.x86.avx512.vpdpbusd.256"
    return Isa("avx2", 32, 16, intrinsics)


RULES = vector_rules("avx2", FAMILY, isa_of)
