"""One accelerator in hardware, by its registers."""

from __future__ import annotations

import time

import numpy as np

from ...accelerator import Accelerator
from ...encoding import WORD_BITS
from ..functional import AcceleratorError
from ..registers import COUNTERS, IDENTIFICATION, REGISTERS, VERSION, instruction_set, sizes
from ..verilator import ERRORS
from ..work import Cycles
from .board import Board, Memory

WORD_BYTES = WORD_BITS // 8
_HIGHEST = 1 << 35  # Where the addresses of the accelerator end, in bytes.
_POLL = 0.01  # Seconds after which the status is read again, whether an interrupt came or not.


class Device:
    """An accelerator that is what programs were compiled for: that is checked here.

    Parameters
    ----------
    board : Board
    accelerator : Accelerator
        Whose programs it will run.
    timeout : float
        Seconds that a program may take.

    Raises
    ------
    AcceleratorError
        If identification, version, instruction set or sizes are others.
    """

    def __init__(self, board: Board, accelerator: Accelerator, timeout: float = 10.0):
        self.board, self.accelerator, self.timeout = board, accelerator, timeout
        self._memory: Memory | None = None
        self._check()
        self.reset()

    def check(self, accelerator: Accelerator) -> None:
        """Refuse programs that were compiled for other sizes.

        Raises
        ------
        AcceleratorError
            If a size differs; the latency of memory may.
        """
        if accelerator != self.accelerator:
            self._check_sizes(sizes(accelerator), sizes(self.accelerator))

    def run_words(self, memory: np.ndarray, count: int) -> Cycles:
        """Run `count` instructions from word 0 of a memory, uint64, in place.

        Raises
        ------
        AcceleratorError
            If the accelerator raises its error flag, or isn't done in time.
        """
        shared = self._shared(memory.size)
        shared.words[: memory.size] = memory
        shared.to_device()
        self._write("base_low", shared.address & 0xFFFFFFFF)
        self._write("base_high", shared.address >> 32)
        self._write("instructions", count)
        self._write("memory_words", memory.size)
        self._set("control", start=1, interrupt_enable=1)
        error = self._wait()
        self._set("status", done=1)
        if error:
            cause = ERRORS.get(error, f"error {error}")
            raise AcceleratorError(
                "accelerator", cause, "The functional simulator says which instruction"
            )
        shared.to_host()
        memory[:] = shared.words[: memory.size]
        return Cycles(*map(self._read, COUNTERS))

    def reset(self) -> None:
        """End whatever runs."""
        self._set("control", reset=1)

    def _wait(self) -> int:
        """Error code of the program that runs, once it ends."""
        status, end = REGISTERS["status"], time.monotonic() + self.timeout
        while True:
            value = self._read("status")
            if status.field("done").of(value):
                return status.field("error").of(value)
            if time.monotonic() > end:
                self.reset()
                cause = f"isn't done after {self.timeout:g} s"
                cure = "Give Device a longer timeout, or check its clock and its way to memory"
                raise AcceleratorError("accelerator", cause, cure)
            self.board.wait(_POLL)

    def _shared(self, words: int) -> Memory:
        """Memory of the board for so many words, the one of before where it suffices."""
        if self._memory is None or self._memory.words.size < words:
            memory = self.board.memory(words)
            first, end = memory.address, memory.address + WORD_BYTES * words
            if first % WORD_BYTES or end > _HIGHEST:
                cause = f"memory from {first:#x} to {end:#x}"
                raise AcceleratorError("accelerator", cause, "Use an aligned one, below 32 GiB")
            self._memory = memory
        return self._memory

    def _check(self) -> None:
        """Refuse what isn't this accelerator."""
        expected = dict(
            identification=IDENTIFICATION, version=VERSION, instruction_set=instruction_set()
        )
        for name, value in expected.items():
            found = self._read(name)
            if found != value:
                raise AcceleratorError(
                    "accelerator",
                    f"its {name} reads {found:#x} and not {value:#x}",
                    "Check the address of its registers, or build the bitstream from this version",
                )
        wanted = sizes(self.accelerator)
        self._check_sizes(wanted, {name: self._read(name.lower()) for name in wanted})

    def _check_sizes(self, wanted: dict[str, int], found: dict[str, int]) -> None:
        for name, size in wanted.items():
            if found[name] != size:
                raise AcceleratorError(
                    "accelerator",
                    f"its {name} is {found[name]}, the program's {size}",
                    "Build the program for the file that the bitstream was made of",
                )

    def _read(self, name: str) -> int:
        return self.board.read(REGISTERS[name].offset)

    def _write(self, name: str, value: int) -> None:
        self.board.write(REGISTERS[name].offset, value)

    def _set(self, name: str, **fields: int) -> None:
        """Write some fields, and 0 to the others."""
        register = REGISTERS[name]
        values = (value << register.field(field).low for field, value in fields.items())
        self._write(name, sum(values))
