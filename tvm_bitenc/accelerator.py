"""Parameters of an accelerator, from a file in targets/vta/."""

from __future__ import annotations

from collections.abc import Iterator
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
DEPTHS = (32, 64, 128, 256)
MOST_ROWS = 1 << 24
_LEAST_ROWS = {"param": 4}  # That the Verilog's counters can address; 2 of the other buffers.
Rows = Annotated[int, Meta(ge=1, le=MOST_ROWS)]
FloatUnits = Annotated[int, Meta(ge=0, le=2)]
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
        DM: output channels computed at a time; divides 64, and is at most DK.
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
    float_units : int
        Float32 numbers per cycle behind the accumulators; 0 leaves such arithmetic to the CPU.
    depth : int
        DK: bits of a dot-product unit, 32, 64, 128 or 256.
    stages : int
        Cycles of a popcount: 1, or 2 with registers inside.
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
    float_units: FloatUnits = 0
    depth: Rows = 64
    stages: Rows = 2

    def __post_init__(self):
        for name, value in asdict(self).items():
            if name == "float_units":
                continue
            least, why = LEAST.get(name, (1, ""))
            if type(value) is not int or not least <= value <= MOST_ROWS:
                cure = f"Give an integer from {least} on"
                raise TargetError("accelerator", f"{name} = {value!r}{why}", cure)
        for is_wrong, cause, cure in self._faults():
            if is_wrong:
                raise TargetError("accelerator", cause, cure)

    def _faults(self) -> Iterator[tuple[bool, str, str]]:
        """What the Verilog can't run: whether it is so, what, and what to write instead."""
        dm, dn, dk, units = self.channels, self.pixels, self.depth, self.float_units
        yield bool(WORD_BITS % dm), f"DM = {dm} doesn't divide {WORD_BITS}", "Use 1, 2, 4, ... 64"
        yield bool(dn & (dn - 1)), f"DN = {dn} isn't a power of two", "Use 1, 2, 4, 8, ..."
        yield dk not in DEPTHS, f"DK = {dk}", f"Use one of {', '.join(map(str, DEPTHS))}"
        yield dm > dk, f"a pool can't read DM = {dm} bits of DK = {dk} at a time", "Raise DK"
        yield self.stages > 2, f"a popcount of {self.stages} stages", "Use 1 or 2"
        cause = f"{units!r} float units: buffers give and take two numbers a cycle"
        yield units not in (0, 1, 2), cause, "Use 0, 1 or 2"
        cause = f"float units take pairs of channels, and turns of pixels: not DM = {dm}, DN = {dn}"
        yield bool(units) and 1 in (dm, dn), cause, "Use 2 at least, or no float units"
        for buffer in BUFFERS:
            rows, least = self.rows(buffer), _LEAST_ROWS.get(buffer, 2)
            yield rows < least, f"{buffer} = {rows} rows are too few", f"Use {least} at least"
            cause = f"no instruction's field reaches all of {buffer} = {rows} rows"
            yield rows > 1 << 14, cause, f"Use {1 << 14} at most"
        cause = f"act = {self.act_rows} rows of DN = {dn} words: a tap's offset reaches {1 << 19}"
        yield self.act_rows * dn > 1 << 19, cause, "Lower `act` or DN"

    def rows(self, buffer: str) -> int:
        """Rows of a buffer of `BUFFERS`."""
        return getattr(self, f"{buffer}_rows")

    @property
    def macs_per_cycle(self) -> int:
        """Binary multiply-accumulates per cycle."""
        return self.channels * self.pixels * self.depth

    def accumulator_words(self, bits: int) -> int:
        """Words of a pixel's accumulators of so many bits, of DM channels."""
        return -(-self.channels * bits // WORD_BITS)

    @property
    def row_words(self) -> int:
        """Words of the memory in a bank's row of ``act`` or ``weight``: DK bits, or one word."""
        return max(self.depth // WORD_BITS, 1)

    @property
    def row_steps(self) -> int:
        """Steps of the array that a row feeds: 2 where DK is half a word."""
        return max(WORD_BITS // self.depth, 1)


class Array(Document, frozen=True):
    """``[array]`` of a file."""

    DM: Rows
    DK: Rows
    DN: Rows
    stages: Rows = 2


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


class Floats(Document, frozen=True):
    """``[floats]``, which may be left out: numbers per cycle."""

    units: FloatUnits


class AcceleratorFile(Document, frozen=True):
    """A file in targets/vta/."""

    array: Array
    buffers: Buffers
    memory: Memory
    queues: Queues
    floats: Floats = Floats(units=0)

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
            float_units=self.floats.units,
            depth=self.array.DK,
            stages=self.array.stages,
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
