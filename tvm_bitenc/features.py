"""CPU features: which of LLVM's names are instructions, and which of them kernels are made for.

Keys of tuned records, the fitness of a library for a CPU and the cost model of tuning derive from
the tables here; rules of `tvm_bitenc.schedule` ask for names in `KERNELS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Instructions that kernels are written with, by architecture.
KERNELS = {
    "x86": (
        *("avx2", "avx512bitalg", "avx512bw", "avx512f", "avx512vbmi", "avx512vnni"),
        *("avx512vpopcntdq", "avxvnni", "gfni"),
    ),
    "arm": ("dotprod", "i8mm", "neon"),
    "riscv": ("zbb",),
}
# Instructions that LLVM may choose for any code, by architecture. Its other features say how fast
# something is, or are instructions that it chooses only if it is told to.
_INSTRUCTIONS = {
    "x86": "avx|sse|ssse|fma|bmi|tbm|xop|popcnt|lzcnt|f16c|gfni|movbe",
    "arm": "neon|dotprod|i8mm|sve|sme|mve|vfp|fp-armv8|fp16|fullfp16|bf16|f32mm|f64mm|dsp",
    "riscv": "(experimental-)?([a-z]|[zx][a-z0-9]+)$",
}
# Bytes of the vectors that a feature brings, longest first; others have 16.
_VECTOR_BYTES = {"avx512f": 64, "avx2": 32, "avx": 32}
_FAMILIES = {"x86": r"x86|i[3-6]86", "arm": "aarch64|arm|thumb", "riscv": "riscv"}


def architecture_of(triple: str) -> str:
    """First part of LLVM's name of a platform; of the two names that 64-bit ARM has, GNU's."""
    first = triple.split("-")[0]
    return "aarch64" if first == "arm64" else first


def family_of(architecture: str) -> str:
    """Return the key of the tables for the first part of a triple, itself where there is none."""
    found = (name for name, names in _FAMILIES.items() if re.match(names, architecture))
    return next(found, architecture)


def instructions(features: Iterable[str], architecture: str) -> frozenset[str]:
    """Features that are instructions, without which code may be illegal.

    Of an architecture that isn't in the tables that may be any feature.

    Parameters
    ----------
    features : iterable of str
        In LLVM's spelling.
    architecture : str
        First part of a triple.
    """
    pattern = _INSTRUCTIONS.get(family_of(architecture), "")
    return frozenset(name for name in features if re.match(pattern, name))


def kernel_features(features: Iterable[str], architecture: str) -> frozenset[str]:
    """Features that kernels of this architecture are made for."""
    return frozenset(KERNELS.get(family_of(architecture), ())).intersection(features)


def flushes_small_floats(architecture: str) -> bool:
    """Whether vectors take small floats for zero as scalars don't: on 32-bit ARM, by any name."""
    return family_of(architecture) == "arm" and not architecture.startswith(("aarch64", "arm64"))


def fuses_multiply_add(features: Iterable[str], architecture: str) -> bool:
    """Whether a CPU with these features rounds ``a * b + c`` of float32 once, in an instruction."""
    if family_of(architecture) == "arm" and not flushes_small_floats(architecture):
        return True
    wanted = {"x86": {"fma"}, "arm": {"vfp4sp", "vfp4d16sp"}, "riscv": {"f"}}
    return not wanted.get(family_of(architecture), set()).isdisjoint(features)


def vector_bytes(features: Iterable[str], architecture: str) -> int:
    """How long the vectors are that compute floats as scalars do, on a CPU with these features.

    0 where there are none: on RISC-V without floats in its vectors, and on 32-bit ARM.
    """
    had = set(features)
    is_without = family_of(architecture) == "riscv" and "zve32f" not in had
    if is_without or flushes_small_floats(architecture):
        return 0
    return next((size for name, size in _VECTOR_BYTES.items() if name in had), 16)
