"""``python tests/deploy/aarch64.py FOLDER``: an AArch64 Python with TVM, to run under QEMU.

Debian's packages and PyPI's wheels are unpacked below FOLDER, about 500 MB; nothing is installed.
FOLDER/python is the program. Does nothing where FOLDER is complete.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

DEBIAN = ["python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1"]
# As in the extra `deploy` and what TVM needs.
WHEELS = ["apache-tvm", "apache-tvm-ffi", "numpy", "ml_dtypes", "typing_extensions"]
WHEELS += ["cloudpickle", "msgspec", "psutil", "tornado"]
PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "any"]
PROGRAM = """#!/bin/sh
export PYTHONHOME={folder}/root/usr PYTHONPATH="{folder}/site:$PYTHONPATH"
exec qemu-aarch64 -L {folder}/root {folder}/root/usr/bin/{python} "$@"
"""


def set_up(folder: Path) -> Path:
    """Return the path of the program; make it if it isn't there."""
    program = folder / "python"
    if program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    _debian(folder)
    (python,) = (path.name for path in (folder / "root/usr/bin").glob("python3.*[0-9]"))
    _wheels(folder, python.removeprefix("python"))
    program.write_text(PROGRAM.format(folder=folder, python=python))
    program.chmod(0o755)
    return program


def _debian(folder: Path) -> None:
    """Unpack packages for arm64, from this machine's sources, with apt's state in `folder`."""
    state, cache = folder / "apt/state", folder / "apt/cache"
    (state / "lists/partial").mkdir(parents=True)
    (cache / "archives/partial").mkdir(parents=True)
    (state / "status").touch()
    options = [
        *("APT::Architecture=arm64", "APT::Architectures::=arm64", "APT::Sandbox::User="),
        *(f"Dir::State={state}", f"Dir::State::status={state}/status", f"Dir::Cache={cache}"),
    ]
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    _run(*apt, "update")
    _run(*apt, "install", "-y", "--download-only", "--no-install-recommends", *DEBIAN)
    for package in (cache / "archives").glob("*.deb"):
        _run("dpkg-deb", "-x", package, folder / "root")
    shutil.rmtree(folder / "apt")


def _wheels(folder: Path, python: str) -> None:
    """Unpack the versions that are installed here."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pinned = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--python-version", python, *platforms),
        *("--dest", folder / "wheels", *pinned),
    )
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    shutil.rmtree(folder / "wheels")


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    print(set_up(Path(sys.argv[1]).resolve()))
