"""`export_c`: all files of a bundle, or none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...entry.code import CompiledNetwork, compile_network
from ...errors import LibraryError, UnsupportedError
from ...files import scratch_folder
from ...program import CompiledProgram
from ...runtime.size import ALIGNMENT
from ...transform.pipeline import kernel_calls
from ..linker import gnu_compiler, gnu_options
from .interface import interface, make_ports
from .source import render

_NAME = re.compile(r"[a-z][a-z0-9_]*")


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
    network = _network(program, name)
    sources = _sources(program, network, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder, "export_c", LibraryError) as scratch:
            network.module.write_to_file(str(scratch / f"{name}_kernels.o"))
            for source, content in sources.items():
                (scratch / source).write_bytes(content)
            for file in sorted(scratch.iterdir()):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise LibraryError(
            str(folder), f"can't be written ({error.strerror})", "Use another folder"
        ) from None
    return folder


def _network(program: CompiledProgram, name: str) -> CompiledNetwork:
    if program.network is None:
        reasons = [note for note in program.report["notes"] if "virtual machine" in note]
        raise UnsupportedError(
            "the model",
            reasons[0],
            "Use export_library, or leave this part out of the model",
        )
    with program.target.tvm_target:
        kernels = kernel_calls(program.target)(program.scheduled)
    return compile_network(kernels, program.target, name, for_tvm=False)


def _sources(program: CompiledProgram, network: CompiledNetwork, net: str) -> dict[str, bytes]:
    """Contents of all files but the objects, by name."""
    plan = network.plan
    values = {
        **interface(make_ports(plan, program.inputs, net), net),
        "alignment": ALIGNMENT,
        "arena_bytes": max(network.arena.fixed, ALIGNMENT),
        "weights_bytes": len(plan.weights),
        "target": program.target.name,
        "triple": program.target.triple,
        "compiler": " ".join([gnu_compiler(program.target), *gnu_options(program.target)]),
    }
    templates = {
        "bitenc_runtime.h": "bitenc_runtime.h",
        "bitenc_runtime.c": "bitenc_runtime.c",
        "bitenc_fma.h": "bitenc_fma.h",
        f"{net}.h": "net.h.in",
        f"{net}.c": "net.c.in",
        f"{net}_weights.S": "net_weights.S.in",
        "main.c": "main.c.in",
        "Makefile": "Makefile.in",
    }
    texts = {file: render(template, **values) for file, template in templates.items()}
    weights = plan.weights or bytes(ALIGNMENT)
    return {f"{net}_weights.bin": weights, **{file: t.encode() for file, t in texts.items()}}
