"""`deploy`: upload a library to an RPC server, run it there, check and time it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from ..batch import BATCH, TensorSpec
from ..compiled import Benchmark
from ..errors import BitencError, RemoteError, TargetError, first_line
from .library import read_description
from .serve import CLOCK, LOOPBACK, PORT, TIMES


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
        """Elements that aren't the reference's to the bit."""
        if [a.shape for a in self.outputs] != [b.shape for b in reference]:
            raise BitencError("reference", "has outputs of other shapes", "Give the same model")
        return sum(int((a != b).sum()) for a, b in zip(self.outputs, reference))


@dataclass
class Connection:
    """Where an RPC server is: at `host` and `port`, or known to a tracker there by `key`."""

    host: str = LOOPBACK
    port: int = PORT
    key: str = ""
    is_tracker: bool = False
    timeout: int = 60
    _name: str = field(init=False, repr=False, default="")

    def __str__(self) -> str:
        return f"RPC {'tracker' if self.is_tracker else 'server'} {self.host}:{self.port}"

    def open(self):
        """Connect; `RemoteError` where nobody answers."""
        try:
            from tvm import rpc

            if self.is_tracker:
                tracker = rpc.connect_tracker(self.host, self.port)
                return tracker.request(self.key, session_timeout=self.timeout, max_retry=1)
            return rpc.connect(self.host, self.port, self.key, session_timeout=self.timeout)
        except Exception as error:  # TVM's own errors have no common class.
            raise RemoteError(
                str(self),
                f"can't be reached ({first_line(error)})",
                "Start `bitenc serve` on the device, and check host, port and key",
            ) from None


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
        If it was compiled for another CPU than the server's.
    RemoteError
        If the server can't be reached, stops, or has no room. Nothing is left there.
    """
    path, connection = Path(path), connection or Connection()
    description = read_description(path)
    session = connection.open()
    with _remote_errors(connection):
        _check_architecture(session, description["target"], connection)
        with _uploaded(session, path, connection) as name:
            machine = relax.VirtualMachine(session.load_module(name), session.cpu())
            return _run(session, machine, inputs, number)


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """Inputs of the right shapes and types; a dynamic batch is 1."""
    rng = np.random.default_rng(seed)
    shapes = [[1 if size == BATCH else size for size in spec.shape] for spec in specs]
    return [
        rng.standard_normal(shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else rng.integers(0, 2, shape).astype(spec.dtype)
        for spec, shape in zip(specs, shapes)
    ]


def _run(session, machine, inputs: Sequence[np.ndarray], number: int) -> Deployment:
    device = session.cpu()
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(array), device) for array in inputs]
    result = machine["main"](*tensors)
    parts = [result] if hasattr(result, "numpy") else [result[i] for i in range(len(result))]
    outputs = [part.numpy() for part in parts]
    timed = machine.time_evaluator("main", device, number=1, repeat=number)(*tensors)
    layers = _kernel_times(session, machine, tensors, number)
    return Deployment(outputs, Benchmark(np.array(timed.results), layers))


def _kernel_times(session, machine, tensors: list, number: int) -> dict[str, float]:
    """Seconds per run of each kernel; empty where the server has no clock for them."""
    try:
        clock, times = session.get_function(CLOCK), session.get_function(TIMES)
    except AttributeError:
        return {}
    clock(machine.module)
    for _ in range(number):
        machine["main"](*tensors)
    return {name: seconds / number for name, seconds in json.loads(str(times())).items()}


def _check_architecture(session, target: dict, connection: Connection) -> None:
    built_for = str(target["tvm"].get("mtriple", "")).split("-")[0]
    built_for = built_for or tvm.target.codegen.llvm_get_system_triple().split("-")[0]
    remote = str(session.get_function("target.llvm_get_system_triple")()).split("-")[0]
    if built_for != remote:
        raise TargetError(
            str(connection),
            f"is {remote}, but the library is for {built_for} (target {target['name']!r})",
            "Compile the model with the device's target",
        )


@contextmanager
def _uploaded(session, path: Path, connection: Connection) -> Iterator[str]:
    """Give the remote name of a library that arrived whole; it is removed at the end."""
    name = f"bitenc-{uuid.uuid4().hex}.so"
    content = bytearray(path.read_bytes())
    try:
        session.upload(content, name)
        if bytes(session.download(name)) != bytes(content):
            raise RemoteError(
                str(connection), "stored only part of the library", "Make room on its disk"
            )
        yield name
    finally:
        with suppress(Exception):  # A server that is gone removes its folder by itself.
            session.remove(name)


@contextmanager
def _remote_errors(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BitencError:
        raise
    except Exception as error:  # TVM's own errors have no common class.
        raise RemoteError(
            str(connection),
            f"failed ({first_line(error)})",
            "See the server's output; start it again if it has stopped",
        ) from None
