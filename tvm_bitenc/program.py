"""A compiled network as data: what it takes to run it, to write it to a file, or to describe it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .runtime.specs import TensorSpec

if TYPE_CHECKING:  # Of a library that is only run, nothing of this is there.
    import tvm
    from tvm import relax

    from .entry.code import CompiledNetwork
    from .target import Target


@dataclass(frozen=True, eq=False)
class CompiledProgram:
    """What `build` made, or a library file holds.

    Parameters
    ----------
    find_target : callable
        Returns what it was compiled for, a `Target`: of a library's that needs TVM.
    inputs, outputs : list of TensorSpec
    report : dict
        What each layer became: `report.Report` reads it.
    largest_batch : int, optional
        Where the batch is dynamic.
    network : CompiledNetwork, optional
        The network as one function, where it is one; None of a library.
    executable : relax.VMExecutable, optional
        What TVM's virtual machine runs where it isn't.
    scheduled : tvm.IRModule, optional
        What they were built from; None of a library.
    """

    find_target: Callable[[], Target]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    report: dict
    largest_batch: int | None = None
    network: CompiledNetwork | None = None
    executable: relax.VMExecutable | tvm.runtime.Module | None = None
    scheduled: tvm.IRModule | None = None

    @cached_property
    def target(self) -> Target:
        """What it was compiled for."""
        return self.find_target()

    @property
    def returns_tuple(self) -> bool:
        """Whether `main` returns a tuple, be it of one output."""
        return self.scheduled is not None and hasattr(self.scheduled["main"].ret_ty, "fields")


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
        total = sum(self.layers.values()) or 1.0  # A clock may see nothing of a tiny network.
        rows = [
            f"{1e6 * seconds:12.1f} us {100 * seconds / total:5.1f} %  {name}"
            for name, seconds in self.layers.items()
        ]
        return "\n".join([f"{1e6 * self.best:12.1f} us per run, by kernel:", *rows])
