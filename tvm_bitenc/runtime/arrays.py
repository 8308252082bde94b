"""Arrays of any kind, as a compiled model takes them: checked, in C order and native bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import BitencError, first_line
from .specs import TensorSpec, check_batches


def checked_arrays(
    inputs: Sequence, specs: Sequence[TensorSpec], largest_batch: int | None = None
) -> list[np.ndarray]:
    """Return inputs as arrays in C order; `BitencError` unless they are what a model takes."""
    if len(inputs) == len(specs) and all(map(_is_plain, inputs, specs)):
        return list(inputs)
    if len(inputs) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise BitencError(
            "model", f"takes {len(specs)} inputs, not {len(inputs)}", f"Give {names or 'none'}"
        )
    arrays = [_array(value, spec) for value, spec in zip(inputs, specs)]
    check_batches(specs, [array.shape for array in arrays], largest_batch)
    # Last, for a view may have more elements than memory holds.
    return [_plain(array, spec) for array, spec in zip(arrays, specs)]


def _is_plain(value: Any, spec: TensorSpec) -> bool:
    """Whether nothing is left to do: the case of calls that are to be fast."""
    return (
        type(value) is np.ndarray
        and value.shape == spec.shape
        and value.dtype == numpy_dtype(spec.dtype)
        and value.flags.c_contiguous
        and value.flags.aligned
    )


@lru_cache
def numpy_dtype(name: str) -> np.dtype:
    """The dtype of a name; numpy itself has no bfloat16."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def _array(value: Any, spec: TensorSpec) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        try:
            value = _converted(value)
        except Exception as error:  # Of any library whose tensor it is.
            raise BitencError(
                f"input {spec.name!r}",
                f"is a {type(value).__name__} that can't be read ({first_line(error)})",
                "Give a numpy array, or a dense tensor in the CPU's memory",
            ) from None
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        raise BitencError(f"input {spec.name!r}", "has masked elements", "Fill them in")
    if not spec.fits(value.shape) or _dtype(value) != spec.dtype:
        raise BitencError(
            f"input {spec.name!r}",
            f"is {value.dtype} {value.shape}, but the model was compiled for {spec}",
            "Convert it, or compile the model with an example of this shape",
        )
    return value


def _converted(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # A torch tensor that needs gradients refuses DLPack,
        value = value.detach()
    if hasattr(value, "resolve_neg"):  # which would also drop these two bits.
        value = value.resolve_conj().resolve_neg()
    return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)


def _dtype(array: np.ndarray) -> str:
    dtype = array.dtype
    return str(dtype if dtype.isnative else dtype.newbyteorder("="))


def _plain(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return np.array(array, numpy_dtype(spec.dtype), order="C")
