"""Running a compiled network in the process that compiled it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.network import Network, aligned_address
from ..runtime.size import ALIGNMENT
from ..runtime.specs import TensorSpec
from ..threads import prepare_pool, use_threads
from .code import CALL, NAME, CompiledNetwork


class JitNetwork(Network):
    """A network whose code LLVM links into this process.

    Parameters
    ----------
    network : CompiledNetwork
    inputs, outputs : sequence of TensorSpec
    threads : int, optional
        That the parallel loops of one call use; None for every core.
    """

    def __init__(
        self,
        network: CompiledNetwork,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        threads: int | None,
    ):
        function = network.module[CALL.format(NAME)]
        function.release_gil = True  # The default, but for a variable of the environment.
        self._module = network.module  # The code goes when it does.
        self._memory = np.empty(len(network.plan.weights) + ALIGNMENT, np.uint8)
        address = aligned_address(self._memory)
        start = address - self._memory.ctypes.data
        self._memory[start : start + len(network.plan.weights)] = np.frombuffer(
            network.plan.weights, np.uint8
        )
        prepare_pool()
        prepare = None if threads == 1 else lambda: use_threads(threads)
        super().__init__(function, address, network.interface, inputs, outputs, prepare)
