"""`CompiledModel`: run, time, describe and save what `build` made."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, SupportsIndex

import numpy as np
import tvm

from .arrays import checked_arrays
from .errors import BitencError
from .host import check_runs_here
from .machines import Machines
from .printable import printable
from .program import Benchmark, CompiledProgram
from .report.data import LayerRow
from .report.report import Report
from .vta.work import Cycles, work_of


class CompiledModel:
    """A compiled network. Call it with arrays; see `tvm_bitenc.build`.

    Any number of threads may call one model, time it and read its report, all at the same time:
    each call gets the numbers that it would get alone, and other Python code runs meanwhile.

    Parameters
    ----------
    program : CompiledProgram
    """

    def __init__(self, program: CompiledProgram):
        self.program = program
        self.executable, self.target = program.executable, program.target
        self.inputs, self.outputs = program.inputs, program.outputs
        self.largest_batch, self.scheduled = program.largest_batch, program.scheduled
        target = program.target  # `self` would make a circle, and keep the library mapped.
        self._machines = Machines(
            program.executable, target.threads, lambda: check_runs_here(target)
        )

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
        return Report.from_dict(self.program.report)

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

        return write_library(replace(self.program, report=self.report().to_dict()), Path(path), cc)

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

        return write_bundle(self.program, Path(folder), name)

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
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

        def clock(_function: object, name: str, before: bool, *_others: object) -> int:
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


class AcceleratedModel(CompiledModel):
    """As `CompiledModel`; once it ran on the Verilog, its report holds that run's counters."""

    def __init__(self, program: CompiledProgram):
        from .vta.runtime import recorded

        super().__init__(program)
        self._recorded = recorded
        self._runs: dict[str, Cycles] = {}

    def __call__(self, *inputs):
        """Run; see `CompiledModel`."""
        with self._recorded() as runs:
            result = super().__call__(*inputs)
        self._runs = {printable(layer): cycles for layer, cycles in runs.items()}
        return result

    run = __call__

    def report(self) -> Report:
        """What each layer became, with cycles of the model or, after a run, of the Verilog."""
        report = super().report()
        layers = [_measured(row, self._runs, report.macs_per_cycle) for row in report.layers]
        return replace(report, layers=layers)


def _measured(row: LayerRow, runs: Mapping[str, Cycles], peak: int) -> LayerRow:
    if row.work is None or row.name not in runs:
        return row
    return replace(row, work=work_of(runs[row.name], row.work.binary_macs, peak, True))


def model_of(program: CompiledProgram) -> CompiledModel:
    """Make a program callable."""
    kind = CompiledModel if program.target.accelerator is None else AcceleratedModel
    return kind(program)


def load(path: str | Path) -> CompiledModel:
    """Load a library written by `CompiledModel.export_library`.

    Parameters
    ----------
    path : path of the file

    Raises
    ------
    LibraryError
        If the file is missing, truncated, altered, of another format, or of another TVM.
    TargetError
        If it was compiled for another CPU than this one.
    """
    from .deploy.library import load_program

    return model_of(load_program(Path(path)))
