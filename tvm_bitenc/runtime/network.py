"""Running a network that is one function: ``steps(inputs, outputs, weights, arena, batch, ...)``.

Nothing is shared between calls but weights, which nobody writes: any number of threads may run one
network. Each call has an arena of its own, which the next one takes over.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from msgspec import Meta

from ..decode import Name
from .arrays import numpy_dtype
from .size import ALIGNMENT, Size
from .specs import BATCH, TensorSpec

_Byte = ctypes.c_char
ALL_STEPS = (1 << 31) - 1


class Runner(Protocol):
    """Whatever runs a compiled model."""

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs that `arrays.checked_arrays` returned."""

    def call_times(self, arrays: Sequence[np.ndarray], runs: int) -> list[tuple[str, float]]:
        """Kernel and mean seconds of every call of a run, in order."""


@dataclass(frozen=True)
class Interface:
    """What a caller must know of the function.

    Parameters
    ----------
    arena : Size
        Bytes of memory that a run needs, at a multiple of `ALIGNMENT`.
    outputs : tuple of tuple of Size
        Shapes of the outputs.
    steps : tuple of str
        Names of the kernels that a run calls, in order.
    """

    arena: Size
    outputs: Annotated[tuple[tuple[Size, ...], ...], Meta(max_length=4096)]
    steps: Annotated[tuple[Name, ...], Meta(max_length=1 << 20)]


class Network:
    """A function, its weights, and arenas that calls take turns in.

    Parameters
    ----------
    function : callable
        Takes addresses of inputs, outputs, weights and arena, then the batch and which steps to
        run: from the first to before the last.
    weights : int
        Their address.
    interface : Interface
    inputs, outputs : sequence of TensorSpec
    prepare : callable
        Called before each run, in the thread that runs.
    """

    def __init__(
        self,
        function: Callable[..., object],
        weights: int,
        interface: Interface,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        prepare: Callable[[], None] | None = None,
    ):
        self._function, self._weights, self._interface = function, weights, interface
        self._prepare = prepare
        self._batch_input = next((i for i, spec in enumerate(inputs) if BATCH in spec.shape), None)
        self._dtypes = [numpy_dtype(spec.dtype) for spec in outputs]
        self._fixed = [tuple(size.fixed for size in shape) for shape in interface.outputs]
        self._arenas: list[_Arena] = []

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs that `arrays.checked_arrays` returned."""
        arena, outputs, arguments = self._ready(arrays)
        self._function(*arguments, 0, ALL_STEPS)
        self._arenas.append(arena)
        return outputs

    def call_times(self, arrays: Sequence[np.ndarray], runs: int) -> list[tuple[str, float]]:
        """Kernel and usual seconds of every call of a run, without what a call costs by itself."""
        arena, _outputs, arguments = self._ready(arrays)
        steps = len(self._interface.steps)
        seconds = np.empty((runs, steps + 1))
        for each in seconds:
            for i in range(steps + 1):  # The last one is a call of nothing.
                start = time.perf_counter()
                self._function(*arguments, i, i + 1)
                each[i] = time.perf_counter() - start
        self._arenas.append(arena)
        # Each is compared with the call of nothing of its own moment: the clock's rate drifts.
        usual = np.median(seconds[:, :-1] - seconds[:, -1:], 0)
        return [(name, max(float(s), 0.0)) for name, s in zip(self._interface.steps, usual)]

    def _ready(self, arrays: Sequence[np.ndarray]) -> tuple[_Arena, list[np.ndarray], list[int]]:
        """Arena, outputs, and the function's arguments but for which steps to run."""
        if self._prepare is not None:
            self._prepare()
        batch = 0 if self._batch_input is None else arrays[self._batch_input].shape[0]
        outputs, arena = self._new_outputs(batch), self._take_arena(batch)
        addresses = map(address_of, (*arrays, *outputs))
        return arena, outputs, [*addresses, self._weights, arena.address, batch]

    def _new_outputs(self, batch: int) -> list[np.ndarray]:
        shapes = self._fixed
        if self._batch_input is not None:
            shapes = [tuple(s.of(batch) for s in shape) for shape in self._interface.outputs]
        return [np.empty(shape, dtype) for shape, dtype in zip(shapes, self._dtypes)]

    def _take_arena(self, batch: int) -> _Arena:
        needed = self._interface.arena.of(batch)
        try:
            arena = self._arenas.pop()  # One step for Python: no lock is needed.
        except IndexError:
            return _Arena(needed)
        return arena if arena.nbytes >= needed else _Arena(needed)


class _Arena:
    def __init__(self, nbytes: int):
        self.nbytes, self._memory = nbytes, np.empty(nbytes + ALIGNMENT, np.uint8)
        self.address = aligned_address(self._memory)


def aligned_address(memory: np.ndarray) -> int:
    """Return the first address in an array that is a multiple of `ALIGNMENT`."""
    address = address_of(memory)
    return address + -address % ALIGNMENT


def address_of(array: np.ndarray) -> int:
    """Where the elements of an array are."""
    try:  # Four times as fast as the other way.
        return ctypes.addressof(_Byte.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # It can't be written, or is empty.
        return array.ctypes.data
