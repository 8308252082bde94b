"""Functions of one instruction each that kernels for NEON call, where LLVM has no name for it.

The register of the first operand receives the result. LLVM would choose another one, which takes a
move; and it would reorder sums, until it runs out of registers.
"""

from __future__ import annotations

from dataclasses import dataclass

BYTES, PAIRS, WORDS, PLANES = "<16 x i8>", "<8 x i16>", "<4 x i32>", "<2 x i64>"


@dataclass(frozen=True)
class Function:
    """A function of vectors of 128 bits.

    Parameters
    ----------
    name : str
    operands : tuple of str
        LLVM's names of their types; the first is that of the result as well.
    aarch64, armv7 : str
        The instruction: operand 0 is the result, and numbers go on with the second operand.
    """

    name: str
    operands: tuple[str, ...]
    aarch64: str
    armv7: str


FUNCTIONS = (
    Function(
        "bitenc_select",
        (PLANES, PLANES, PLANES),
        "bsl $0.16b, $2.16b, $3.16b",
        "vbsl ${0:q}, ${2:q}, ${3:q}",
    ),
    Function(
        "bitenc_add_bytes",
        (BYTES, BYTES),
        "add $0.16b, $0.16b, $2.16b",
        "vadd.i8 ${0:q}, ${0:q}, ${2:q}",
    ),
    Function(
        "bitenc_multiply_low",
        (PAIRS, BYTES, BYTES),
        "smlal $0.8h, $2.8b, $3.8b",
        "vmlal.s8 ${0:q}, ${2:e}, ${3:e}",
    ),
    Function(
        "bitenc_multiply_high",
        (PAIRS, BYTES, BYTES),
        "smlal2 $0.8h, $2.16b, $3.16b",
        "vmlal.s8 ${0:q}, ${2:f}, ${3:f}",
    ),
    Function(
        "bitenc_add_pairs",
        (WORDS, PAIRS),
        "sadalp $0.4s, $2.8h",
        "vpadal.s16 ${0:q}, ${2:q}",
    ),
)


def llvm_text(architecture: str) -> str:
    """Return the functions for ``aarch64`` or ``armv7`` as LLVM IR."""
    # For 32-bit ARM LLVM would put all sums of one register first, and then run out of others.
    kind = "asm sideeffect" if architecture == "armv7" else "asm"
    return "\n".join(_definition(f, kind, getattr(f, architecture)) for f in FUNCTIONS)


def _definition(function: Function, kind: str, instruction: str) -> str:
    result, *others = function.operands
    operands = ", ".join(f"{operand} %{i}" for i, operand in enumerate(function.operands))
    constraints = ",".join(["=w", "0", *["w"] * len(others)])
    return f"""
define {result} @{function.name}({operands}) {{
  %result = call {result} {kind} "{instruction}", "{constraints}"({operands})
  ret {result} %result
}}"""
