"""`deploy`: upload a library to an RPC server, run it there, check and time it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.rpc import RPCSession

from ..decode import Name, Share, Source
from ..errors import BitencError, RemoteError, TargetError
from ..features import architecture_of
from ..host import missing_instructions
from ..program import Benchmark
from ..runtime.arrays import checked_arrays
from ..target import Target
from .connection import Connection, within
from .library import is_same_series, read_library
from .machine import Machine
from .names import CLOCK, MACHINE, NETWORK_TIMES, TIMES

_ANSWER = Source("answer of the RPC server", "Start `bitenc serve` there", RemoteError)
_MOST_RUNS = 100  # Of which times of kernels are kept.
_GRACE = 5  # Seconds that a server gets to say that a session's time is over.


@dataclass(frozen=True)
class Deployment:
    """What a device computed, and how fast.

    Parameters
    ----------
    outputs : list of ndarray
    benchmark : Benchmark
        Its `layers` are empty where the server isn't `bitenc serve`.
    """

    outputs: list[np.ndarray]
    benchmark: Benchmark

    def differences(self, reference: Sequence[np.ndarray]) -> int:
        """Elements that aren't the reference's to the bit.

        Raises
        ------
        BitencError
            If the reference has other shapes or types.
        """
        wanted, found = ([(a.shape, a.dtype) for a in x] for x in (reference, self.outputs))
        if wanted != found:
            raise BitencError(
                "reference", f"has outputs {wanted}, not {found}", "Give the same model"
            )
        return sum(_different(a, b) for a, b in zip(self.outputs, reference))


def _different(a: np.ndarray, b: np.ndarray) -> int:
    """Elements of other bits: NaN is itself, and 0.0 isn't -0.0."""
    bits = np.dtype(f"V{a.dtype.itemsize}")
    a, b = (np.ascontiguousarray(x).reshape(-1).view(bits) for x in (a, b))
    return int((a != b).sum())


def deploy(
    path: str | Path,
    inputs: Sequence[np.ndarray],
    connection: Connection | None = None,
    *,
    number: int = 10,
) -> Deployment:
    """Run a library of `CompiledModel.export_library` on another machine.

    Parameters
    ----------
    path : path of the library
    inputs : sequence of ndarray
    connection : Connection, optional
        By default a server on this machine.
    number : int
        Runs to time.

    Raises
    ------
    LibraryError
        If the file is truncated or no library. Nothing is sent then.
    TargetError
        If it was compiled for another CPU than the server's. Nothing is sent then either.
    RemoteError
        If the server can't be reached, stops, or has no room. Nothing is left there.
    BitencError
        If the inputs aren't the model's.
    """
    path, connection = Path(path), connection or Connection()
    library = read_library(path)
    arrays = checked_arrays(inputs, library.inputs, library.largest_batch)

    def run() -> Deployment:
        with connection.session() as session:
            _check_machine(session, library.target, connection)
            with _uploaded(session, path, connection) as name:
                machine = relax.VirtualMachine(session.load_module(name), session.cpu())
                done = _run(session, machine, arrays, number)
                layers = _network_times(session, name, number)
                layers = layers or _kernel_times(session, machine, number)
                return replace(done, benchmark=replace(done.benchmark, layers=layers))

    return within(connection.timeout + _GRACE, connection, run)


def remote_machine(session: RPCSession) -> Machine:
    """Return what `describe_machine` says there; of other servers than ours, the triple alone."""
    try:
        answer = session.get_function(MACHINE)()
    except AttributeError:
        triple = str(session.get_function("target.llvm_get_system_triple")())
        return _ANSWER.convert({"triple": triple}, Machine)
    return _ANSWER.json(str(answer).encode(), Machine)


def _run(
    session: RPCSession,
    machine: relax.VirtualMachine,
    inputs: Sequence[np.ndarray],
    number: int,
) -> Deployment:
    device = session.cpu()
    machine.set_input("main", *[tvm.runtime.tensor(array, device) for array in inputs])
    machine.invoke_stateful("main")
    outputs = [tensor.numpy() for tensor in _flat(machine.get_outputs("main"))]
    timed = machine.time_evaluator("invoke_stateful", device, number=1, repeat=number)("main")
    return Deployment(outputs, Benchmark(np.array(timed.results), {}))


def _flat(result: Any) -> list:
    """Tensors of a result that may be a tuple."""
    return [result] if hasattr(result, "numpy") else [x for part in result for x in _flat(part)]


def _network_times(session: RPCSession, name: str, number: int) -> dict[str, float]:
    """Seconds per run of each kernel in a network of one function; empty if it isn't one."""
    try:
        times = session.get_function(NETWORK_TIMES)
    except AttributeError:
        return {}
    return _ANSWER.json(str(times(name, min(number, _MOST_RUNS))).encode(), dict[Name, Share])


def _kernel_times(
    session: RPCSession, machine: relax.VirtualMachine, number: int
) -> dict[str, float]:
    """Seconds per run of each kernel; empty where the server has no clock for them."""
    try:
        clock, times = session.get_function(CLOCK), session.get_function(TIMES)
    except AttributeError:
        return {}
    clock(machine.module)
    for _ in range(number):
        machine.invoke_stateful("main")
    answer = _ANSWER.json(str(times()).encode(), dict[Name, Share])
    return {name: seconds / number for name, seconds in answer.items()}


def _check_machine(session: RPCSession, target: Target, connection: Connection) -> None:
    """Raise before anything is sent to a machine that can't run it."""
    machine = remote_machine(session)
    architecture = architecture_of(machine.triple)
    cure = "Compile the model with the device's target"
    if target.architecture != architecture:
        cause = f"is {architecture}, but the library is for {target.architecture}"
        raise TargetError(str(connection), f"{cause} (target {target.name!r})", cure)
    features = target.features if machine.features is None else machine.features
    missing = missing_instructions(target, features)
    if missing:
        raise TargetError(
            str(connection), f"lacks what target {target.name!r} needs: {', '.join(missing)}", cure
        )
    version = machine.tvm or tvm.__version__
    if not is_same_series(version):
        raise RemoteError(
            str(connection),
            f"has TVM {version}, and this machine {tvm.__version__}",
            f"pip install 'apache-tvm=={tvm.__version__}' there",
        )


@contextmanager
def _uploaded(session: RPCSession, path: Path, connection: Connection) -> Iterator[str]:
    """Give the remote name of a library that arrived whole; it is removed at the end."""
    name = f"bitenc-{uuid.uuid4().hex}.so"
    content = bytearray(path.read_bytes())
    try:
        session.upload(content, name)  # TVM's server notices no full disk.
        if bytes(session.download(name)) != bytes(content):
            raise RemoteError(
                str(connection), "stored only part of the library", "Make room on its disk"
            )
        yield name
    finally:
        with suppress(Exception):  # A server that is gone removes its folder by itself.
            session.remove(name)
