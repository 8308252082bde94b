"""`export_c`: all files of a bundle, or none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...errors import LibraryError
from ...files import scratch_folder
from ...program import CompiledProgram
from ...transform.pipeline import memory_planning
from ..linker import gnu_compiler, gnu_options
from .interface import interface, make_ports
from .kernels import compile_kernels
from .plan import ALIGNMENT, Plan, make_plan
from .source import render, tables

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_FIXED = ("bitenc_runtime.h", "bitenc_runtime.c")


def write_bundle(program: CompiledProgram, folder: Path, name: str = "net") -> Path:
    """Write a C bundle; see `CompiledModel.export_c`."""
    if program.scheduled is None:
        raise LibraryError(
            str(folder), "the model was loaded from a library", "Export it where it was built"
        )
    if not _NAME.fullmatch(name) or name == "main":
        raise LibraryError(
            f"name {name!r}", "can't begin names in C", "Use lower-case letters, digits and _"
        )
    target = program.target
    with target.tvm_target:
        planned = memory_planning(target)(program.scheduled)
    plan = make_plan(planned)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder, "export_c", LibraryError) as scratch:
            workspace = compile_kernels(planned, target, name, scratch / f"{name}_kernels.o")
            _write_sources(scratch, program, plan, workspace, name)
            for file in sorted(scratch.iterdir()):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise LibraryError(
            str(folder), f"can't be written ({error.strerror})", "Use another folder"
        ) from None
    return folder


def _write_sources(folder: Path, program: CompiledProgram, plan: Plan, workspace: int, net: str):
    values = {
        **interface(make_ports(plan, program.inputs, net), net),
        **tables(plan, net),
        "alignment": ALIGNMENT,
        "workspace_bytes": workspace,
        "arena_bytes": max(plan.arena_bytes + workspace, ALIGNMENT),
        "weights_bytes": len(plan.weights),
        "target": program.target.name,
        "triple": program.target.triple,
        "compiler": " ".join([gnu_compiler(program.target), *gnu_options(program.target)]),
    }
    for file in _FIXED:
        (folder / file).write_text(render(file), encoding="utf-8")
    for file, template in (
        (f"{net}.h", "net.h.in"),
        (f"{net}.c", "net.c.in"),
        (f"{net}_weights.S", "net_weights.S.in"),
        ("main.c", "main.c.in"),
        ("Makefile", "Makefile.in"),
    ):
        (folder / file).write_text(render(template, **values), encoding="utf-8")
    (folder / f"{net}_weights.bin").write_bytes(plan.weights or bytes(ALIGNMENT))
