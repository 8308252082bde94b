"""What was decided of a convolution, as attributes of its call.

`transform.strategy` writes them, with `decided`; whoever makes, times or describes a kernel reads
them, and decides nothing again::

    bitenc.packed_conv2d(..., strategy="xnor", tile=[4, 2, 1, 1, 0],
                         origin="record: pixels=4 vectors=2 rows=1 splits=1, 1.05 x by measured")
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, astuple

from tvm import relax

from ..kernel.nest.tile import Tile
from ..op.registration import with_attributes
from ..schedule import find_space
from ..target import Target
from .file import Record, Records
from .workload import workload_of

DEFAULT_RULE = "default rule"


def record_of(
    call: relax.Call, target: Target, records: Records, strategy: str | None = None
) -> Record | None:
    """Return the best record of a convolution, of one strategy where it is given."""
    if not records.by_workload:
        return None
    return records.find(workload_of(call, target), strategy)


def decided(call: relax.Call, strategy: str, target: Target, records: Records) -> relax.Call:
    """Return a convolution with its strategy, its tile, and where the tile comes from.

    Parameters
    ----------
    call : relax.Call
        To `packed_conv2d`.
    strategy : str
    target : Target
    records : Records
        A record that names no kernel of this release is said, and left out.
    """
    call = with_attributes(call, strategy=strategy, tile=[], origin=DEFAULT_RULE)
    record = record_of(call, target, records, strategy)
    if record is None:
        return call
    space = find_space(call, target)
    if space is None or not space.allows(record.tile):
        warnings.warn(
            f"{records.source}: its record for {record.workload!r} names no kernel of this"
            " release of tvm-bitenc. The layer takes the default schedule.",
            stacklevel=2,
        )
        return call
    return with_attributes(call, tile=list(astuple(record.tile)), origin=_origin(record))


def _origin(record: Record) -> str:
    values = " ".join(f"{name}={value}" for name, value in asdict(record.tile).items() if value)
    return f"record: {values}, {record.speedup:.2f} x by {record.by}"


def tile_of(call: relax.Call) -> Tile | None:
    """Return the tile of a convolution's record; None where the default rule chooses."""
    values = [int(value) for value in call.attrs.get("tile", ())]
    return Tile(*values) if values else None


def origin_of(call: relax.Call) -> str:
    """Say where the kernel of a call comes from, as reports do."""
    return str(call.attrs.get("origin", DEFAULT_RULE))
