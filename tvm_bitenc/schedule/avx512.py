"""Rules for x86 CPUs with AVX-512: 64-byte vectors, and popcount and dot products where present."""

from __future__ import annotations

from ..kernel.isa import Isa
from ..target import Target
from .vector import vector_rules
from .x86 import FAMILY

REQUIRED = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
INTRINSICS = {
    "lookup": "llvm.x86.avx512.pshuf.b.512",
    "lookup_words": "llvm.x86.avx512.vpermi2var.hi.512",
    "ternary": "llvm.x86.avx512.pternlog.q.512",
    "sum_bytes": "llvm.x86.avx512.psad.bw.512",
    "multiply_add_bytes": "llvm.x86.avx512.pmaddubs.w.512",
    "multiply_add_words": "llvm.x86.avx512.pmaddw.d.512",
    "narrow_words": "llvm.x86.avx512.packssdw.512",
    "narrow_bytes": "llvm.x86.avx512.packuswb.512",
}


# Assembly, or LLVM would take the bytes from the register that was stored, by a shuffle.
FUNCTIONS = """
define internal <64 x i8> @bitenc_repeat_octet(ptr %place) alwaysinline {
  %found = call <64 x i8> asm "vpbroadcastq $1, $0", "=v,*m"(ptr elementtype(i64) %place)
  ret <64 x i8> %found
}
"""


def isa_of(target: Target) -> Isa | None:
    """What the target's AVX-512 offers, None if it has none."""
    features = target.features
    if not features >= REQUIRED:
        return None
    intrinsics, functions = dict(INTRINSICS), ""
    if "avx512vnni" in features:
        intrinsics["dot"] = "llvm.x86.avx512.vpdpbusd.512"
    if "avx512vbmi" in features:
        intrinsics["wide_lookup"] = "llvm.x86.avx512.permvar.qi.512"
        intrinsics["bits_from"] = "llvm.x86.avx512.pmultishift.qb.512"
        intrinsics["repeat_octet"], functions = "bitenc_repeat_octet", FUNCTIONS
    if {"gfni", "avx512vbmi"} <= features:
        intrinsics["affine_bits"] = "llvm.x86.vgf2p8affineqb.512"
    has_popcount = {"avx512vpopcntdq", "avx512bitalg"} <= features
    return Isa("avx512", 64, 32, intrinsics, has_popcount, functions=functions)


RULES = vector_rules("avx512", FAMILY, isa_of)
