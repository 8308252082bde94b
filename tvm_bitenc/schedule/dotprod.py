"""Rules for ARM CPUs with dot products of bytes: four products into each 32-bit lane."""

from __future__ import annotations

from ..kernel.neon import Neon
from ..kernel.neon_functions import llvm_text
from ..target import Target
from .arm import FAMILY
from .neon import AARCH64
from .vector import vector_rules

INTRINSICS = {**AARCH64, "dot": "llvm.aarch64.neon.sdot"}


def isa_of(target: Target) -> Neon | None:
    """What the target offers, None if it has no such products."""
    if target.architecture != "aarch64" or "dotprod" not in target.features:
        return None
    return Neon("dotprod", 16, 32, INTRINSICS, most_code=127, functions=llvm_text("aarch64"))


RULES = vector_rules("dotprod", FAMILY, isa_of)
