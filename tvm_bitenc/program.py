"""A compiled network as data: what it takes to run it, to write it to a file, or to describe it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from .batch import TensorSpec
from .target import Target


@dataclass(frozen=True, eq=False)
class CompiledProgram:
    """What `build` made, or a library file holds.

    Parameters
    ----------
    executable : relax.VMExecutable, tvm.runtime.Module or None
        The latter of a loaded library; None where the code of one wasn't loaded.
    target : Target
    inputs, outputs : list of TensorSpec
    report : dict
        What each layer became: `report.Report` reads it.
    largest_batch : int, optional
        Where the batch is dynamic.
    scheduled : tvm.IRModule, optional
        What the executable was built from; None for a library.
    """

    executable: relax.VMExecutable | tvm.runtime.Module | None
    target: Target
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    report: dict
    largest_batch: int | None = None
    scheduled: tvm.IRModule | None = None


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
