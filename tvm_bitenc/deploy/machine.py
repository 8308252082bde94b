"""Facts about a machine that decide what it can run."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from importlib import metadata

import tvm
from tvm.target import codegen

from ..host import host_features


def describe_machine() -> dict:
    """Return versions, CPU and room of this machine, as JSON holds them."""
    return {
        "tvm": tvm.__version__,
        "tvm_bitenc": package_version("tvm-bitenc"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "triple": codegen.llvm_get_system_triple(),
        "cpu": codegen.llvm_get_system_cpu(),
        "features": sorted(host_features()),
        "cores": os.cpu_count(),
        "free_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
    }


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
