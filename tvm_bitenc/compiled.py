"""`CompiledModel`: run, time, describe and save what `build` made."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm

from .arrays import checked_arrays
from .batch import TensorSpec
from .errors import BitencError, TargetError
from .machines import Machines
from .report import Report
from .target import Target, host_features


@dataclass(frozen=True)
class Benchmark:
    """Times of a model.

    Parameters
    ----------
    seconds : ndarray, shape (repeat,)
        Per run, each the mean of `number` runs.
    layers : dict of str to float
        Seconds per run of each kernel, by its name, in a separate pass with a clock around each.
    calls : tuple of (str, float)
        Kernel and seconds of every call of a run, in order: layers that are alike share a kernel.
        Empty where the clock wasn't around calls.
    """

    seconds: np.ndarray
    layers: dict[str, float]
    calls: tuple[tuple[str, float], ...] = ()

    @property
    def best(self) -> float:
        """Smallest seconds per run."""
        return float(self.seconds.min())

    def __str__(self) -> str:
        total = sum(self.layers.values())
        rows = [
            f"{1e6 * seconds:12.1f} us {100 * seconds / total:5.1f} %  {name}"
            for name, seconds in self.layers.items()
        ]
        return "\n".join([f"{1e6 * self.best:12.1f} us per run, by kernel:", *rows])


class CompiledModel:
    """A compiled network. Call it with arrays; see `tvm_bitenc.build`.

    Any number of threads may call one model, time it and read its report, all at the same time:
    each call gets the numbers that it would get alone, and other Python code runs meanwhile.

    Parameters
    ----------
    executable : relax.VMExecutable or tvm.runtime.Module
    target : Target
    inputs, outputs : sequence of TensorSpec
    report_ : Report
    largest_batch : int, optional
        Where the batch is dynamic.
    scheduled : tvm.IRModule, optional
        What the executable was built from, for `export_c`; None for a loaded library.
    """

    def __init__(
        self,
        executable,
        target: Target,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        report_: Report,
        largest_batch: int | None = None,
        scheduled: tvm.IRModule | None = None,
    ):
        self.executable = executable
        self.target = target
        self.inputs, self.outputs = list(inputs), list(outputs)
        self._report = report_
        self.largest_batch = largest_batch
        self.scheduled = scheduled
        self._machines = Machines(executable, target.threads, lambda: check_runs_here(target))

    def __call__(self, *inputs):
        """Run on numpy arrays, torch tensors or any DLPack tensors; numpy out.

        Returns
        -------
        ndarray, or a tuple of them where the model has several outputs

        Raises
        ------
        BitencError
            For a wrong number, shape or dtype of inputs.
        TargetError
            If the model was compiled for another CPU than this one.
        """
        result = self._machines.run(*self._tensors(inputs))
        if isinstance(result, tvm.runtime.Tensor):
            return result.numpy()
        arrays = tuple(tensor.numpy() for tensor in result)
        return arrays[0] if len(arrays) == 1 else arrays

    run = __call__

    def benchmark(self, *inputs, number: int = 10, repeat: int = 10) -> Benchmark:
        """Time the model, inputs already in place.

        Parameters
        ----------
        *inputs
            As for a call.
        number : int
            Runs per measurement.
        repeat : int
            Measurements.
        """
        if number < 1 or repeat < 1:
            raise BitencError("benchmark", f"of {number} x {repeat} runs", "Use numbers from 1 up")
        tensors, run = self._tensors(inputs), self._machines.run
        run(*tensors)
        seconds = np.empty(repeat)
        for i in range(repeat):
            start = time.perf_counter()
            for _ in range(number):
                run(*tensors)
            seconds[i] = (time.perf_counter() - start) / number
        calls = self._call_times(tensors, number * repeat)
        layers: dict[str, float] = defaultdict(float)
        for name, each in calls:
            layers[name] += each
        return Benchmark(seconds, dict(layers), calls)

    def report(self) -> Report:
        """What each layer became."""
        return self._report

    def export_library(self, path: str | Path, *, cc: str | None = None) -> Path:
        """Write a shared library that `tvm_bitenc.load`, or plain TVM, loads.

        The file appears whole or not at all.

        Parameters
        ----------
        path : path of the file
        cc : str, optional
            A C compiler that links for the target, with options. By default the first found of
            ``gcc`` (for this machine only), ``ziglang`` from PyPI, and GNU's cross-compiler.

        Raises
        ------
        LibraryError
            If the file can't be written, or there is no linker. In the latter case the objects are
            written beside `path`, and the message has the command that links them.
        """
        from .deploy.library import write_library

        return write_library(self, Path(path), cc)

    def export_c(self, folder: str | Path, *, name: str = "net") -> Path:
        """Write C sources and objects that run the model without heap or TVM.

        ``make`` in the folder builds an example program; ``NAME.h`` documents the interface,
        ``NAME_init`` and ``NAME_run``. Files that are there already are replaced.

        Parameters
        ----------
        folder : path
            Made if it isn't there.
        name : str
            Lower-case; begins all names in C, so two models of different names fit in one program.

        Raises
        ------
        UnsupportedError
            If the batch is dynamic, or the model needs more than kernels at run time.
        LibraryError
            If the folder can't be written, or the model was loaded from a library.
        """
        from .deploy.bundle import write_bundle

        return write_bundle(self, Path(folder), name)

    def __reduce_ex__(self, _protocol):
        """Refuse to be pickled or copied; there is no way to do it but a library file."""
        raise BitencError(
            "model",
            "can't be pickled or copied",
            "Write it with export_library and read it with tvm_bitenc.load; threads may share it",
        )

    def _tensors(self, inputs: Sequence) -> list[tvm.runtime.Tensor]:
        arrays = checked_arrays(inputs, self.inputs, self.largest_batch)
        return [tvm.runtime.tensor(array) for array in arrays]

    def _call_times(self, tensors: list, runs: int) -> tuple[tuple[str, float], ...]:
        """Kernel and mean seconds of every call of a run, in order."""
        machine = self._machines.new_machine()
        names: list[str] = []
        seconds: list[float] = []
        started = 0.0

        def clock(_function, name: str, before: bool, _result, *_arguments) -> int:
            nonlocal started
            if before:
                started = time.perf_counter()
            elif not name.startswith("vm.builtin") and name != "main":
                seconds.append(time.perf_counter() - started)
                names.append(name)
            return 0

        machine.set_instrument(clock)
        for _ in range(runs):
            machine["main"](*tensors)
        means = np.reshape(seconds, (runs, -1)).mean(0).tolist()
        return tuple(zip(names, means))


def check_runs_here(target: Target) -> None:
    """Raise `TargetError` if this machine can't run code for `target`."""
    host = tvm.target.codegen.llvm_get_system_triple().split("-")[0]
    if target.architecture != host:
        raise TargetError(
            f"target {target.name!r}",
            f"is for {target.architecture}, and this machine is {host}",
            "Export the library and run it there, or build with target='native'",
        )
    missing = missing_instructions(target, host_features())
    if missing:
        raise TargetError(
            f"target {target.name!r}",
            f"needs CPU features that this machine lacks: {', '.join(missing)}",
            "Build with target='native'",
        )


def missing_instructions(target: Target, present: Iterable[str]) -> list[str]:
    """Instruction sets that code for `target` may use and a CPU with these features lacks."""
    return sorted(instruction_sets(target.features) - instruction_sets(present))


def instruction_sets(features: Iterable[str]) -> set[str]:
    """Features that are instruction sets, not hints for LLVM's tuning."""
    prefixes = ("avx", "sse", "fma", "bmi", "popcnt", "lzcnt", "f16c", "gfni", "neon", "dotprod")
    return {name for name in features if name.startswith((*prefixes, "i8mm", "sve", "vfp"))}
