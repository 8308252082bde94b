"""Targets of TVM from what files say of them."""

from __future__ import annotations

import msgspec
import tvm
from tvm.target import codegen

from .decode import Source
from .tvm_options import TvmOptions


def tvm_target(options: TvmOptions, source: Source) -> tvm.target.Target:
    """Return TVM's target, whose CPU LLVM knows.

    Raises
    ------
    BitencError
        Of the source's class.
    """
    config = {"kind": "llvm", **msgspec.to_builtins(options)}
    try:
        target = tvm.target.Target(config)
        known = not options.mcpu or codegen.llvm_is_valid_cpu(options.mcpu, options.mtriple or "")
    except Exception as error:  # TVM's own errors have no common class.
        reason = str(error).strip().splitlines()[-1]
        raise source.fault(f"TVM refuses [tvm] ({reason})") from None
    if not known:
        raise source.fault(
            f"LLVM knows no CPU {options.mcpu!r}: `llc -mcpu=help` has its names", "tvm.mcpu"
        )
    return target
