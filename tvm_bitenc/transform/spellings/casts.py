"""Integers stored as integers: PT2E and ONNX cast to int8 and back."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ..analysis.float32 import op_name
from ..analysis.grid import integers_of
from ..rewrite import Graph


def cast_there_and_back(call: relax.Call, graph: Graph) -> relax.Expr | None:
    """``astype(astype(codes, "int8"), "float32")`` is codes, where int8 holds them all."""
    if op_name(call) != "relax.astype" or str(call.attrs.dtype) != "float32":
        return None
    inner = graph.definition(call.args[0])
    if op_name(inner) != "relax.astype" or str(inner.args[0].ty.dtype) != "float32":
        return None
    dtype = str(inner.attrs.dtype)
    integers = integers_of(inner.args[0], graph)
    if integers is None or not dtype.startswith(("int", "uint")):
        return None
    limits = np.iinfo(dtype)
    inside = limits.min <= integers[0] and integers[-1] <= limits.max
    return inner.args[0] if inside else None
