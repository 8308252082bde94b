"""Records of tuning: JSON lines, one file per device, checked when they are read.

Two kinds of line. A *trial* is one candidate that was measured, beside the default in turns. A
*record* is a candidate that has beaten the default in a comparison of its own: `build` applies
records, trials only teach the cost model::

    {"kind": "trial", "workload": "conv2d ...", "target": "x86_64 znver5 ...", "tvm": "0.27",
     "strategy": "xnor", "tile": {"pixels": 4, ...}, "seconds": 4.1e-05, "default_seconds": 4.2e-05}
    {"kind": "record", ..., "speedup": 1.03, "by": "measured"}
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from ..data import data_folder
from ..decode import Document, Limits, Name, Seconds, Source, Text
from ..errors import BitencError
from ..files import written_whole
from ..kernel.nest.tile import Tile
from ..target import Target
from .workload import parse_workload, target_key, tvm_version

FILE_IN_FOLDER = "bitenc.jsonl"  # Beside the files of MetaSchedule's own database.
WAYS = ("measured", "instructions")  # How a record beat the default.


class RecordError(BitencError):
    """A file of records that can't be read, or written to."""


@dataclass(frozen=True)
class Trial:
    """One candidate and its time.

    Parameters
    ----------
    workload, target, tvm : str
        See `records.workload`.
    strategy : str
        ``"default"`` for what the rules choose by themselves.
    tile : Tile
    seconds, default_seconds : float
        Per run of the candidate and of the default, measured in turns; nan where it failed.
    error : str
        Why it failed.
    """

    workload: str
    target: str
    tvm: str
    strategy: str
    tile: Tile
    seconds: float
    default_seconds: float
    error: str = ""

    kind = "trial"

    @property
    def speedup(self) -> float:
        """How many times faster than the default; 0 where it failed."""
        return 0.0 if self.error else self.default_seconds / self.seconds

    @property
    def candidate(self) -> tuple[str, Tile]:
        """What was tried."""
        return self.strategy, self.tile


@dataclass(frozen=True)
class Record:
    """A candidate that beat the default.

    Parameters
    ----------
    workload, target, tvm : str
        See `records.workload`.
    strategy : {"xnor", "lut", "int8", "codebook"}
    tile : Tile
    speedup : float
        How many times faster than the default.
    by : {"measured", "instructions"}
        On the device in turns, or by executed instructions under emulation.
    """

    workload: str
    target: str
    tvm: str
    strategy: str
    tile: Tile
    speedup: float
    by: str = "measured"

    kind = "record"


Line = Trial | Record


def to_json(line: Line) -> str:
    """Write as one line of JSON."""
    content = {"kind": line.kind, **asdict(line)}
    content["tile"] = {k: v for k, v in asdict(line.tile).items() if v}
    for name in ("seconds", "default_seconds"):
        if name in content:
            content[name] = float(f"{content[name]:.4g}") if math.isfinite(content[name]) else None
    if not content.get("error", True):
        del content["error"]
    return json.dumps(content)


Strategy = Literal["default", "xnor", "lut", "int8", "codebook"]
Knob = Annotated[int, Meta(ge=0, le=1 << 20)]
LINE = Limits(size=1 << 16, items=1 << 10, depth=4)
FILE = Limits(size=1 << 28)


class TileDocument(Document, frozen=True):
    """``tile`` of a line; what isn't said is as `Tile` has it, or 0."""

    pixels: Knob = 0
    vectors: Knob = 0
    rows: Knob = 1
    splits: Knob = 1
    unroll: Knob = 0

    def tile(self) -> Tile:
        """The tile itself."""
        return Tile(**msgspec.structs.asdict(self))


class _LineDocument(Document, tag_field="kind", frozen=True):
    """What both kinds of line have."""

    workload: Text
    target: Name
    tvm: Annotated[str, Meta(max_length=32)]
    strategy: Strategy
    tile: TileDocument

    def __post_init__(self):
        parse_workload(self.workload)


class TrialDocument(_LineDocument, tag="trial", frozen=True):
    """A line that is a `Trial`."""

    seconds: Seconds | None
    default_seconds: Seconds | None
    error: Text = ""

    def __post_init__(self):
        super().__post_init__()
        if not self.error and None in (self.seconds, self.default_seconds):
            raise ValueError("has no times, and no error")

    def line(self) -> Trial:
        """The trial itself."""
        return Trial(
            self.workload,
            self.target,
            self.tvm,
            self.strategy,
            self.tile.tile(),
            math.nan if self.seconds is None else self.seconds,
            math.nan if self.default_seconds is None else self.default_seconds,
            self.error,
        )


class RecordDocument(_LineDocument, tag="record", frozen=True):
    """A line that is a `Record`."""

    speedup: Annotated[float, Meta(gt=0, le=1e6)]
    by: Literal["measured", "instructions"]

    def line(self) -> Record:
        """The record itself."""
        tile = self.tile.tile()
        return Record(
            self.workload, self.target, self.tvm, self.strategy, tile, self.speedup, self.by
        )


# A union is no `type` in the eyes of type checkers; msgspec takes both.
_LINE_KINDS = cast("type[TrialDocument | RecordDocument]", TrialDocument | RecordDocument)


def from_json(text: str | bytes, where: str = "record") -> Line:
    """Read one line.

    Raises
    ------
    RecordError
        Saying what is wrong with it.
    """
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    source = Source(where, "Delete that line, or tune into another file", RecordError, LINE)
    return source.json(content, _LINE_KINDS).line()


def read_lines(path: Path, about: tuple[str, ...] = ()) -> list[Line]:
    """Read a file; a last line that isn't complete, for its writer was killed, is left out.

    Parameters
    ----------
    path : Path
    about : tuple of str
        Only lines that contain all of these texts are looked at.

    Raises
    ------
    RecordError
        If there is no such file, or another line is malformed.
    """
    path = file_of(path)
    content = Source(str(path), "Check the path", RecordError, FILE).read(path)
    return list(_parsed(content[: content.rfind(b"\n") + 1], str(path), about))


@lru_cache(maxsize=8)  # Every `build` asks for the shipped files: parsing would be half its time.
def _parsed(content: bytes, path: str, about: tuple[str, ...]) -> tuple[Line, ...]:
    texts = [text.encode() for text in about]
    lines = enumerate(content.split(b"\n")[:-1], 1)
    chosen = ((number, line) for number, line in lines if all(text in line for text in texts))
    return tuple(from_json(line, f"{path}, line {number}") for number, line in chosen)


def file_of(database: str | Path) -> Path:
    """File of records that a database names: itself, or inside a folder of MetaSchedule's."""
    path = Path(database)
    return path / FILE_IN_FOLDER if path.is_dir() else path


def write_lines(lines: Iterable[Line], path: Path) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path, RecordError) as temporary:
        temporary.write_text("".join(to_json(line) + "\n" for line in lines), encoding="utf-8")


def merged(lines: Iterable[Line]) -> list[Line]:
    """Return all distinct trials, and of every workload's records the latest for each strategy."""
    trials: dict[tuple, Trial] = {}
    records: dict[tuple, Record] = {}
    for line in lines:
        key = (line.workload, line.target, line.tvm, line.strategy)
        if isinstance(line, Trial):
            trials[key, line.tile] = line
        else:
            records[key] = line
    return [*trials.values(), *records.values()]


class Journal:
    """A file of lines that grows: each is on the disk before `append` returns.

    Parameters
    ----------
    path : Path
        What it holds already is read; an incomplete last line is cut off.

    Raises
    ------
    RecordError
        If the file is malformed, can't be written, or another tuner writes to it.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(
                str(path), "another tuner writes to it", "Wait for it, or use another file"
            ) from None
        except OSError as error:
            raise RecordError(
                str(path), f"can't be written ({error.strerror})", "Use another path"
            ) from None
        self.lines = read_lines(path)
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def append(self, line: Line) -> None:
        """Add a line."""
        self.lines.append(line)
        self._file.write(to_json(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let others write."""
        self._file.close()


@dataclass(frozen=True)
class Records:
    """The records that hold for a target.

    Parameters
    ----------
    by_workload : dict of str to list of Record
    source : str
        Where they are from.
    """

    by_workload: dict[str, list[Record]] = field(default_factory=dict)
    source: str = "none"

    def find(self, workload: str, strategy: str | None = None) -> Record | None:
        """Return the best record of a workload, of one strategy where it is given."""
        found = self.by_workload.get(workload, [])
        return max(
            (r for r in found if strategy in (None, r.strategy)),
            key=lambda record: record.speedup,
            default=None,
        )


NO_RECORDS = Records()


def records_for(lines: Iterable[Line], target: Target, source: str) -> Records:
    """Choose the records of a target, made with this release of TVM."""
    key, version = target_key(target), tvm_version()
    chosen: dict[str, list[Record]] = {}
    for line in merged(line for line in lines if (line.target, line.tvm) == (key, version)):
        if isinstance(line, Record):
            chosen.setdefault(line.workload, []).append(line)
    return Records(chosen, source)


def load_records(
    database: str | Path | bool | None,
    target: Target,
    warn: Callable[[str], None] = warnings.warn,
) -> Records:
    """Read what `build` applies; what can't be read or doesn't fit is said, and left out.

    Parameters
    ----------
    database : path, bool or None
        A file or folder; None and True take the files that ship with tvm-bitenc, False none.
    target : Target
    warn : callable
    """
    if database is False:
        return Records()
    database = None if database is True else database
    paths = sorted(data_folder("schedules").glob("*.jsonl")) if database is None else [database]
    # Most of what ships is about other CPUs, and most of the rest are trials.
    about = ("record", target_key(target)) if database is None else ()
    lines: list[Line] = []
    for path in paths:
        try:
            lines += read_lines(Path(path), about)
        except RecordError as error:
            warn(f"{error} Layers take the default schedule.")
    records = records_for(lines, target, "shipped" if database is None else str(database))
    if database is not None and lines and not records.by_workload:
        warn(
            f"{database}: has no record for {target_key(target)!r} and TVM {tvm_version()}, but"
            f" {others(lines)}. Layers take the default schedule."
        )
    return records


def others(lines: Iterable[Line]) -> str:
    """Say which devices and releases lines are for."""
    found = sorted({(line.target, line.tvm) for line in lines if isinstance(line, Record)})
    named = ", ".join(f"for {target!r} and TVM {version}" for target, version in found)
    return named or "only trials, none of which beat the default"
