"""MetaSchedule's own database in a folder, looked at before TVM reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from ..decode import Count, Limits, Source
from .file import RecordError

LIMITS = Limits(size=1 << 28)
Hash = Annotated[str, Meta(pattern=r"^-?[0-9]{1,20}\Z")]
Encoded = Annotated[str, Meta(max_length=1 << 26)]
# Workloads, and records of them: what TVM writes into each line.
FILES = {
    "database_workload.json": tuple[Hash, Encoded],
    "database_tuning_record.json": tuple[Count, list[Any]],
}


def check_database(folder: Path) -> None:
    """Raise `RecordError` for files that MetaSchedule didn't write; missing ones are fine."""
    for name, kind in FILES.items():
        path = folder / name
        source = Source(str(path), "Delete it, or tune into another folder", RecordError, LIMITS)
        if not path.exists():
            continue
        for number, line in enumerate(source.read(path).splitlines(), 1):
            replace(source, where=f"{path}, line {number}").json(line, kind)
