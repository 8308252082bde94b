"""What a compiled model calls for each of its programs: the accelerator, or what stands for it.

A process that loads an exported library with plain TVM imports this module first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

import numpy as np
import tvm

from ..accelerator import Accelerator
from .binary import loads
from .functional import FunctionalSimulator
from .program import Program
from .verilator import VerilatorSimulator
from .work import Cycles

RUN = "tvm_bitenc.vta.run"
_loads = lru_cache(maxsize=256)(loads)
_runs: ContextVar[dict[str, Cycles] | None] = ContextVar("runs", default=None)


@contextmanager
def recorded() -> Iterator[dict[str, Cycles]]:
    """Collect the counters of what runs inside on the Verilog, per layer and over all samples."""
    runs: dict[str, Cycles] = {}
    token = _runs.set(runs)
    try:
        yield runs
    finally:
        _runs.reset(token)


@tvm.register_global_func(RUN, override=True)
def run(*arguments) -> None:
    """Run a program on each sample of a batch.

    Parameters
    ----------
    *arguments
        Planes (N, ...) of each operand, or float32 numbers of a residual, name of the layer, name
        of the simulator, the program as text, and the tensor to write, uint64 planes (N, H, W,
        bits, words), int32 accumulators or float32 numbers (N, H, W, channels).
    """
    *operands, layer, simulator, text, out = arguments
    program, accelerator = _loads(str(text))
    batches = [tensor.numpy() for tensor in operands]
    results = [
        SIMULATORS[str(simulator)](str(layer), program, accelerator, np.concatenate(sample))
        for sample in zip(*([_words(program, x) for x in batch] for batch in batches))
    ]
    words = np.stack(results)
    if str(out.dtype) == "float32":
        sample = (1, *out.shape[1:])
        out.copyfrom(np.concatenate([program.floats(each, sample) for each in results]))
    elif str(out.dtype) == "uint64":
        out.copyfrom(words.reshape(out.shape))
    else:
        out.copyfrom(program.accumulators(words, out.shape))


def _words(program: Program, operand: np.ndarray) -> np.ndarray:
    """One sample's planes, or float residual, as the program reads them."""
    return program.residual(operand) if operand.dtype == np.float32 else operand.reshape(-1)


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
    cycles = VerilatorSimulator(accelerator, memory).run_words(len(program.instructions))
    runs = _runs.get()
    if runs is not None:
        runs[layer] = runs[layer] + cycles if layer in runs else cycles
    return memory[program.output_address :]


SIMULATORS = {"functional": _functional, "verilog": _verilog}
