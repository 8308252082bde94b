"""Time a candidate beside the default, in turns, on this machine or another.

Whatever else a device does hits both alike, so their ratio counts. Where memory happens to lie
changes the speed of a kernel by tens of per cent, so both run in fresh memory several times.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm import rpc
from tvm.runtime import Tensor, tensor

from ..encoding import WORD_BITS
from ..errors import BitencError
from .artifact import Artifact

TURN_SECONDS = 1e-3
TURNS = 4  # Of each, in every placement of memory.
PLACEMENTS = 3
HOPELESS = 2.0  # Times the default's: such a candidate gets no more turns.


_numbers = itertools.count()


class WrongResult(BitencError):
    """A candidate that gives other bits than the default."""


@dataclass(frozen=True)
class Job:
    """What a device is asked to measure.

    Parameters
    ----------
    candidate, default : str
        Folders of the artifacts.
    shapes : sequence of (shape, dtype)
        Of the inputs, then of the output.
    placements, turns : int
    act_bits : int
        Bits of the codes that an input of uint8 holds.
    channels : int
        Of each group of the input: planes have zeros behind them.
    """

    candidate: str
    default: str
    shapes: Sequence[tuple[tuple[int, ...], str]]
    act_bits: int = 8
    channels: int = WORD_BITS
    placements: int = PLACEMENTS
    turns: int = TURNS


@dataclass(frozen=True)
class Times:
    """Best seconds per run, and how many times faster the candidate was in each placement.

    Parameters
    ----------
    seconds, default_seconds : float
    speedups : tuple of float
    """

    seconds: float
    default_seconds: float
    speedups: tuple[float, ...]


class _Loaded:
    """A function on a device."""

    def __init__(self, session: rpc.RPCSession, folder: str):
        artifact = Artifact(folder)
        self.device, self.constants = session.cpu(0), artifact.constants
        # A loaded file must not be written again: each has a name of its own.
        name = f"{os.path.basename(folder)}-{next(_numbers)}.so"
        session.upload(artifact.library, name)
        self.module = session.load_module(name)
        session.remove(name)

    def place(self, inputs: Sequence[np.ndarray], output: tuple, padding: int) -> None:
        """Put all arguments into fresh memory, `padding` bytes further than it would lie."""
        self.tensors: list[Tensor] = []
        self._padding = [tensor(np.zeros(padding, "uint8"), self.device)]
        for value in [*inputs, *self.constants, np.zeros(*output)]:
            self.tensors.append(tensor(np.ascontiguousarray(value), self.device))

    def seconds(self, runs: int, repeat: int = 1) -> float:
        """Seconds per run."""
        timed = self.module.time_evaluator("main", self.device, number=runs, repeat=repeat)
        return min(timed(*self.tensors).results)

    def output(self) -> np.ndarray:
        """Run once and return the output."""
        self.module["main"](*self.tensors)
        return self.tensors[-1].numpy()


def measure(session: rpc.RPCSession, job: Job) -> Times:
    """Measure a job.

    Raises
    ------
    WrongResult
        If the outputs differ in any bit.
    """
    rng = np.random.default_rng(0)
    inputs = [random_input(job, shape, dtype, rng) for shape, dtype in job.shapes[:-1]]
    default = _Loaded(session, job.default)
    candidate = default
    if job.candidate != job.default:
        candidate = _Loaded(session, job.candidate)
    pair: tuple[_Loaded, _Loaded] = (candidate, default)
    pairs: list[tuple[float, float]] = []
    for placement in range(job.placements):
        for loaded in dict.fromkeys(pair):
            loaded.place(inputs, job.shapes[-1], int(rng.integers(1, 64)) * 4096 + 64)
        if placement == 0 and not np.array_equal(candidate.output(), default.output()):
            raise WrongResult("candidate", "gives other bits than the default", "Report it")
        pairs.append(_in_turns(pair, job.turns))
        if pairs[-1][0] > HOPELESS * pairs[-1][1]:
            break
    best, best_default = (min(seconds) for seconds in zip(*pairs))
    return Times(best, best_default, tuple(default / candidate for candidate, default in pairs))


def _in_turns(pair: tuple[_Loaded, _Loaded], turns: int) -> tuple[float, float]:
    first = [loaded.seconds(1) for loaded in pair]
    runs = [max(1, int(TURN_SECONDS / seconds)) for seconds in first]
    if first[0] > HOPELESS * first[1]:
        turns = 1
    best = [float("inf")] * 2
    for _ in range(turns):
        for i, loaded in enumerate(pair):
            best[i] = min(best[i], loaded.seconds(runs[i]))
    return best[0], best[1]


def random_input(
    job: Job, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> np.ndarray:
    """Planes of random bits, random codes, or floats."""
    if dtype == "float32":
        return rng.standard_normal(shape, np.float32)
    if dtype == "uint8":
        return rng.integers(0, 2**job.act_bits, shape, dtype)
    words = -(-job.channels // WORD_BITS)  # Of a group.
    filled = [min(job.channels - word * WORD_BITS, WORD_BITS) for word in range(words)]
    masks = np.array([2**bits - 1 for bits in filled], np.uint64)
    return rng.integers(0, 2**64, shape, dtype) & np.tile(masks, shape[-1] // words)


def sleep(_session: rpc.RPCSession, job: Job, seconds: float = 0.5) -> Times:
    """Hold a device as long as a measurement would: for tests of schedulers."""
    time.sleep(seconds)
    return Times(seconds, seconds, (1.0,))
