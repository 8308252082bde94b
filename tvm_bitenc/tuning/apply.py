"""Tuned records become kernels: what the passes `strategy` and `schedule` ask."""

from __future__ import annotations

import warnings
from dataclasses import asdict

from tvm import relax

from ..op.packed import packed_conv2d_op
from ..op.registration import is_call_to
from ..records.file import Record
from ..records.workload import workload_of
from ..schedule import Kernel, find_kernel, find_space
from ..target import Target

DEFAULT_RULE = "default rule"


def record_of(call: relax.Call, target: Target) -> Record | None:
    """Return the record of a convolution, of its strategy if it has one already."""
    if target.records is None or not target.records.by_workload:
        return None
    if not is_call_to(call, packed_conv2d_op):
        return None
    strategy = str(call.attrs["strategy"]) or None
    return target.records.find(workload_of(call, target), strategy)


def kernel_of(call: relax.Call, target: Target) -> Kernel:
    """Return the kernel that a record describes, or else that of the default rule."""
    record = record_of(call, target)
    if record is not None:
        space = find_space(call, target)
        kernel = space.kernel(record.tile) if space and space.allows(record.tile) else None
        if kernel is not None:
            return kernel
        warnings.warn(
            f"{target.records.source}: its record for {record.workload!r} names no kernel of this"
            " release of tvm-bitenc. The layer takes the default schedule.",
            stacklevel=2,
        )
    return find_kernel(call, target)


def schedule_of(call: relax.Call, target: Target) -> str:
    """Say where the kernel of a call comes from, as reports do."""
    record = record_of(call, target)
    space = None if record is None else find_space(call, target)
    if space is None or not space.allows(record.tile):
        return DEFAULT_RULE
    values = " ".join(f"{name}={value}" for name, value in asdict(record.tile).items() if value)
    return f"record: {values}, {record.speedup:.2f} x by {record.by}"
