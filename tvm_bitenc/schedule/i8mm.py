"""Rules for ARM CPUs with i8mm: dot products of unsigned by signed bytes."""

from __future__ import annotations

from ..kernel.neon import Neon
from ..kernel.neon_functions import llvm_text
from ..target import Target
from .arm import FAMILY
from .neon import AARCH64
from .vector import vector_rules

INTRINSICS = {**AARCH64, "dot": "llvm.aarch64.neon.usdot", "matrix": "llvm.aarch64.neon.usmmla"}


def isa_of(target: Target) -> Neon | None:
    """What the target offers, None if it has no such products."""
    if target.architecture != "aarch64" or "i8mm" not in target.features:
        return None
    return Neon("i8mm", 16, 32, INTRINSICS, most_code=255, functions=llvm_text("aarch64"))


RULES = vector_rules("i8mm", FAMILY, isa_of)
