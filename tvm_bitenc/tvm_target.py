"""Targets of TVM from what files say of them."""

from __future__ import annotations

import re

import msgspec
import tvm
from tvm.target import codegen

from .decode import Source
from .features import flushes_small_floats
from .tvm_options import TvmOptions

_ABI = re.compile("gnu|musl|eabi|android")


def whole_triple(triple: str) -> str:
    """Return a triple with its vendor, where LLVM takes its parts for others without.

    LLVM doesn't see ``gnueabihf`` in ``armv7-linux-gnueabihf``, which has one part too few. It then
    calls the C library's conversions of floats in another way than they are compiled on 32-bit ARM,
    and gets other numbers.
    """
    architecture, *others = triple.split("-")
    if len(others) == 2 and flushes_small_floats(architecture) and _ABI.match(others[1]):
        return "-".join([architecture, "unknown", *others])
    return triple


def with_whole_triple(target: tvm.target.Target) -> tvm.target.Target:
    """Return a target with its `whole_triple`."""
    triple = str(target.attrs.get("mtriple", ""))
    if whole_triple(triple) == triple:
        return target
    return tvm.target.Target({**dict(target.export()), "mtriple": whole_triple(triple)})


def at_level(target: tvm.target.Target) -> tvm.target.Target:
    """Return a target at LLVM's second level, unless it names another one.

    The third, TVM's default, makes up to 4 % of a layer of one bit on x86, but it takes some
    kernels of look-ups minutes or more where the second takes seconds. It unrolls loops over lanes
    first, and then makes vectors of the loop around them, with gathers. Kernels are unrolled as far
    as they gain by it already.
    """
    if "opt-level" in target.attrs:
        return target
    return tvm.target.Target({**dict(target.export()), "opt-level": 2})


def tvm_target(options: TvmOptions, source: Source) -> tvm.target.Target:
    """Return TVM's target, whose CPU LLVM knows.

    Raises
    ------
    BitencError
        Of the source's class.
    """
    config = {"kind": "llvm", **msgspec.to_builtins(options)}
    if options.mtriple is not None:
        config["mtriple"] = whole_triple(options.mtriple)
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
