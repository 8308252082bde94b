"""Rules for x86 CPUs with AVX-512: 64-byte vectors, and popcount and dot products where present."""

from __future__ import annotations

from tvm import relax

from ..kernel.isa import Isa
from ..target import Target
from ..te.conv_layer import ConvLayer
from . import x86
from .rule import Kernel, cost_model, schedule_rule

REQUIRED = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
INTRINSICS = {
    "lookup": "llvm.x86.avx512.pshuf.b.512",
    "sum_bytes": "llvm.x86.avx512.psad.bw.512",
    "multiply_add_bytes": "llvm.x86.avx512.pmaddubs.w.512",
    "multiply_add_words": "llvm.x86.avx512.pmaddw.d.512",
}


def isa_of(target: Target) -> Isa | None:
    """What the target's AVX-512 offers, None if it has none."""
    features = target.features
    if not features >= REQUIRED:
        return None
    intrinsics = dict(INTRINSICS)
    if "avx512vnni" in features:
        intrinsics["dot"] = "llvm.x86.avx512.vpdpbusd.512"
    has_popcount = {"avx512vpopcntdq", "avx512bitalg"} <= features
    return Isa("avx512", 64, 32, intrinsics, has_popcount)


@schedule_rule("avx512")
def conv2d(call: relax.Call, target: Target) -> Kernel | None:
    """Packed convolutions."""
    isa = isa_of(target)
    return None if isa is None else x86.conv2d(call, target, isa)


@schedule_rule("avx512")
def packed_encode(call: relax.Call, target: Target) -> Kernel | None:
    """Encoding and packing of float images."""
    isa = isa_of(target)
    return None if isa is None else x86.packed_encode(call, target, isa)


@cost_model("avx512")
def costs(layer: ConvLayer, target: Target) -> dict[str, float] | None:
    """Vector instructions by strategy."""
    isa = isa_of(target)
    return None if isa is None else x86.costs(layer, isa)
