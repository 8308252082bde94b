"""What a compiled model calls for each of its programs: the accelerator, or what stands for it.

A process that loads an exported library with plain TVM imports this module first. With a `Device`,
`running_on` has a library's programs run on hardware, whatever it was built for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import tvm

from ..accelerator import Accelerator
from .binary import loads
from .functional import FunctionalSimulator
from .program import Program
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
        Planes (N, ...) of each operand, name of the layer, name of the simulator, the program as
        text, and the tensor to write, uint64 planes (N, H, W, bits, words) or int32 accumulators
        (N, H, W, channels).
    """
    *operands, layer, simulator, text, out = arguments
    program, accelerator = _loads(str(text))
    batches = [tensor.numpy() for tensor in operands]
    execute = SIMULATORS[str(simulator)] if _device.get() is None else _hardware
    results = [
        execute(str(layer), program, accelerator, np.concatenate(sample))
        for sample in zip(*([x.reshape(-1) for x in batch] for batch in batches))
    ]
    words, is_planes = np.stack(results), str(out.dtype) == "uint64"
    out.copyfrom(words.reshape(out.shape) if is_planes else program.accumulators(words, out.shape))


def _functional(
    _layer: str, program: Program, accelerator: Accelerator, operands: np.ndarray
) -> np.ndarray:
    memory = program.image(operands)
    FunctionalSimulator(accelerator, memory).run(program.instructions)
    return memory[program.output_address :]


def _verilog(
    layer: str, program: Program, accelerator: Accelerator, operands: np.ndarray
) -> np.ndarray:
    memory = program.image(operands)
    _record(layer, VerilatorSimulator(accelerator, memory).run_words(len(program.instructions)))
    return memory[program.output_address :]


def _hardware(
    layer: str, program: Program, accelerator: Accelerator, operands: np.ndarray
) -> np.ndarray:
    device = _device.get()
    assert device is not None
    device.check(accelerator)
    memory = program.image(operands)
    _record(layer, device.run_words(memory, len(program.instructions)))
    return memory[program.output_address :]


def _record(layer: str, cycles: Cycles) -> None:
    runs = _runs.get()
    if runs is not None:
        runs[layer] = runs[layer] + cycles if layer in runs else cycles


SIMULATORS = {"functional": _functional, "verilog": _verilog}
