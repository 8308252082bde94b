"""What a compiled model calls for each of its programs: the accelerator, or what stands for it.

A process that loads an exported library with plain TVM imports this module first. With a `Device`,
`running_on` has a library's programs run on hardware, whatever it was built for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import tvm

from ..accelerator import Accelerator
from .binary import loads
from .functional import FunctionalSimulator
from .program import Layer, Program
from .verilator import VerilatorSimulator
from .work import Cycles

if TYPE_CHECKING:
    from .driver import Device

RUN = "tvm_bitenc.vta.run"
_loads = lru_cache(maxsize=256)(loads)
_runs: ContextVar[dict[str, Cycles] | None] = ContextVar("runs", default=None)
_device: ContextVar[Device | None] = ContextVar("device", default=None)


@contextmanager
def recorded() -> Iterator[dict[str, Cycles]]:
    """Collect the counters of what runs inside on the Verilog, per layer and over all samples."""
    runs: dict[str, Cycles] = {}
    token = _runs.set(runs)
    try:
        yield runs
    finally:
        _runs.reset(token)


@contextmanager
def running_on(device: Device) -> Iterator[None]:
    """Run the programs of all libraries that are called inside on a device.

    Parameters
    ----------
    device : Device
    """
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


@tvm.register_global_func(RUN, override=True)
def run(*arguments) -> None:
    """Run a program on each sample of a batch.

    Parameters
    ----------
    *arguments
        Planes (N, ...) of each operand, or float32 numbers (N, H, W, channels), name of the
        simulator, the program as text, and the tensors to write, uint64 planes (N, H, W, bits,
        words), int32 accumulators or float32 numbers (N, H, W, channels).
    """
    place = next(i for i, each in enumerate(arguments) if isinstance(each, str))
    operands, (simulator, text, *results) = arguments[:place], arguments[place:]
    program, accelerator = _loads(str(text))
    batches = [tensor.numpy() for tensor in operands]
    execute = SIMULATORS[str(simulator)] if _device.get() is None else _hardware
    found = []
    for sample in zip(*batches):
        memory = program.image(program.operands(sample))
        execute(program, accelerator, memory)
        found.append(program.results(memory))
    for output, result, words in zip(program.outputs, results, zip(*found)):
        result.copyfrom(output.shaped(np.stack(words), result.shape))


def _functional(program: Program, accelerator: Accelerator, memory: np.ndarray) -> None:
    FunctionalSimulator(accelerator, memory).run(program.instructions)


def _verilog(program: Program, accelerator: Accelerator, memory: np.ndarray) -> None:
    _record(VerilatorSimulator(accelerator, memory).run_layers(program))


def _hardware(program: Program, accelerator: Accelerator, memory: np.ndarray) -> None:
    device = _device.get()
    assert device is not None
    device.check(accelerator)
    cycles = device.run_words(memory, len(program.instructions))
    if len(program.layers) == 1:  # Registers count whole programs.
        _record([(program.layers[0], cycles)])


def _record(counted: Iterable[tuple[Layer, Cycles]]) -> None:
    runs = _runs.get()
    if runs is None:
        return
    for layer, cycles in counted:
        runs[layer.name] = runs[layer.name] + cycles if layer.name in runs else cycles


SIMULATORS = {"functional": _functional, "verilog": _verilog}
