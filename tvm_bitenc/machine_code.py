"""LLVM may end the process where it can't select instructions: unusual code is tried in a child.

LLVM has no error for code that it can't translate, such as an instruction that the CPU lacks; it
calls `abort`. What the compiler makes is known to be translated, so a look at LLVM's own text of
the code is enough, in a hundredth of the time that translating takes. Anything else in it, as from
schedule rules or passes of others, is translated by a child process first.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator

import tvm
from tvm import tirx

from .errors import UnsupportedError
from .schedule import avx2, avx512, dotprod, i8mm, neon, scalar
from .target import Target

SECONDS = 120.0  # That a child may take over one function.
MAX_BITS = 4096  # Of a vector; LLVM splits it into registers.
_ISAS = tuple(part.isa_of for part in (avx2, avx512, neon, dotprod, i8mm, scalar))
_ELEMENTS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
_ELEMENTS |= {"float": 32, "double": 64, "ptr": 64}
_VECTOR = re.compile(r"<(vscale x )?(\d+) x ([\w.]+)>")
_CPU_INTRINSIC = re.compile(r"@(llvm\.(?:x86|aarch64|arm)\.[\w.]+)")


def check_machine_code(
    modules: Iterable[tvm.runtime.Module],
    kernels: tvm.IRModule,
    target: Target,
    layers: Iterable[str] = (),
) -> None:
    """Raise `UnsupportedError` where LLVM would end the process, or take forever.

    Parameters
    ----------
    modules : iterable of tvm.runtime.Module
        As they are built: those of LLVM aren't machine code yet.
    kernels : tvm.IRModule
        The functions that they were built from.
    target : Target
    layers : iterable of str
        Their names, which those of their kernels contain.
    """
    if not hasattr(os, "fork"):
        return
    known = known_intrinsics(target)
    texts = [m.inspect_source("ll") for m in modules if m.kind == "llvm"]
    if not any(is_unusual(text, known) for text in texts):
        return
    for name, function in _kernels_of(kernels):
        reason = _try(name, function, target, known)
        if reason:
            raise UnsupportedError(
                _described(name, layers),
                f"LLVM can't translate it for target {target.name!r}: {reason}",
                "Choose another strategy for the layer, or another target",
            )


def known_intrinsics(target: Target) -> set[str]:
    """LLVM's names of the instructions that kernels may call on a target."""
    isas = [isa_of(target) for isa_of in _ISAS]
    return {name for isa in isas if isa is not None for name in isa.intrinsics.values()}


def is_unusual(text: str, known: set[str]) -> bool:
    """Whether LLVM's text has vectors or instructions that the compiler itself doesn't make."""
    if any(_is_odd(*vector) for vector in set(_VECTOR.findall(text))):
        return True
    called = set(_CPU_INTRINSIC.findall(text))
    return any(not any(f"{name}.".startswith(f"{k}.") for k in known) for name in called)


def _is_odd(scalable: str, lanes: str, element: str) -> bool:
    return bool(scalable) or int(lanes) * _ELEMENTS.get(element, MAX_BITS + 1) > MAX_BITS


def _kernels_of(module: tvm.IRModule) -> Iterator[tuple[str, tirx.PrimFunc]]:
    for var, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc):
            yield var.name_hint, function


def _try(name: str, function: tirx.PrimFunc, target: Target, known: set[str]) -> str:
    """Translate unusual code in a child, and say why it can't be; empty if it can."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    built = tvm.compile(module, target.tvm_target).mod
    parts = [part for part in (built, *built.imports) if part.kind == "llvm"]

    def translate() -> None:
        for part in parts:
            part.inspect_source("asm")

    if not any(is_unusual(part.inspect_source("ll"), known) for part in parts):
        return ""
    return fate_of(translate, SECONDS)


def _described(kernel: str, layers: Iterable[str]) -> str:
    """Name a kernel, and the layer that it was named after."""
    found = [layer for layer in layers if layer and re.sub(r"\W", "_", layer) in kernel]
    return f"kernel {kernel!r}" + (f" of layer {max(found, key=len)!r}" if found else "")


def fate_of(function: Callable[[], object], seconds: float) -> str:
    """Run a function in a forked child and say how it failed, empty if it didn't."""
    with tempfile.TemporaryFile() as said:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Threads aren't used in the child.
            child = os.fork()
        if child == 0:
            _run_and_leave(function, said.fileno())
        status = _wait(child, seconds)
        if status == 0:
            return ""
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if status is None:
        return f"it takes more than {seconds:g} s"
    errors = [line for line in lines if line.startswith("LLVM ERROR")]
    if lines:
        return [*errors, lines[-1]][0]
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


def _run_and_leave(function: Callable[[], object], output: int) -> None:
    status = 1
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        faulthandler.disable()
        function()
        status = 0
    except BaseException as error:  # The child must not return into the parent's code.
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(status)


def _wait(child: int, seconds: float) -> int | None:
    """Exit code of a child, negative for a signal; None if it had to be killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
