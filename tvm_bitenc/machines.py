"""Virtual machines of one network: one for each call that runs at the same time.

TVM's virtual machine isn't reentrant: two threads in one corrupt its frames. So a call takes a
machine that is free, or makes one, and puts it back. Machines share weights and code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from .threads import prepare_pool, use_threads


class Machines:
    """The machines of an executable, made on demand and kept.

    Parameters
    ----------
    executable : relax.VMExecutable or tvm.runtime.Module
    threads : int, optional
        That the parallel loops of one call use; None for every core.
    check : callable
        Raises where the code can't run.
    """

    def __init__(
        self,
        executable: relax.VMExecutable | tvm.runtime.Module,
        threads: int | None,
        check: Callable[[], None],
    ):
        self.executable, self.threads, self.check = executable, threads, check
        self._idle: list[tvm_ffi.Function] = []
        self._making = threading.Lock()

    def run(self, *tensors: tvm.runtime.Tensor) -> Any:
        """Run `main` in a machine that no other call is in; a tensor, or an array of them."""
        if self.threads != 1:
            use_threads(self.threads)
        try:
            main = self._idle.pop()  # One step for Python: no lock is needed.
        except IndexError:
            main = self._new_main()
        result = main(*tensors)
        self._idle.append(main)  # After an error it isn't put back: nobody knows its state.
        return result

    def new_machine(self) -> relax.VirtualMachine:
        """Make a machine that isn't shared."""
        with self._making:  # The first one links the code.
            self.check()
            prepare_pool()
            return relax.VirtualMachine(self.executable, tvm.cpu())

    def _new_main(self) -> tvm_ffi.Function:
        main = self.new_machine()["main"]
        main.release_gil = True  # The default, but for a variable of the environment.
        return main
