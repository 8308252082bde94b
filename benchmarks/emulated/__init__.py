"""Run kernels of other CPUs under QEMU: results bit for bit, and executed instructions.

QEMU knows what each instruction does, and nothing of how long it takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_bitenc.target import Target

from .module import EmulatedModule, ModuleRun
from .program import Plan, Program
from .tools import missing_tools

__all__ = ["EmulatedKernel", "EmulatedModule", "ModuleRun", "Run", "missing_tools"]


@dataclass(frozen=True, eq=False)
class Run:
    """What one run of a kernel gave.

    Parameters
    ----------
    output : ndarray
    instructions : int
    """

    output: np.ndarray
    instructions: int


class EmulatedKernel:
    """A kernel built for a target that QEMU runs.

    Parameters
    ----------
    function : tirx.PrimFunc
        Takes tensors, the output last.
    target : Target
        One whose kernels start no threads.
    """

    def __init__(self, function, target: Target):
        self.program = Program({"main": function}, target)

    @property
    def assembly(self) -> str:
        """The kernel's assembly."""
        return self.program.assembly

    def run(self, inputs: Sequence[np.ndarray], shape: tuple[int, ...], dtype: str) -> Run:
        """Run once.

        Parameters
        ----------
        inputs : sequence of ndarray
        shape, dtype
            Of the output.
        """
        plan = Plan(self.program)
        numbers = [plan.tensor(value) for value in inputs]
        output = plan.output(shape, dtype)
        plan.call("main", [*numbers, output])
        (found,), (instructions,) = plan.run([output])
        return Run(found, instructions)
