"""From TE definitions to functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import te, tirx


def sizes_of(shape: Sequence, batch: tirx.Var | int) -> tuple:
    """Sizes of a tensor as kernels want them, `batch` in place of the only dynamic one.

    Plain integers make every index int32; the 64-bit ones of Relax would add casts.
    """
    first, *others = shape
    is_fixed = isinstance(first, (int, tirx.IntImm))
    return (int(first) if is_fixed else batch, *(int(size) for size in others))


def prim_func(compute: Callable[..., te.Tensor], inputs: Sequence) -> tirx.PrimFunc:
    """Make a function from a TE definition.

    Parameters
    ----------
    compute : callable
        From tensors to the output tensor.
    inputs : sequence of ndarray or relax.Expr
        What the tensors' shapes and dtypes are taken from.
    """
    tensors, batch = [], tirx.Var("batch", "int32")
    for i, value in enumerate(inputs):
        described = value if isinstance(value, np.ndarray) else value.ty
        shape = sizes_of(described.shape, batch)
        tensors.append(te.placeholder(shape, str(described.dtype), name=f"input{i}"))
    return te.create_prim_func([*tensors, compute(*tensors)])
