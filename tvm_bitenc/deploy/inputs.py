"""Inputs for models that nobody gave any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.specs import TensorSpec


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> list[np.ndarray]:
    """Inputs of the right shapes and types; a dynamic batch is 1."""
    rng = np.random.default_rng(seed)
    shapes = [[size if isinstance(size, int) else 1 for size in spec.shape] for spec in specs]
    return [
        rng.standard_normal(shape).astype(spec.dtype)
        if spec.dtype.startswith("float")
        else rng.integers(0, 2, shape).astype(spec.dtype)
        for spec, shape in zip(specs, shapes)
    ]
