"""Rules for x86 CPUs with AVX2: 32-byte vectors."""

from __future__ import annotations

from tvm import relax

from ..kernel.isa import Isa
from ..target import Target
from ..te.conv_layer import ConvLayer
from . import x86
from .rule import Kernel, cost_model, schedule_rule

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


@schedule_rule("avx2")
def conv2d(call: relax.Call, target: Target) -> Kernel | None:
    """Packed convolutions."""
    isa = isa_of(target)
    return None if isa is None else x86.conv2d(call, target, isa)


@schedule_rule("avx2")
def packed_encode(call: relax.Call, target: Target) -> Kernel | None:
    """Encoding and packing of float images."""
    isa = isa_of(target)
    return None if isa is None else x86.packed_encode(call, target, isa)


@cost_model("avx2")
def costs(layer: ConvLayer, target: Target) -> dict[str, float] | None:
    """Vector instructions by strategy."""
    isa = isa_of(target)
    return None if isa is None else x86.costs(layer, isa)
