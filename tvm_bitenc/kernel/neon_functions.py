"""Functions of one instruction each that kernels for NEON call, where LLVM has no name for it.

The register of the first operand receives the result. LLVM would choose another one, which takes a
move; and it would reorder sums, until it runs out of registers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Function:
    """A function of vectors of one type.

    Parameters
    ----------
    name : str
    operands : int
    type : str
        LLVM's name of the type.
    aarch64, armv7 : str
        The instruction: operand 0 is the result, and numbers go on with the second operand.
    """

    name: str
    operands: int
    type: str
    aarch64: str
    armv7: str


FUNCTIONS = (
    Function(
        "bitenc_select",
        3,
        "<2 x i64>",
        "bsl $0.16b, $2.16b, $3.16b",
        "vbsl ${0:q}, ${2:q}, ${3:q}",
    ),
    Function(
        "bitenc_add_bytes",
        2,
        "<16 x i8>",
        "add $0.16b, $0.16b, $2.16b",
        "vadd.i8 ${0:q}, ${0:q}, ${2:q}",
    ),
)


def llvm_text(architecture: str) -> str:
    """Return the functions for ``aarch64`` or ``armv7`` as LLVM IR."""
    return "\n".join(_definition(f, getattr(f, architecture)) for f in FUNCTIONS)


def _definition(function: Function, instruction: str) -> str:
    operands = ", ".join(f"{function.type} %{i}" for i in range(function.operands))
    constraints = ",".join(["=w", "0", *["w"] * (function.operands - 1)])
    return f"""
define {function.type} @{function.name}({operands}) {{
  %result = call {function.type} asm "{instruction}", "{constraints}"({operands})
  ret {function.type} %result
}}"""
