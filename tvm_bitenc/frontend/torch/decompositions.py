"""Which operators torch itself writes in others before they are converted."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch._decomp import get_decompositions
from torch.export import default_decompositions

from .operators import resampling, windows

aten = torch.ops.aten
# Not among torch's core operators, but torch knows how to write them so.
FURTHER = (
    aten.addmv,
    aten.ldexp,
    aten.linalg_vector_norm,
)
# They have a converter here that keeps them in one piece.
OWN = frozenset([*resampling.OPERATORS, *windows.OPERATORS, "unfold.default"])


@cache
def decompositions() -> dict[torch._ops.OperatorBase, Callable]:
    """Torch's table for core operators, without those that have a converter here."""
    table = {
        op: function for op, function in default_decompositions().items() if _name(op) not in OWN
    }
    return {**table, **get_decompositions(FURTHER)}


def _name(op: torch._ops.OperatorBase) -> str:
    return getattr(op, "__name__", str(op))
