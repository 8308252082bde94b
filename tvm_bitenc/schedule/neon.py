"""Rules for ARM CPUs with NEON: 16-byte vectors, 32 of them on 64-bit ARM and 16 on 32-bit."""

from __future__ import annotations

import re

from ..kernel.neon import Neon
from ..kernel.neon_functions import llvm_text
from ..target import Target
from .arm import FAMILY
from .vector import vector_rules

AARCH64 = {
    "lookup": "llvm.aarch64.neon.tbl1",
    "add_pairs_of_bytes": "llvm.aarch64.neon.uaddlp",
    "add_neighbours": "llvm.aarch64.neon.addp",
}
IN_ORDER = {"add_saturated": "llvm.aarch64.neon.uqadd"}
ARMV7 = {
    "lookup_half": "llvm.arm.neon.vtbl2",
    "add_pairs_of_bytes": "llvm.arm.neon.vpaddlu",
}
# 32-bit ARM by its many names, but those of bytes in the other order and of 64-bit relatives.
_NARROW = re.compile(r"(arm|thumb)(v[78][a-z]*)?(?<!eb)")


def isa_of(target: Target) -> Neon | None:
    """What the target's NEON offers, None if it has none."""
    if "neon" not in target.features:
        return None
    if target.architecture == "aarch64":
        intrinsics = {**AARCH64, **IN_ORDER} if target.core.in_order else AARCH64
        return Neon("neon", 16, 32, intrinsics, most_code=127, functions=llvm_text("aarch64"))
    if not _NARROW.fullmatch(target.architecture):
        return None
    return Neon("neon", 16, 16, ARMV7, most_code=127, functions=llvm_text("armv7"))


RULES = vector_rules("neon", FAMILY, isa_of)
