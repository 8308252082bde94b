"""`CompiledModel`: run, time, describe and save what `build` made."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

import numpy as np

from .errors import BitencError
from .program import Benchmark, CompiledProgram
from .runtime.arrays import checked_arrays
from .runtime.network import Runner

if TYPE_CHECKING:
    import tvm

    from .report.report import Report
    from .target import Target


class CompiledModel:
    """A compiled network. Call it with arrays; see `tvm_bitenc.build`.

    Any number of threads may call one model, time it and read its report, all at the same time:
    each call gets the numbers that it would get alone, and other Python code runs meanwhile.

    Parameters
    ----------
    program : CompiledProgram
    make_runner : callable
        Returns what runs it. Called before the first run; raises where the code can't run.
    """

    def __init__(self, program: CompiledProgram, make_runner: Callable[[], Runner]):
        self.program, self._make_runner = program, make_runner
        self.inputs, self.outputs = program.inputs, program.outputs
        self.largest_batch = program.largest_batch
        self._runner: Runner | None = None
        self._making = threading.Lock()

    @property
    def target(self) -> Target:
        """What it was compiled for."""
        return self.program.target

    @property
    def scheduled(self) -> tvm.IRModule | None:
        """The module that code was generated from; None of a library."""
        return self.program.scheduled

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
        arrays = checked_arrays(inputs, self.inputs, self.largest_batch)
        outputs = (self._runner or self._new_runner()).run(arrays)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

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
        arrays = checked_arrays(inputs, self.inputs, self.largest_batch)
        runner = self._runner or self._new_runner()
        run = runner.run
        run(arrays)
        seconds = np.empty(repeat)
        for i in range(repeat):
            start = time.perf_counter()
            for _ in range(number):
                run(arrays)
            seconds[i] = (time.perf_counter() - start) / number
        calls = tuple(runner.call_times(arrays, number * repeat))
        layers: dict[str, float] = defaultdict(float)
        for name, each in calls:
            layers[name] += each
        return Benchmark(seconds, dict(layers), calls)

    def report(self) -> Report:
        """What each layer became."""
        from .report.report import Report

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

    def _new_runner(self) -> Runner:
        with self._making:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner
