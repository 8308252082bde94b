"""Kernels of a bundle: one object file, and the workspace that they ask for."""

from __future__ import annotations

from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx

from ...errors import UnsupportedError
from ...target import Target
from .plan import ALIGNMENT

SYMBOL = "__tvm_ffi_{}"  # TVM's C name of a function with the packed calling convention.


def compile_kernels(planned: tvm.IRModule, target: Target, prefix: str, path: Path) -> int:
    """Write the kernels of a module to an object file.

    Parameters
    ----------
    planned : tvm.IRModule
    target : Target
    prefix : str
        In front of every kernel's name, so that two networks fit in one program.
    path : Path
        Of the object file; its name ends in ``.o``.

    Returns
    -------
    int
        The most bytes of workspace that one kernel holds at a time, each block aligned.

    Raises
    ------
    UnsupportedError
        If a kernel calls a function of TVM's runtime, such as its sort.
    """
    lowered = _lowered(_renamed(planned, prefix), target.tvm_target)
    sizes = [
        _workspace(function, name.name_hint.removeprefix(f"{prefix}_"))
        for name, function in lowered.functions_items()
    ]
    build = tvm.get_global_func(f"target.build.{target.tvm_target.kind.name}")
    build(lowered, target.tvm_target).write_to_file(str(path))
    return max(sizes, default=0)


def symbol(prefix: str, kernel: str) -> str:
    """C name of a kernel."""
    return SYMBOL.format(f"{prefix}_{kernel}")


def _renamed(planned: tvm.IRModule, prefix: str) -> tvm.IRModule:
    kernels = {}
    for global_var, function in planned.functions_items():
        if isinstance(function, tirx.PrimFunc):
            name = f"{prefix}_{global_var.name_hint}"
            kernels[tvm.ir.GlobalVar(name)] = function.with_attr("global_symbol", name)
    return tvm.IRModule(kernels)


def _lowered(kernels: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """Run the passes of `tvm.tirx.build`, whose result doesn't tell the workspace's size.

    Kernels don't check their arguments: the bundle's plan alone calls them.
    """
    passes, finalize_host, _ = tirx.get_tir_pipeline("default")
    bound = tirx.transform.BindTarget(target.with_host(target))(kernels)
    return tirx.transform.SkipAssert()(finalize_host()(passes(bound)))


def _workspace(function: tirx.PrimFunc, kernel: str) -> int:
    """Bytes of all blocks in a function: no less than it ever holds at a time."""
    blocks: list[int] = []

    def visit(call: tvm.ir.Call) -> None:
        op = getattr(call.op, "name", "")
        if "AllocWorkspace" in op:
            blocks.append(-(-int(call.args[2]) // ALIGNMENT) * ALIGNMENT)
        elif "call_packed" in op:
            raise UnsupportedError(
                f"kernel {kernel!r}",
                "calls a function of TVM's runtime, which a C bundle doesn't have",
                "Use export_library, or leave this part out of the model",
            )

    tvm_ffi.structural_walk(function, (tvm.ir.Call, visit))
    return sum(blocks)
