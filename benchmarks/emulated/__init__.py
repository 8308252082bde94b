"""Run kernels of other CPUs under QEMU: results bit for bit, and executed instructions.

QEMU knows what each instruction does, and nothing of how long it takes. LLVM's models of CPUs say
how many of them start in a cycle; llvm-mca asks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tvm_bitenc.target import Target

from .cycles import estimated_cycles, missing_model
from .module import EmulatedModule, ModuleRun
from .program import Plan, Program
from .tools import missing_tools

__all__ = ["EmulatedKernel", "EmulatedModule", "ModuleRun", "Run", "missing_model", "missing_tools"]


@dataclass(frozen=True, eq=False)
class Run:
    """What one run of a kernel gave.

    Parameters
    ----------
    output : ndarray
    instructions : int
    cycles : float, optional
        What LLVM's model of the CPU estimates, with all data in the first-level cache.
    """

    output: np.ndarray
    instructions: int
    cycles: float | None = None


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

    def run(
        self,
        inputs: Sequence[np.ndarray],
        shape: tuple[int, ...],
        dtype: str,
        with_cycles: bool = False,
    ) -> Run:
        """Run once.

        Parameters
        ----------
        inputs : sequence of ndarray
        shape, dtype
            Of the output.
        with_cycles : bool
            Estimate cycles as well, where `missing_model` gives no reason against it.
        """
        plan = Plan(self.program)
        numbers = [plan.tensor(value) for value in inputs]
        output = plan.output(shape, dtype)
        plan.call("main", [*numbers, output])
        run = plan.run([output], with_cycles)
        cycles = estimated_cycles(self.program, run.blocks) if with_cycles else None
        return Run(run.outputs[0], run.instructions[0], cycles)
