"""`LoadedNetwork`: the network in a library, run by numpy and the system's loader."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import tempfile
from functools import partial
from pathlib import Path

from ..errors import LibraryError, first_line
from ..files import scratch_folder
from ..runtime.network import Interface, Network
from .description import Description


def load_network(path: Path, description: Description, content: bytes) -> LoadedNetwork | None:
    """Return the network of a checked library; None where it is a program of TVM's alone.

    Raises
    ------
    LibraryError
        If the system's loader refuses it.
    """
    if description.network is None:
        return None
    try:
        return LoadedNetwork(content, description, description.network)
    except (OSError, AttributeError, ValueError) as error:  # Of the loader, or for a symbol.
        raise LibraryError(
            str(path), f"can't be loaded ({first_line(error)})", "Install what it names"
        ) from None


class LoadedNetwork(Network):
    """A network in a shared library, which goes when this does.

    Parameters
    ----------
    content : bytes
        Of the checked file.
    description : Description
    interface : Interface
        What it says of the network.
    """

    def __init__(self, content: bytes, description: Description, interface: Interface):
        # The loader knows libraries by path: for one that was written again since, it would return
        # the old one. A copy has a path of its own, and is what was checked.
        with scratch_folder(Path(tempfile.gettempdir()), "bitenc-load") as folder:
            copy = folder / "model.so"
            copy.write_bytes(content)
            self._library = ctypes.CDLL(str(copy))
        inputs, outputs = description.inputs, description.outputs
        function = self._library.bitenc_steps
        pointers = [ctypes.c_void_p] * (len(inputs) + len(outputs) + 2)
        function.argtypes = [*pointers, ctypes.c_int64, ctypes.c_int32, ctypes.c_int32]
        function.restype = None
        weights = ctypes.addressof(ctypes.c_char.in_dll(self._library, "bitenc_weights"))
        _keep_openmp(self._library)
        threads = description.target.threads
        use = self._library.bitenc_use_threads
        prepare = None if threads == 1 else partial(use, threads or 0)
        super().__init__(function, weights, interface, inputs, outputs, prepare)

    def __del__(self) -> None:
        library = getattr(self, "_library", None)
        if library is not None:
            _ctypes.dlclose(library._handle)


class _Symbol(ctypes.Structure):
    """What `dladdr` says of an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _keep_openmp(library: ctypes.CDLL) -> None:
    """Keep OpenMP's own library when this one goes: its threads wait for work in its code."""
    try:
        function = library.omp_get_num_procs
    except AttributeError:
        return  # Its loops don't run in parallel.
    found = _Symbol()
    if ctypes.CDLL(None).dladdr(function, ctypes.byref(found)) and found.file:
        ctypes.CDLL(os.fsdecode(found.file))  # Python never closes what it has opened.
