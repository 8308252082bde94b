"""What a model takes and gives: names, shapes and dtypes, the batch dynamic or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ..decode import INT32_MAX, Text
from ..errors import BitencError
from ..printable import escape_fields

BATCH = "batch"  # How the dynamic size is printed.
UNKNOWN = "unknown"  # And a size of an output that only its numbers tell.
Extent = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Expression = Annotated[str, Meta(pattern=r"^[\w+*/().,%\- ]{1,1000}\Z")]
DType = Annotated[str, Meta(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64)|bfloat16)\Z")]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output.

    Parameters
    ----------
    name : str
    shape : tuple of int or str
        ``"batch"``, or for outputs an expression of it, where the size is dynamic.
    dtype : str
    """

    name: Text
    shape: Annotated[tuple[Extent | Expression, ...], Meta(max_length=32)]
    dtype: DType

    def __post_init__(self):
        escape_fields(self)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is one of these."""
        return len(shape) == len(self.shape) and all(
            wanted in (size, BATCH) for size, wanted in zip(shape, self.shape)
        )

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.shape))
        return f"{self.dtype} ({sizes}{',' if len(self.shape) == 1 else ''})"


def check_batches(
    specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]], largest: int | None
) -> None:
    """Raise `BitencError` unless all dynamic inputs have one batch, neither empty nor too large."""
    batch, owner = None, ""
    for spec, shape in zip(specs, shapes):
        if BATCH not in spec.shape:
            continue
        where, size = f"input {spec.name!r}", shape[0]
        if size < 1:
            raise BitencError(where, "has an empty batch", "Give at least one sample")
        if batch is not None and size != batch:
            raise BitencError(
                where, f"has a batch of {size}, and {owner!r} one of {batch}", "Give equal batches"
            )
        if largest is not None and size > largest:
            raise BitencError(
                where,
                f"has a batch of {size}, and indices of 32 bits reach {largest}",
                "Give it in parts",
            )
        batch, owner = size, spec.name
