"""Virtual machines of one network: one for each call that runs at the same time.

TVM's virtual machine isn't reentrant: two threads in one corrupt its frames. So a call takes a
machine that is free, or makes one, and puts it back. Machines share weights and code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from .threads import prepare_pool, use_threads


class Machines:
    """A `runtime.network.Runner`: the machines of an executable, made on demand and kept.

    Parameters
    ----------
    executable : relax.VMExecutable or tvm.runtime.Module
    threads : int, optional
        That the parallel loops of one call use; None for every core.
    """

    def __init__(self, executable: relax.VMExecutable | tvm.runtime.Module, threads: int | None):
        self.executable, self.threads = executable, threads
        self._idle: list[tvm_ffi.Function] = []
        self._making = threading.Lock()

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run `main` in a machine that no other call is in."""
        if self.threads != 1:
            use_threads(self.threads)
        try:
            main = self._idle.pop()  # One step for Python: no lock is needed.
        except IndexError:
            main = self._new_main()
        result = main(*map(tvm.runtime.tensor, arrays))
        self._idle.append(main)  # After an error it isn't put back: nobody knows its state.
        tensors = [result] if isinstance(result, tvm.runtime.Tensor) else result
        return [tensor.numpy() for tensor in tensors]

    def call_times(self, arrays: Sequence[np.ndarray], runs: int) -> list[tuple[str, float]]:
        """Kernel and mean seconds of every call of a run, in order."""
        machine, tensors = self._new_machine(), [tvm.runtime.tensor(array) for array in arrays]
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
        return list(zip(names, np.reshape(seconds, (runs, -1)).mean(0).tolist()))

    def _new_machine(self) -> relax.VirtualMachine:
        with self._making:  # The first one links the code.
            prepare_pool()
            return relax.VirtualMachine(self.executable, tvm.cpu())

    def _new_main(self) -> tvm_ffi.Function:
        main = self._new_machine()["main"]
        main.release_gil = True  # The default, but for a variable of the environment.
        return main
