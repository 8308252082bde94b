"""Parameters of an accelerator, from a file in targets/vta/."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .data import data_folder
from .decode import WRITTEN_BY_HAND, Document, Source
from .encoding import WORD_BITS
from .errors import TargetError

BUFFERS = ("act", "weight", "param", "tap", "pass", "residual", "out")
MOST_ROWS = 1 << 24
Rows = Annotated[int, Meta(ge=1, le=MOST_ROWS)]
Entries = Annotated[int, Meta(ge=0, le=MOST_ROWS)]  # `LEAST` says why few are refused.
LEAST = {
    "instruction_queue": (1, ": without a queue no module gets an instruction"),
    "token_queue": (2, ": a double buffer gives two tokens before one is taken"),
}


@dataclass(frozen=True)
class Accelerator:
    """Sizes of an accelerator.

    Parameters
    ----------
    channels : int
        DM: output channels computed at a time; divides 64.
    pixels : int
        DN: output pixels computed at a time; a power of two.
    act_rows, weight_rows, param_rows, tap_rows, pass_rows, residual_rows, out_rows : int
        Rows of each buffer.
    latency : int
        Cycles from a read's address to its data.
    instruction_queue, token_queue : int
        Entries of each queue.
    outstanding : int
        Reads that the memory may owe an answer, and as many writes: latency is hidden where they
        are more than its cycles.
    """

    channels: Rows = 8
    pixels: Rows = 8
    act_rows: Rows = 1024
    weight_rows: Rows = 2048
    param_rows: Rows = 1024
    tap_rows: Rows = 256
    pass_rows: Rows = 64
    residual_rows: Rows = 4096
    out_rows: Rows = 4096
    latency: Rows = 100
    instruction_queue: Rows = 8
    token_queue: Rows = 8
    outstanding: Rows = 128

    def __post_init__(self):
        for name, value in asdict(self).items():
            least, why = LEAST.get(name, (1, ""))
            if type(value) is not int or not least <= value <= MOST_ROWS:
                cure = f"Give an integer from {least} on"
                raise TargetError("accelerator", f"{name} = {value!r}{why}", cure)
        if WORD_BITS % self.channels or self.channels % 2:
            raise TargetError("accelerator", f"DM = {self.channels}", "Use 2, 4, 8, 16, 32 or 64")
        if self.pixels & (self.pixels - 1):
            raise TargetError("accelerator", f"DN = {self.pixels}", "Use a power of two")

    def rows(self, buffer: str) -> int:
        """Rows of a buffer of `BUFFERS`."""
        return getattr(self, f"{buffer}_rows")

    @property
    def macs_per_cycle(self) -> int:
        """Binary multiply-accumulates per cycle."""
        return self.channels * self.pixels * WORD_BITS


class Array(Document, frozen=True):
    """``[array]`` of a file."""

    DM: Rows
    DK: Literal[64]
    DN: Rows


class Buffers(Document, frozen=True):
    """``[buffers]``: rows of each."""

    act: Rows
    weight: Rows
    param: Rows
    tap: Rows
    residual: Rows
    out: Rows
    pass_: Rows = msgspec.field(name="pass")


class Memory(Document, frozen=True):
    """``[memory]``."""

    bus_bytes: Literal[8]
    latency: Rows
    outstanding: Rows = 128


class Queues(Document, frozen=True):
    """``[queues]``: entries of each."""

    instructions: Entries
    tokens: Entries


class AcceleratorFile(Document, frozen=True):
    """A file in targets/vta/."""

    array: Array
    buffers: Buffers
    memory: Memory
    queues: Queues

    def __post_init__(self):
        self.accelerator()

    def accelerator(self) -> Accelerator:
        """Sizes that the file gives."""
        buffers = msgspec.structs.asdict(self.buffers)
        return Accelerator(
            self.array.DM,
            self.array.DN,
            **{f"{name.rstrip('_')}_rows": rows for name, rows in buffers.items()},
            latency=self.memory.latency,
            outstanding=self.memory.outstanding,
            instruction_queue=self.queues.instructions,
            token_queue=self.queues.tokens,
        )


def load_accelerator(target: str | Path = "default") -> Accelerator:
    """Read a name from targets/vta/, or a path to such a file.

    Raises
    ------
    TargetError
        If there is no such file, or it is malformed.
    """
    path = data_folder("targets") / "vta" / f"{target}.toml"
    path = path if path.is_file() else Path(target)
    source = accelerator_source(f"accelerator {str(target)!r}")
    return source.toml(source.read(path), AcceleratorFile).accelerator()


def accelerator_source(where: str) -> Source:
    """How faults of an accelerator's file are raised."""
    cure = "Give a name from targets/vta/, or a file like default.toml there"
    return Source(where, cure, TargetError, WRITTEN_BY_HAND)
