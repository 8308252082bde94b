"""Facts about a machine that decide what it can run."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib import metadata
from typing import Annotated

import msgspec
import tvm
from msgspec import Meta
from tvm.target import codegen

from ..decode import Count
from ..host import host_features

Word = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]


class Machine(msgspec.Struct, frozen=True):
    """What a server says of its machine; of servers that aren't ours only the triple is known.

    Parameters
    ----------
    triple : str
        LLVM's name of the platform.
    tvm, tvm_bitenc, python, system, cpu : str or None
    features : list of str, optional
        Of the CPU, in LLVM's spelling.
    cores, free_bytes : int or None
    """

    triple: Annotated[str, Meta(max_length=200, pattern=r"^[\w.]+(-[\w.]+)*\Z")]
    tvm: Word | None = None
    tvm_bitenc: Word | None = None
    python: Word | None = None
    system: Word | None = None
    cpu: Word | None = None
    features: Annotated[list[Word], Meta(max_length=10_000)] | None = None
    cores: Count | None = None
    free_bytes: Count | None = None


def describe_machine() -> Machine:
    """Return versions, CPU and room of this machine."""
    return Machine(
        tvm=tvm.__version__,
        tvm_bitenc=package_version("tvm-bitenc"),
        python=platform.python_version(),
        system=platform.platform(),
        triple=str(codegen.llvm_get_system_triple()),
        cpu=str(codegen.llvm_get_system_cpu()),
        features=sorted(map(str, host_features())),
        cores=os.cpu_count(),
        free_bytes=shutil.disk_usage(tempfile.gettempdir()).free,
    )


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
