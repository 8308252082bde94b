"""Calibration data, checked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from ...errors import BitencError

Array = np.ndarray | Tensor


def checked_batches(batches: Iterable) -> list[tuple[Array, ...] | dict[str, Array]]:
    """Batches as tuples or dictionaries; a lone array is one batch.

    Raises
    ------
    BitencError
        If there are none, or one has no arrays, another floating dtype than float32, NaN or
        infinity.
    """
    if isinstance(batches, (Tensor, np.ndarray, dict)):
        batches = [batches]
    if not isinstance(batches, Iterable):
        raise BitencError(
            "quantize: calibration_batches",
            f"{type(batches).__name__} isn't iterable",
            "Give a list of batches",
        )
    found = []
    for i, batch in enumerate(batches):
        if isinstance(batch, (Tensor, np.ndarray)):
            batch = (batch,)
        where = f"calibration batch {i}"
        if not isinstance(batch, (tuple, list, dict)):
            raise BitencError(
                where, f"is {type(batch).__name__}", "Give tensors or tuples of tensors"
            )
        for part in batch.values() if isinstance(batch, dict) else batch:
            _check(where, part)
        found.append(batch if isinstance(batch, dict) else tuple(batch))
    if not found:
        raise BitencError(
            "quantize", "there is no calibration data", "Give some batches of typical inputs"
        )
    return found


def _check(where: str, part: object) -> None:
    if not isinstance(part, (Tensor, np.ndarray)):
        raise BitencError(where, f"has {type(part).__name__} in it", "Give tensors or arrays")
    x = np.asarray(part.detach() if isinstance(part, Tensor) else part)
    if x.size == 0:
        raise BitencError(where, f"is empty: {x.shape}", "Leave it out")
    if x.dtype.kind == "f":
        if x.dtype != np.float32:
            raise BitencError(where, f"is {x.dtype}", "Convert it to float32")
        if not np.isfinite(x).all():
            raise BitencError(where, "has NaN or infinity", "Clean the data")
