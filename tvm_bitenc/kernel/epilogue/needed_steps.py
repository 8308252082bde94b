"""Which of the operations behind an accumulator its code depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...layer import ConvLayer, FloatStep
from ...op.multiply_add import fused_multiply_add
from .affine_fit import codes_at_thresholds

_LIMITS = ("clip", "maximum", "minimum")
_FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "astype": lambda x: x.astype(np.float32),
    "multiply": np.multiply,
    "divide": np.divide,
    "add": np.add,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "prelu": lambda x, slope: np.where(x > 0, x, x * slope),
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "multiply_add": fused_multiply_add,
    "round": np.rint,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
}


def needed_steps(layer: ConvLayer) -> tuple[FloatStep, ...]:
    """Return a layer's `code_steps` without limits that those of the code itself imply.

    ``clip(x, 0, 1) * 255`` is limited to 0 ... 255 once more. Without the first limit the function
    still never turns, so it gives every code if it does at each threshold and just below it.
    """
    acc, codes = codes_at_thresholds(layer)
    steps = list(layer.code_steps)
    if not _are_monotone(steps):
        return layer.code_steps
    for step in [step for step in steps if step.name in _LIMITS]:
        others = [other for other in steps if other is not step]
        if np.array_equal(_evaluated(others, acc, len(layer.threshold_unit[0])), codes):
            steps = others
    return tuple(steps)


def _are_monotone(steps: Sequence[FloatStep]) -> bool:
    """Whether no step turns, channel by channel."""
    return not any(step.name == "prelu" and np.any(step.constants[0] < 0) for step in steps)


def _evaluated(steps: Sequence[FloatStep], acc: np.ndarray, highest: int) -> np.ndarray:
    x = acc
    with np.errstate(all="ignore"):
        for step in steps:
            x = _FUNCTIONS[step.name](x, *step.constants)
        return np.clip(x, 0, highest)
